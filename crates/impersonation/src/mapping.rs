//! What users and groups of the management side are called in a managed cluster.
//!
//! `narrowing` applies it before it checks: whatever comes out is held against the rules, so that neither a prefix nor a
//! mapping makes anybody what the cluster's owner denies.

use std::collections::BTreeMap;

use moorline_model::{Identity, InvalidIdentity};

/// The groups in which kube-apiserver itself puts everybody; they are called the same everywhere.
pub(crate) const EVERYBODY: [&str; 2] = ["system:authenticated", "system:unauthenticated"];

/// New names for users and groups. An explicit one counts before the prefix; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// What user names begin with here, put before the name.
    pub user_prefix: String,
    /// What groups begin with here; `system:authenticated` and `system:unauthenticated` stay as they are.
    pub group_prefix: String,
    /// New names of users, whole, by their names on the management side.
    pub users: BTreeMap<String, String>,
    /// New names of groups, likewise.
    pub groups: BTreeMap<String, String>,
}

impl Mapping {
    /// The identity under its names here. Uid and extra stay.
    pub(crate) fn map(&self, identity: Identity) -> Result<Identity, InvalidIdentity> {
        if *self == Self::default() {
            return Ok(identity);
        }
        let user = renamed(&self.users, &self.user_prefix, identity.user());
        let groups = identity.groups().iter().map(|group| match self.groups.get(group) {
            None if EVERYBODY.contains(&group.as_str()) => group.clone(),
            _other => renamed(&self.groups, &self.group_prefix, group),
        });
        let mut mapped = Identity::new(user)?.with_groups(groups)?;
        if let Some(uid) = identity.uid() {
            mapped = mapped.with_uid(uid)?;
        }
        for (key, values) in identity.extra() {
            mapped = mapped.with_extra(key, values)?;
        }
        Ok(mapped)
    }
}

fn renamed(names: &BTreeMap<String, String>, prefix: &str, name: &str) -> String {
    names.get(name).cloned().unwrap_or_else(|| format!("{prefix}{name}"))
}

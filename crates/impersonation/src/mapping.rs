//! What users and groups of the management side are called in a managed cluster.
//!
//! `narrowing` applies it before it checks: whatever comes out is held against the rules, so that neither a prefix nor a
//! mapping makes anybody what the cluster's owner denies.

use std::collections::{BTreeMap, BTreeSet};

use moorline_model::{Identity, InvalidIdentity};

use crate::narrowing::Narrowed;

/// The groups in which kube-apiserver itself puts everybody; they are called the same everywhere.
pub(crate) const EVERYBODY: [&str; 2] = ["system:authenticated", "system:unauthenticated"];

/// New names for users and groups; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Those of users.
    pub users: Names,
    /// Those of groups. `system:authenticated` and `system:unauthenticated` get no prefix.
    pub groups: Names,
}

/// New names of one kind. An explicit one counts before the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    explicit: BTreeMap<String, String>,
    given: BTreeSet<String>,
}

impl Names {
    /// Every name begins with `prefix`, except those that are names of `explicit`: they are whole what that says.
    #[must_use]
    pub fn new(prefix: String, explicit: BTreeMap<String, String>) -> Self {
        let given = explicit.values().cloned().collect();
        Self { prefix, explicit, given }
    }

    pub(crate) const fn none() -> Self {
        Self { prefix: String::new(), explicit: BTreeMap::new(), given: BTreeSet::new() }
    }

    /// What every name without an explicit one begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The names that are given explicitly.
    #[must_use]
    pub const fn given(&self) -> &BTreeSet<String> {
        &self.given
    }

    /// The name here. An error where it is one that is given explicitly, and not to this name: whoever the management side
    /// calls so would else be taken for those whom the cluster's owner called so.
    fn of(&self, name: &str) -> Result<String, String> {
        if let Some(given) = self.explicit.get(name) {
            return Ok(given.clone());
        }
        let prefixed = format!("{}{name}", self.prefix);
        if self.given.contains(&prefixed) { Err(prefixed) } else { Ok(prefixed) }
    }
}

impl Mapping {
    pub(crate) const fn none() -> Self {
        Self { users: Names::none(), groups: Names::none() }
    }

    /// The identity under its names here. Uid and extra stay.
    pub(crate) fn map(&self, identity: Identity) -> Result<Identity, Narrowed> {
        if *self == Self::none() {
            return Ok(identity);
        }
        let user = self.users.of(identity.user()).map_err(|name| Narrowed::Taken { kind: "user", name })?;
        let groups = identity.groups().iter().map(|group| match group.as_str() {
            everybody if EVERYBODY.contains(&everybody) && !self.groups.explicit.contains_key(group) => {
                Ok(group.clone())
            }
            group => self.groups.of(group).map_err(|name| Narrowed::Taken { kind: "group", name }),
        });
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let mapped = Identity::new(user).and_then(|user| user.with_groups(groups));
        mapped.and_then(|mapped| with_rest(mapped, identity.uid(), identity.extra())).map_err(Narrowed::Unmapped)
    }
}

/// The identity with this uid and these extra values.
pub(crate) fn with_rest<'a>(
    mut identity: Identity,
    uid: Option<&str>,
    extra: impl IntoIterator<Item = (&'a String, &'a Vec<String>)>,
) -> Result<Identity, InvalidIdentity> {
    if let Some(uid) = uid {
        identity = identity.with_uid(uid)?;
    }
    for (key, values) in extra {
        identity = identity.with_extra(key, values)?;
    }
    Ok(identity)
}

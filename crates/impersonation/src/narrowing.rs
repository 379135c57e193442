//! What a managed cluster's own configuration does not let the management side be.
//!
//! The agent asks before it impersonates. It is the managed cluster's last word, given where a captured management
//! side cannot change it.

use std::borrow::Cow;

use moorline_model::{Identity, InvalidIdentity};
use thiserror::Error;

use crate::{
    mapping::{EVERYBODY, Mapping},
    passed::Passed,
};

/// Users and groups that may be acted as, and what they are called here. Each rule is a name, or the beginning of names
/// followed by `*`. Kubernetes compares names exactly, and so does this. Rules are about the names that the cluster sees:
/// those that the mapping gives. A denial counts before an allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// User names that are refused.
    pub deny_users: Vec<String>,
    /// Groups of which no member is let through.
    pub deny_groups: Vec<String>,
    /// The only user names that are let through; empty for all.
    pub allow_users: Vec<String>,
    /// The only groups that members may be in, besides those of everybody; empty for all.
    pub allow_groups: Vec<String>,
    /// What users and groups are called here.
    pub mapping: Mapping,
    /// What else of an identity is passed on.
    pub passed: Passed,
}

impl Default for Narrowing {
    /// Refuses the identities of Kubernetes' own parts, which hold rights that no user of a fleet needs:
    /// - `system:masters`, which no RBAC rule can hold back, and kubeadm's group for the same people;
    /// - nodes, and the bootstrap tokens from which nodes are made;
    /// - the controller manager and other `system:kube-*` users, and the API server itself: they can mint tokens for any
    ///   service account or read every Secret;
    /// - the service accounts of `kube-system`, among them the controllers', several of which may grant themselves
    ///   anything. A service account of the management cluster would otherwise become its namesake here.
    fn default() -> Self {
        let owned = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        Self {
            deny_users: owned(&[
                "system:node:*",
                "system:bootstrap:*",
                "system:kube-*",
                "system:apiserver",
                "system:admin",
                "system:serviceaccount:kube-system:*",
            ]),
            deny_groups: owned(&[
                "system:masters",
                "system:nodes",
                "system:bootstrappers",
                "system:bootstrappers:*",
                "system:serviceaccounts:kube-system",
                "kubeadm:cluster-admins",
            ]),
            ..Self::none()
        }
    }
}

impl Narrowing {
    /// Lets everybody through. For clusters that trust the management side with everything, as their owners must say.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            deny_users: Vec::new(),
            deny_groups: Vec::new(),
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            mapping: Mapping::none(),
            passed: Passed::everything(),
        }
    }

    /// The identity that may be acted as here, under its names here.
    ///
    /// # Errors
    /// The first rule that refuses it. The whole request must be refused: with the group merely left out, it would do
    /// something else than was asked.
    pub fn admit(&self, identity: Identity) -> Result<Identity, Narrowed> {
        let mapped = self.mapping.map(self.passed.of(identity)?)?;
        self.check(&mapped)?;
        Ok(mapped)
    }

    fn check(&self, identity: &Identity) -> Result<(), Narrowed> {
        let user = self.deny_users.iter().find(|rule| covers(rule, identity.user()));
        if let Some(rule) = user {
            return Err(Narrowed::Denied { kind: "user", rule: rule.clone() });
        }
        let groups = effective_groups(identity);
        let group = self.deny_groups.iter().find(|rule| groups.iter().any(|group| covers(rule, group)));
        if let Some(rule) = group {
            return Err(Narrowed::Denied { kind: "group", rule: rule.clone() });
        }
        let allowed = |rules: &[String], name: &str| rules.is_empty() || rules.iter().any(|rule| covers(rule, name));
        if !allowed(&self.allow_users, identity.user()) {
            return Err(Narrowed::NotAllowed { kind: "user", name: identity.user().to_owned() });
        }
        let mut own = groups.iter().filter(|group| !EVERYBODY.contains(&group.as_str()));
        match own.find(|group| !allowed(&self.allow_groups, group)) {
            Some(group) => Err(Narrowed::NotAllowed { kind: "group", name: group.clone() }),
            None => Ok(()),
        }
    }
}

/// The groups that the identity has at the kube-apiserver, which gives its own to a service account that comes without
/// any; save those of everybody, which no rule is about.
fn effective_groups(identity: &Identity) -> Cow<'_, [String]> {
    let account = identity.user().strip_prefix("system:serviceaccount:").filter(|_| identity.groups().is_empty());
    let Some((namespace, _name)) = account.and_then(|account| account.split_once(':')) else {
        return Cow::Borrowed(identity.groups());
    };
    Cow::Owned(vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")])
}

/// The rule by which an identity was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Narrowed {
    /// A rule denies it.
    #[error("{kind} {rule} is denied by the managed cluster's configuration")]
    Denied {
        /// `user` or `group`.
        kind: &'static str,
        /// The rule as it was configured.
        rule: String,
    },
    /// There is a list of who is allowed, and this is not on it.
    #[error("{kind} {name:?} is not on the managed cluster's list of allowed {kind}s")]
    NotAllowed {
        /// `user` or `group`.
        kind: &'static str,
        /// The name, as it would be here.
        name: String,
    },
    /// It would be taken for others, to whom the cluster's owner gave that name.
    #[error("{kind} {name:?} is what the managed cluster's configuration calls another {kind} of the management side")]
    Taken {
        /// `user` or `group`.
        kind: &'static str,
        /// The name, as it would be here.
        name: String,
    },
    /// It has an extra value that takes rights away, and that is not passed on.
    #[error("the identity is limited by {0}, which the managed cluster's configuration does not pass on")]
    Limited(&'static str),
    /// With its names here it is no identity any more.
    #[error("the managed cluster's mapping makes it invalid: {0}")]
    Unmapped(InvalidIdentity),
}

pub(crate) fn covers(rule: &str, name: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;

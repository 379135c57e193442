//! What a managed cluster's own configuration does not let the management side be.
//!
//! The agent asks before it impersonates. It is the managed cluster's last word, given where a captured management
//! side cannot change it.

use moorline_model::Identity;
use thiserror::Error;

/// Users and groups that nobody may act as. Each rule is a name, or the beginning of names followed by `*`.
/// Kubernetes compares names exactly, and so does this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// User names that are refused.
    pub deny_users: Vec<String>,
    /// Groups of which no member is let through.
    pub deny_groups: Vec<String>,
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
        }
    }
}

impl Narrowing {
    /// Lets everybody through. For clusters that trust the management side with everything, as their owners must say.
    #[must_use]
    pub const fn none() -> Self {
        Self { deny_users: Vec::new(), deny_groups: Vec::new() }
    }

    /// Whether this identity may be acted as here.
    ///
    /// # Errors
    /// The first rule that refuses it. The whole request must be refused: with the group merely left out, it would do
    /// something else than was asked.
    pub fn check(&self, identity: &Identity) -> Result<(), Narrowed> {
        let user = self.deny_users.iter().find(|rule| covers(rule, identity.user()));
        if let Some(rule) = user {
            return Err(Narrowed { kind: "user", rule: rule.clone() });
        }
        let group = self.deny_groups.iter().find(|rule| identity.groups().iter().any(|group| covers(rule, group)));
        group.map_or(Ok(()), |rule| Err(Narrowed { kind: "group", rule: rule.clone() }))
    }
}

/// The rule by which an identity was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind} {rule} is denied by the managed cluster's configuration")]
pub struct Narrowed {
    kind: &'static str,
    rule: String,
}

impl Narrowed {
    /// The rule as it was configured.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

fn covers(rule: &str, name: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_nobody_is_part_of_kubernetes() {
        let check = |user: &str, groups: &[&str]| {
            Narrowing::default().check(&Identity::new(user).unwrap().with_groups(groups.iter().copied()).unwrap())
        };
        for (user, group) in [
            ("ann", "system:masters"),
            ("ann", "system:nodes"),
            ("ann", "system:bootstrappers"),
            ("ann", "system:bootstrappers:kubeadm:default-node-token"),
            ("ann", "kubeadm:cluster-admins"),
            ("system:node:a", "x"),
            ("system:kube-controller-manager", "x"),
            ("system:apiserver", "x"),
            ("system:serviceaccount:kube-system:namespace-controller", "x"),
        ] {
            assert!(check(user, &["first", group]).is_err(), "{user} {group}");
        }
        for (user, group) in [
            ("ann", "system:authenticated"),
            ("ann", "System:Masters"),
            ("kubernetes-admin", "devs"),
            ("system:serviceaccount:shop:kube-system", "system:serviceaccounts:shop"),
        ] {
            assert_eq!(check(user, &[group]), Ok(()), "{user} {group}");
        }
        assert_eq!(check("ann", &["system:masters"]).unwrap_err().rule(), "system:masters");
    }

    #[test]
    fn rules_are_what_the_configuration_says() {
        let masters = Identity::new("ann").unwrap().with_groups(["system:masters"]).unwrap();
        assert_eq!(Narrowing::none().check(&masters), Ok(()));
        let nobody = Narrowing { deny_users: vec!["*".to_owned()], deny_groups: Vec::new() };
        assert!(nobody.check(&masters).is_err());
        let literal = Narrowing { deny_users: vec!["a*n".to_owned()], deny_groups: Vec::new() };
        assert_eq!(literal.check(&masters), Ok(()));
    }
}

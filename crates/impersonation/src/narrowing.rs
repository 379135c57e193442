//! What a managed cluster's own configuration does not let the management side be.
//!
//! The agent asks before it impersonates. It is the managed cluster's last word, given where a captured management
//! side cannot change it.

use std::borrow::Cow;

use moorline_model::{Identity, InvalidIdentity};
use thiserror::Error;

use crate::mapping::{EVERYBODY, Mapping};

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
        }
    }

    /// The identity that may be acted as here, under its names here.
    ///
    /// # Errors
    /// The first rule that refuses it. The whole request must be refused: with the group merely left out, it would do
    /// something else than was asked.
    pub fn admit(&self, identity: Identity) -> Result<Identity, Narrowed> {
        let mapped = self.mapping.map(identity)?;
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
    /// With its names here it is no identity any more.
    #[error("the managed cluster's mapping makes it invalid: {0}")]
    Unmapped(InvalidIdentity),
}

fn covers(rule: &str, name: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mapping::Names;

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
        let denied = check("ann", &["system:masters"]).unwrap_err().to_string();
        assert_eq!(denied, "group system:masters is denied by the managed cluster's configuration");
    }

    #[test]
    fn rules_are_what_the_configuration_says() {
        let masters = Identity::new("ann").unwrap().with_groups(["system:masters"]).unwrap();
        assert_eq!(Narrowing::none().check(&masters), Ok(()));
        let nobody = Narrowing { deny_users: vec!["*".to_owned()], ..Narrowing::none() };
        assert!(nobody.check(&masters).is_err());
        let literal = Narrowing { deny_users: vec!["a*n".to_owned()], ..Narrowing::none() };
        assert_eq!(literal.check(&masters), Ok(()));
    }

    fn names(prefix: &str, pairs: &[(&str, &str)]) -> Names {
        let pairs = pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned()));
        Names::new(prefix.to_owned(), pairs.collect())
    }

    fn somebody(user: &str, groups: &[&str]) -> Identity {
        Identity::new(user).unwrap().with_groups(groups.iter().copied()).unwrap()
    }

    #[test]
    fn names_are_mapped_and_then_held_against_the_rules() {
        let mapping = Mapping {
            users: names("hub:", &[("ann", "alice")]),
            groups: names("hub:", &[("dev", "developers"), ("root", "system:masters")]),
        };
        let rules = Narrowing { mapping: mapping.clone(), ..Narrowing::default() };
        let ann = somebody("ann", &["dev", "ops", "system:authenticated"]).with_uid("7").unwrap();
        let ann = ann.with_extra("scopes", ["a", "b"]).unwrap();
        let mapped = rules.admit(ann).unwrap();
        assert_eq!((mapped.user(), mapped.uid()), ("alice", Some("7")));
        assert_eq!(mapped.groups(), ["developers", "hub:ops", "system:authenticated"]);
        assert_eq!(mapped.extra()["scopes"], ["a", "b"]);
        assert_eq!(rules.admit(somebody("bob", &["system:masters"])).unwrap().groups(), ["hub:system:masters"]);
        assert!(matches!(rules.admit(somebody("bob", &["root"])), Err(Narrowed::Denied { kind: "group", .. })));
        let willing = Narrowing { mapping, ..Narrowing::none() };
        assert_eq!(willing.admit(somebody("bob", &["root"])).unwrap().groups(), ["system:masters"]);
        assert!(matches!(rules.admit(somebody(&"x".repeat(1024), &[])), Err(Narrowed::Unmapped(_))));
    }

    #[test]
    fn nobody_takes_a_name_that_is_given_to_others() {
        let mapping = Mapping {
            users: names("", &[("ann", "alice"), ("al", "alice"), ("carl", "carl")]),
            groups: names("hub:", &[("dev", "hub:developers"), ("ops", "operators")]),
        };
        let rules = Narrowing { mapping, ..Narrowing::default() };
        for (user, here) in [("ann", "alice"), ("al", "alice"), ("carl", "carl"), ("bob", "bob")] {
            assert_eq!(rules.admit(somebody(user, &[])).unwrap().user(), here);
        }
        let refused = rules.admit(somebody("alice", &[])).unwrap_err().to_string();
        let expected =
            "user \"alice\" is what the managed cluster's configuration calls another user of the management side";
        assert_eq!(refused, expected);
        for (group, here) in [("dev", "hub:developers"), ("ops", "operators"), ("operators", "hub:operators")] {
            assert_eq!(rules.admit(somebody("bob", &[group])).unwrap().groups(), [here]);
        }
        assert!(matches!(rules.admit(somebody("bob", &["developers"])), Err(Narrowed::Taken { kind: "group", .. })));
    }

    #[test]
    fn groups_that_kube_apiserver_adds_are_held_against_the_rules() {
        let denied = Narrowing { deny_groups: vec!["system:serviceaccounts:shop".to_owned()], ..Narrowing::none() };
        let allowed = Narrowing { allow_groups: vec!["dev".to_owned()], ..Narrowing::none() };
        let till = || somebody("system:serviceaccount:shop:till", &[]);
        assert!(matches!(denied.admit(till()), Err(Narrowed::Denied { kind: "group", .. })));
        assert!(matches!(allowed.admit(till()), Err(Narrowed::NotAllowed { kind: "group", .. })));
        assert!(denied.admit(somebody("system:serviceaccount:bank:till", &[])).is_ok());
        // Whoever comes with groups gets none.
        assert!(denied.admit(somebody("system:serviceaccount:shop:till", &["dev"])).is_ok());
        assert!(allowed.admit(somebody("system:serviceaccount:shop:till", &["dev"])).is_ok());
    }

    #[test]
    fn who_is_not_on_a_list_is_refused() {
        let rules = Narrowing {
            allow_users: vec!["hub:*".to_owned()],
            allow_groups: vec!["dev".to_owned(), "system:*".to_owned()],
            ..Narrowing::default()
        };
        assert!(rules.admit(somebody("hub:ann", &["dev", "system:authenticated"])).is_ok());
        assert!(rules.admit(somebody("hub:ann", &[])).is_ok());
        let refused = rules.admit(somebody("ann", &["dev"])).unwrap_err().to_string();
        assert_eq!(refused, "user \"ann\" is not on the managed cluster's list of allowed users");
        assert!(matches!(rules.admit(somebody("hub:ann", &["dev", "ops"])), Err(Narrowed::NotAllowed { .. })));
        // A denial counts before an allowance.
        assert!(matches!(rules.admit(somebody("hub:ann", &["system:masters"])), Err(Narrowed::Denied { .. })));
    }

    const WORDS: &str =
        "(system:|masters|nodes|node:|kube-|kube-system|serviceaccounts?:|bootstrappers|admin|:|a){1,3}";

    proptest! {
        #[test]
        fn no_mapping_makes_anybody_a_part_of_kubernetes(
            prefixes in ("(system:|sys|a|)", "(system:|sys|a|)"),
            users in proptest::collection::btree_map(WORDS, WORDS, 0..4),
            groups in proptest::collection::btree_map(WORDS, WORDS, 0..4),
            user in WORDS,
            member in proptest::collection::vec(WORDS, 0..4),
        ) {
            let mapping =
                Mapping { users: Names::new(prefixes.0, users), groups: Names::new(prefixes.1, groups) };
            let rules = Narrowing { mapping, ..Narrowing::default() };
            let identity = Identity::new(user).unwrap().with_groups(member).unwrap();
            let count = identity.groups().len();
            if let Ok(mapped) = rules.admit(identity) {
                prop_assert_eq!(Narrowing::default().check(&mapped), Ok(()));
                prop_assert!(!mapped.user().is_empty() && mapped.groups().len() <= count);
                for name in ["system:masters", "system:nodes", "kubeadm:cluster-admins"] {
                    prop_assert!(!mapped.is_in(name));
                }
            }
        }

        #[test]
        fn two_users_are_one_only_where_the_owner_says_so(
            prefix in "(h|ha|)",
            explicit in proptest::collection::btree_map("[ha]{1,3}", "[ha]{1,3}", 0..4),
            one in "[ha]{1,3}",
            other in "[ha]{1,3}",
        ) {
            let users = Names::new(prefix, explicit.clone());
            let rules = Narrowing { mapping: Mapping { users, ..Mapping::none() }, ..Narrowing::none() };
            let admitted = |name: &str| rules.admit(Identity::new(name).unwrap()).map(|it| it.user().to_owned());
            if let (Ok(first), Ok(second)) = (admitted(&one), admitted(&other))
                && first == second
            {
                prop_assert!(one == other || (explicit.get(&one) == Some(&first) && explicit.get(&other) == Some(&first)));
            }
        }
    }
}

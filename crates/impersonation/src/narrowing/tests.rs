//! Lists, mappings, and that nothing comes out of them that the owner denies.

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

const WORDS: &str = "(system:|masters|nodes|node:|kube-|kube-system|serviceaccounts?:|bootstrappers|admin|:|a){1,3}";

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

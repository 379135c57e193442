//! Flags and the rules that they make; that nobody is left out, and nobody let in.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn wanted(constrained: Option<&[&str]>) -> Wanted {
    Wanted {
        name: "agent".to_owned(),
        service_account: ("moorline".to_owned(), "agent".to_owned()),
        constrained: constrained.map(|verbs| Constrained { verbs: owned(verbs), resources: Vec::new() }),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn words(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned());
    words.collect::<Vec<_>>().join(",")
}

/// A line for each rule that is not the agent's own: `NAMESPACE| VERBS GROUP/RESOURCES NAMES`.
fn lines(raw: &ActingFlags, wanted: &Wanted) -> Vec<String> {
    let mut lines = Vec::new();
    for object in render(raw, wanted).unwrap().objects {
        let object = serde_json::to_value(object).unwrap();
        for rule in object["rules"].as_array().into_iter().flatten() {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let urls = words(&rule["nonResourceURLs"]);
            let resources = format!("{}/{}", words(&rule["apiGroups"]), words(&rule["resources"]));
            let what = if urls.is_empty() { resources } else { urls };
            let names = words(&rule["resourceNames"]);
            lines.push(format!("{namespace}| {} {what} {names}", words(&rule["verbs"])).trim_end().to_owned());
        }
    }
    let (of_users, of_agent): (Vec<_>, _) = lines.into_iter().partition(|line| !line.starts_with("| get "));
    assert_eq!(of_agent, ["| get /namespaces kube-system", "| get /readyz,/version"]);
    of_users
}

const REST: &str = "| impersonate authentication.k8s.io/*";

#[test]
fn rules_say_what_the_flags_say() {
    let flags = |change: fn(&mut ActingFlags)| {
        let mut raw = ActingFlags { no_default_denials: true, ..ActingFlags::default() };
        change(&mut raw);
        raw
    };
    let groups = "| impersonate /groups";
    let everybodys = "| impersonate /groups system:authenticated,system:unauthenticated";
    let users = "| impersonate /users";
    let accounts = "| impersonate /serviceaccounts";
    for (raw, expected) in [
        (flags(|_| {}), &[users, groups, REST, accounts][..]),
        (ActingFlags::default(), &[users, groups, REST, accounts]),
        (flags(|raw| raw.deny_users = owned(&["system:serviceaccount:*", "ann"])), &[users, groups, REST]),
        (flags(|raw| raw.user_prefix = Some("hub:".to_owned())), &[users, groups, REST]),
        (
            flags(|raw| raw.allow_users = owned(&["ann", "bob", "system:serviceaccount:shop:till"])),
            &["| impersonate /users ann,bob", groups, REST, "shop| impersonate /serviceaccounts till"],
        ),
        (
            flags(|raw| raw.allow_users = owned(&["system:serviceaccount:shop:*", "system:serviceaccount:bar:a"])),
            &[groups, REST, "bar| impersonate /serviceaccounts a", "shop| impersonate /serviceaccounts"],
        ),
        (flags(|raw| raw.allow_users = owned(&["system:serviceaccount:s*"])), &[groups, REST, accounts]),
        (flags(|raw| raw.deny_users = owned(&["*"])), &[groups, REST]),
        (flags(|raw| raw.deny_groups = owned(&["*"])), &[users, REST, accounts]),
        (
            flags(|raw| {
                raw.group_prefix = Some("hub:".to_owned());
                raw.map_groups = owned(&["ops=operators"]);
                raw.allow_groups = owned(&["hub:dev", "operators", "other"]);
            }),
            &[
                users,
                "| impersonate /groups hub:dev,operators,system:authenticated,system:unauthenticated",
                REST,
                accounts,
            ],
        ),
        (
            flags(|raw| raw.allow_groups = owned(&["cn=a,dc=b"])),
            &[users, "| impersonate /groups cn=a,dc=b,system:authenticated,system:unauthenticated", REST, accounts],
        ),
        (
            flags(|raw| {
                (raw.allow_users, raw.allow_groups) = (owned(&["ann"]), owned(&["x"]));
                raw.deny_groups = owned(&["x"]);
                (raw.no_uid, raw.no_extra) = (true, true);
            }),
            &["| impersonate /users ann", everybodys],
        ),
        (
            flags(|raw| {
                raw.allow_users = owned(&["ann"]);
                raw.extra_keys = owned(&["Example.com/Team", "scopes"]);
            }),
            &[
                "| impersonate /users ann",
                groups,
                "| impersonate authentication.k8s.io/uids,userextras/example.com/team,userextras/scopes",
            ],
        ),
    ] {
        assert_eq!(lines(&raw, &wanted(None)), expected, "{raw:?}");
    }
}

#[test]
fn constrained_rules_bound_what_is_done() {
    let raw = ActingFlags { allow_users: owned(&["ann"]), no_extra: true, ..ActingFlags::default() };
    let expected = [
        "| impersonate:user-info authentication.k8s.io/users ann",
        "| impersonate:user-info authentication.k8s.io/groups",
        "| impersonate:user-info authentication.k8s.io/uids",
        "| impersonate-on:user-info:list,impersonate-on:user-info:watch */*",
    ];
    assert_eq!(lines(&raw, &wanted(Some(&["list", "watch"]))), expected);
    let all = lines(&raw, &wanted(Some(&[])));
    assert!(all[3].contains("impersonate-on:user-info:deletecollection"), "{all:?}");
    assert!(all[4].ends_with(",impersonate-on:user-info:delete *"), "{all:?}");
    assert!(!all.concat().contains(" impersonate "), "the older verb would allow everything");

    let mut some = wanted(Some(&["get"]));
    let resources = ["pods", "pods/log", "deployments.apps/scale", "jobs.batch", "things.a.example"];
    some.constrained.as_mut().unwrap().resources = owned(&resources);
    let on = "| impersonate-on:user-info:get";
    let some_lines = lines(&raw, &some);
    assert_eq!(
        some_lines[3..7],
        [
            format!("{on} /pods,pods/log"),
            format!("{on} a.example/things"),
            format!("{on} apps/deployments/scale"),
            format!("{on} batch/jobs"),
        ]
    );
    some.constrained.as_mut().unwrap().resources = owned(&["", "pods/", ".apps"]);
    assert_eq!(render(&raw, &some).unwrap_err().what.len(), 3);

    let problems = |raw: &ActingFlags, verbs: &[&str]| {
        let error = render(raw, &wanted(Some(verbs))).unwrap_err();
        error.what.iter().map(|what| what.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(problems(&ActingFlags::default(), &["get", "*", "bind"]), ["--verb", "--verb", "--constrained"]);
    let raw = ActingFlags { extra_keys: owned(&["scopes", "a.b/c"]), ..ActingFlags::default() };
    assert_eq!(problems(&raw, &[]), ["--extra-key"]);
}

#[test]
fn what_rbac_cannot_say_is_told() {
    let remarks = |raw: &ActingFlags, constrained| render(raw, &wanted(constrained)).unwrap().remarks.join("\n");
    let open = remarks(&ActingFlags::default(), None);
    assert!(
        open.contains("the agent alone refuses user system:node:*") && open.contains("group system:masters"),
        "{open}"
    );
    let prefixed = ActingFlags { user_prefix: Some("hub:".to_owned()), ..ActingFlags::default() };
    assert!(remarks(&prefixed, None).contains("RBAC cannot say user hub:*"));
    let finite = ActingFlags {
        allow_users: owned(&["ann"]),
        allow_groups: owned(&["dev"]),
        no_extra: true,
        ..ActingFlags::default()
    };
    assert_eq!(remarks(&finite, None), "");
    assert_eq!(remarks(&finite, Some(&[])), "");
    let open = ActingFlags { no_extra: true, ..ActingFlags::default() };
    assert!(remarks(&open, Some(&[])).contains("service accounts of the management side are refused"));
}

/// As Kubernetes' RBAC reads rules, of the core group's resources.
fn allowed(objects: &[Value], resource: &str, name: &str) -> bool {
    let holds = |list: &Value, word: &str| list.as_array().unwrap().iter().any(|own| own == word || own == "*");
    let rules = objects.iter().filter_map(|object| object["rules"].as_array()).flatten();
    let of_core = |rule: &&Value| rule["apiGroups"] == json!([""]) && rule["verbs"] == json!(["impersonate"]);
    rules.filter(of_core).any(|rule| {
        holds(&rule["resources"], resource) && (rule["resourceNames"].is_null() || holds(&rule["resourceNames"], name))
    })
}

const RULE: &str = "[ab]{0,2}[ab*]";

proptest! {
    #[test]
    fn whoever_the_agent_lets_through_is_allowed_and_of_names_nobody_else(
        prefix in "[ab]{0,1}",
        map in proptest::collection::btree_map("[ab]{1,2}", "[ab]{1,2}", 0..3),
        allow in proptest::collection::vec(RULE, 0..3),
        deny in proptest::collection::vec(RULE, 0..2),
        user in "[ab]{1,3}",
    ) {
        let raw = ActingFlags {
            user_prefix: Some(prefix),
            map_users: map.iter().map(|(from, to)| format!("{from}={to}")).collect(),
            allow_users: allow,
            deny_users: deny,
            ..ActingFlags::default()
        };
        let narrowing = raw.narrowing().unwrap();
        let objects = serde_json::to_value(render(&raw, &wanted(None)).unwrap().objects).unwrap();
        let objects = objects.as_array().unwrap().clone();
        if let Ok(here) = narrowing.admit(moorline_model::Identity::new(user.clone()).unwrap()) {
            prop_assert!(allowed(&objects, "users", here.user()));
        }
        let finite = narrowing.possible_users().iter().all(|name| matches!(name, moorline_impersonation::Name::Exactly(_)));
        if finite && allowed(&objects, "users", &user) {
            // Somebody of the management side is called so here.
            let named = moorline_impersonation::Name::Exactly(user.clone());
            prop_assert!(narrowing.possible_users().contains(&named));
        }
    }
}

//! Whole policies: what they rule, and everything that can be wrong with one.

use super::*;

fn policy(rules: &str) -> Policy {
    Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}")).unwrap()
}

/// `METHOD path?query` of a member of `dev` called `ann`, to a cluster.
fn ruling(policy: &Policy, request: &str, cluster: &str) -> Ruling {
    let (method, uri) = request.split_once(' ').unwrap();
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let user = Identity::new("ann").unwrap().with_groups(["dev"]).unwrap();
    let request = RequestAttributes::from_http(method, path, query);
    policy.rule(&Question { user: Some(&user), request: &request, cluster })
}

fn noted(rule: &str, request: &str) -> bool {
    ruling(&policy(rule), request, "east").is_noted()
}

#[test]
fn rules_match_as_in_kubernetes() {
    for (rule, request, expected) in [
        ("- {level: Metadata}", "GET /healthz", true),
        ("- {level: None}", "GET /healthz", false),
        ("- {level: Metadata, users: [ann]}", "GET /api", true),
        ("- {level: Metadata, users: [bob]}", "GET /api", false),
        ("- {level: Metadata, userGroups: [ops, dev]}", "GET /api", true),
        ("- {level: Metadata, userGroups: [ops]}", "GET /api", false),
        ("- {level: Metadata, verbs: [list, watch]}", "GET /api/v1/pods", true),
        ("- {level: Metadata, verbs: [watch]}", "GET /api/v1/pods", false),
        ("- {level: Metadata, verbs: [watch]}", "GET /api/v1/pods?watch=1", true),
        ("- {level: Metadata, namespaces: [shop]}", "GET /api/v1/namespaces/shop/pods", true),
        ("- {level: Metadata, namespaces: [shop]}", "GET /api/v1/namespaces/till/pods", false),
        ("- {level: Metadata, namespaces: ['']}", "GET /api/v1/nodes", true),
        ("- {level: Metadata, namespaces: ['']}", "GET /healthz", false),
        ("- {level: Metadata, nonResourceURLs: [/healthz*, /version]}", "GET /healthz/etcd", true),
        ("- {level: Metadata, nonResourceURLs: [/version]}", "GET /version/", false),
        ("- {level: Metadata, nonResourceURLs: ['*']}", "GET /version", true),
        ("- {level: Metadata, nonResourceURLs: ['*']}", "GET /api/v1/pods", false),
        ("- {level: Metadata, resources: [{group: ''}]}", "GET /api/v1/pods", true),
        ("- {level: Metadata, resources: [{group: ''}]}", "GET /apis/apps/v1/deployments", false),
        ("- {level: Metadata, resources: [{resources: [pods]}]}", "GET /api/v1/namespaces/a/pods/b", true),
        ("- {level: Metadata, resources: [{resources: [pods]}]}", "GET /api/v1/namespaces/a/pods/b/log", false),
        ("- {level: Metadata, resources: [{resources: [pods/log]}]}", "GET /api/v1/namespaces/a/pods/b/log", true),
        ("- {level: Metadata, resources: [{resources: ['pods/*']}]}", "GET /api/v1/namespaces/a/pods/b/log", true),
        ("- {level: Metadata, resources: [{resources: ['pods/*']}]}", "GET /api/v1/namespaces/a/pods/b", true),
        ("- {level: Metadata, resources: [{resources: ['*/scale']}]}", "GET /api/v1/namespaces/a/x/b/scale", true),
        ("- {level: Metadata, resources: [{resources: ['*/scale']}]}", "GET /api/v1/namespaces/a/x/b", false),
        ("- {level: Metadata, resources: [{resources: ['*']}]}", "GET /api/v1/namespaces/a/x/b/scale", true),
        (
            "- {level: Metadata, resources: [{resources: [configmaps], resourceNames: [one]}]}",
            "GET /api/v1/namespaces/a/configmaps/one",
            true,
        ),
        (
            "- {level: Metadata, resources: [{resources: [configmaps], resourceNames: [one]}]}",
            "GET /api/v1/namespaces/a/configmaps/two",
            false,
        ),
        ("- {level: None, verbs: [get]}\n- {level: Metadata}", "GET /api", false),
        ("- {level: None, verbs: [put]}\n- {level: Metadata}", "GET /api", true),
        ("- {level: Metadata, clusters: [east, west]}", "GET /api", true),
        ("- {level: Metadata, clusters: [west]}", "GET /api", false),
    ] {
        assert_eq!(noted(rule, request), expected, "{rule}: {request}");
    }
}

#[test]
fn what_is_not_about_a_cluster_can_be_named_and_nobody_is_in_no_group() {
    let probes = policy("- {level: None, clusters: [''], nonResourceURLs: [/readyz]}\n- {level: Metadata}");
    assert!(!ruling(&probes, "GET /readyz", "").is_noted());
    assert!(ruling(&probes, "GET /readyz", "east").is_noted());
    let request = RequestAttributes::from_http("GET", "/api", None);
    let nobody = Question { user: None, request: &request, cluster: "" };
    assert!(!policy("- {level: Metadata, users: [ann]}").rule(&nobody).is_noted());
    assert!(!policy("- {level: Metadata, userGroups: [dev]}").rule(&nobody).is_noted());
    assert!(policy("- {level: Metadata}").rule(&nobody).is_noted());
}

#[test]
fn stages_are_omitted_by_rule_and_by_policy() {
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, Panic]\nrules:\n\
                - {level: Request, verbs: [watch], omitStages: [ResponseStarted]}\n- {level: Metadata}\n";
    let policy = Policy::parse(text).unwrap();
    let watch = ruling(&policy, "GET /api/v1/pods?watch=1", "east");
    let list = ruling(&policy, "GET /api/v1/pods", "east");
    let noted = |ruling: Ruling| {
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete].map(|stage| ruling.is_noted_at(stage))
    };
    assert_eq!((noted(watch), noted(list)), ([false, false, true], [false, true, true]));
    assert!(policy.asks_for_bodies() && !policy.has_early());
}

#[test]
fn the_default_writes_all_down_and_what_runs_long_twice() {
    let policy = Policy::parse(Policy::DEFAULT).unwrap();
    assert!(!policy.has_early() && !policy.asks_for_bodies());
    for (request, at_receipt) in [
        ("GET /api/v1/pods?watch=true", true),
        ("GET /api/v1/namespaces/a/pods/b/log?follow=true", true),
        ("POST /api/v1/namespaces/a/pods/b/exec?command=sh", true),
        ("POST /api/v1/namespaces/a/pods/b/portforward", true),
        ("GET /api/v1/namespaces/a/services/b/proxy/x", true),
        ("GET /api/v1/proxy/namespaces/a/services/b/x", true),
        ("GET /api/v1/pods", false),
        ("DELETE /api/v1/namespaces/a/pods/b", false),
        ("GET /version", false),
    ] {
        let ruling = ruling(&policy, request, "east");
        assert!(ruling.is_noted_at(Stage::ResponseComplete), "{request}");
        assert_eq!(ruling.is_noted_at(Stage::RequestReceived), at_receipt, "{request}");
    }
    for (rules, early) in [
        ("- {level: Metadata}", true),
        ("- {level: None}", false),
        ("- {level: Metadata, omitStages: [RequestReceived]}", false),
        ("- {level: Metadata, resources: [{resources: [pods/exec, pods]}]}", true),
        ("- {level: Metadata, resources: [{group: ''}]}", true),
        ("- {level: Metadata, verbs: [watch, get]}", true),
    ] {
        assert_eq!(self::policy(rules).has_early(), early, "{rules}");
    }
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let text = r#"
apiVersion: audit.k8s.io/v2
kind: Policies
omitStage: [x]
rules:
- level: metadata
  verb: [get]
- level: None
  omitStages: [Started]
  nonResourceURLs: [healthz, "/a*z"]
  resources:
  - {group: apps/v1, resources: [deployments]}
  - {resourceNames: [a]}
- verbs: [get]
"#;
    let problems = Policy::parse(text).unwrap_err().to_string();
    for part in [
        "policy.apiVersion: \"audit.k8s.io/v2\"",
        "policy.kind: \"Policies\"",
        "policy.omitStage: unknown field",
        "policy.rules[0].level: \"metadata\"; write \"None\" or \"Metadata\" or",
        "policy.rules[0].verb: unknown field",
        "policy.rules[1].omitStages: \"Started\"",
        "policy.rules[1].nonResourceURLs: \"healthz\"",
        "policy.rules[1].nonResourceURLs: \"/a*z\"",
        "policy.rules[1].nonResourceURLs: beside resources or namespaces",
        "policy.rules[1].resources[0].group: \"apps/v1\"",
        "policy.rules[1].resources[1].resourceNames: without resources",
        "policy.rules[2].level: missing",
    ] {
        assert!(problems.contains(part), "{part} in\n{problems}");
    }
    assert!(Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n").is_err());
    assert!(Policy::parse("rules: [").is_err());
    assert!(Policy::parse("").is_err());
}

#[test]
fn the_documented_default_is_the_one_in_force() {
    let documented = include_str!("../../../../docs/audit.md");
    let (_comment, rules) = Policy::DEFAULT.split_once('\n').unwrap();
    assert!(documented.contains(rules), "docs/audit.md shows another policy than policy/default.yaml");
}

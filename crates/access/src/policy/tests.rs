//! Whole policy files: what they allow, and everything that can be wrong with one.

use proptest::prelude::*;

use super::*;
use crate::Action;

const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: reach-east
  labels: {team: shop}
  creationTimestamp: null
rules:
- apiGroups: [moorline.io]
  resources: [managedclusters]
  resourceNames: [east]
  verbs: [get]
---
# nothing here
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: admin}
rules:
- {apiGroups: ['*'], resources: ['*'], verbs: ['*']}
- {nonResourceURLs: ['*'], verbs: ['*']}
---
apiVersion: v1
kind: List
items:
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: developers}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach-east}
  subjects:
  - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: devs}
  - {kind: ServiceAccount, namespace: shop, name: till}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: admins}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
  subjects:
  - {kind: User, name: root}
"#;

fn reach(policy: &Policy, who: &Identity, cluster: &str) -> Decision {
    policy.decide(who, &Action::Reach(&cluster.parse().unwrap()).attributes("moorline.io"))
}

#[test]
fn allows_what_it_says() {
    let policy = Policy::parse(POLICY).unwrap();
    let ann = Identity::new("ann").unwrap().with_groups(["devs"]).unwrap();
    let by = |rule: &str| Decision::Allow { rule: rule.to_owned() };
    assert_eq!(reach(&policy, &ann, "east"), by("ClusterRole reach-east via ClusterRoleBinding developers"));
    assert_eq!(reach(&policy, &ann, "west"), Decision::NoOpinion);
    let till = Identity::new("system:serviceaccount:shop:till").unwrap();
    assert_eq!(reach(&policy, &till, "east"), by("ClusterRole reach-east via ClusterRoleBinding developers"));
    assert_eq!(reach(&policy, &Identity::new("ann").unwrap(), "east"), Decision::NoOpinion);
    let root = Identity::new("root").unwrap();
    assert_eq!(reach(&policy, &root, "west"), by("ClusterRole admin via ClusterRoleBinding admins"));
    let path = Attributes { verb: "get", non_resource_path: Some("/metrics"), ..Attributes::default() };
    assert_eq!(policy.decide(&root, &path), by("ClusterRole admin via ClusterRoleBinding admins"));
    assert_eq!(policy.decide(&ann, &path), Decision::NoOpinion);
}

#[test]
fn an_empty_policy_allows_nothing() {
    for empty in ["", "# nothing\n", "---\n---\n"] {
        let policy = Policy::parse(empty).unwrap();
        assert_eq!(reach(&policy, &Identity::new("root").unwrap(), "east"), Decision::NoOpinion);
    }
}

#[test]
fn reports_everything_at_once_with_its_place() {
    let problems = Policy::parse(
        r#"apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: one}
rule: []
rules:
- apiGroups: [moorline.io]
  resources: [managedclusters]
  resourceName: [east]
- nonResourceURLs: [/a]
  resources: [pods]
  verbs: get
- verbs: [true, get]
---
apiVersion: rbac.authorization.k8s.io/v1beta1
kind: ClusterRoleBinding
metadata: {name: two}
roleRef: {apiGroup: rbac, kind: Role, name: nobody}
subjects:
- {kind: Person, name: ann}
- {kind: ServiceAccount, name: till}
- {kind: User, name: 7, namespace: x}
---
kind: Role
---
- just
- a list
"#,
    )
    .unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "document 1 (line 1), rule: unknown field; use one of apiVersion, kind, metadata, rules, aggregationRule",
        "document 1 (line 1), rules[0].resourceName: unknown field; use one of verbs, apiGroups, resources, resourceNames, nonResourceURLs",
        "document 1 (line 1), rules[0].verbs: no verb; list at least one, such as get",
        "document 1 (line 1), rules[1].verbs: \"get\", not a list; write [one, two] or lines beginning with '-'",
        "document 1 (line 1), rules[1].verbs: no verb; list at least one, such as get",
        "document 1 (line 1), rules[1].resources: beside nonResourceURLs; write one rule for resources and another for URLs",
        "document 1 (line 1), rules[2].verbs[0]: true, not a text; put it into quotes",
        "document 1 (line 1), rules[2].apiGroups: no API group; list at least one; \"\" is Kubernetes' core",
        "document 1 (line 1), rules[2].resources: no resource; list at least one, such as managedclusters",
        "document 2 (line 14), apiVersion: \"rbac.authorization.k8s.io/v1beta1\"; write \"rbac.authorization.k8s.io/v1\"",
        "document 2 (line 14), roleRef.apiGroup: \"rbac\"; write \"rbac.authorization.k8s.io\"",
        "document 2 (line 14), roleRef.kind: \"Role\"; write \"ClusterRole\"",
        "document 2 (line 14), subjects[0].kind: \"Person\"; write \"User\" or \"Group\" or \"ServiceAccount\"",
        "document 2 (line 14), subjects[1].namespace: missing; add it",
        "document 2 (line 14), subjects[2].name: 7, not a text; put it into quotes",
        "document 2 (line 14), subjects[2].namespace: a User has no namespace; leave it out",
        "document 3 (line 23), kind: \"Role\"; write \"ClusterRole\" or \"ClusterRoleBinding\" or \"List\"",
        "document 3 (line 23), apiVersion: missing; add it",
        "document 4 (line 25): a list, not an object; write `field: value` lines",
        "document 2 (line 14), roleRef.name: no ClusterRole \"nobody\" in this file; add it or correct the name",
    ];
    assert_eq!(lines, expected, "{problems}");
}

#[test]
fn names_must_be_there_once() {
    let twice =
        POLICY.replace("name: admin}\nrules", "name: reach-east}\nrules").replace("name: admins", "name: developers");
    let problems = Policy::parse(&twice).unwrap_err().to_string();
    assert!(problems.contains("metadata.name: a second ClusterRole \"reach-east\""), "{problems}");
    assert!(problems.contains("metadata.name: a second ClusterRoleBinding \"developers\""), "{problems}");
    assert!(problems.contains("no ClusterRole \"admin\" in this file"), "{problems}");
    let nameless = Policy::parse("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: ''}}");
    assert!(nameless.unwrap_err().to_string().contains("metadata.name: empty"));
}

#[test]
fn broken_yaml_is_one_problem_with_a_place() {
    for broken in ["kind: [", "kind: a\nkind: b", "a: &a [*a, *a]"] {
        let problems = Policy::parse(broken).unwrap_err();
        assert_eq!(problems.iter().count(), 1, "{problems}");
        assert!(problems.to_string().contains("line"), "{problems}");
    }
}

#[test]
fn aggregation_is_refused_rather_than_ignored() {
    let role =
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a}, aggregationRule: {}}";
    assert!(Policy::parse(role).unwrap_err().to_string().contains("aggregationRule: not supported"));
}

proptest! {
    #[test]
    fn never_panics(yaml in "(apiVersion|kind|rules|metadata|subjects|[-:{}\\[\\] \n'\"&*!a-c]){0,60}") {
        drop(Policy::parse(&yaml));
    }
}

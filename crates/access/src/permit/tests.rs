//! Who gets a permit, as whom, and what the others are told.

use std::{
    future::{Future, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{AuthorizerUnavailable, Policy};

const POLICY: &str = r#"
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reach}, rules: [
  {apiGroups: [moorline.io], resources: [managedclusters], resourceNames: [east], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: act}, rules: [
  {apiGroups: [""], resources: [users, serviceaccounts], resourceNames: [ann, till], verbs: [impersonate]},
  {apiGroups: [""], resources: [groups], resourceNames: [devs], verbs: [impersonate]},
  {apiGroups: [authentication.k8s.io], resources: [uids, userextras/scopes], resourceNames: [one], verbs: [impersonate]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: list}, rules: [
  {apiGroups: [moorline.io], resources: [managedclusters], verbs: [list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: a},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach},
  subjects: [{kind: User, name: ann}, {kind: Group, name: devs}, {kind: ServiceAccount, namespace: shop, name: till}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: act}, subjects: [{kind: User, name: boss}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: c},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: list}, subjects: [{kind: Group, name: "system:authenticated"}]}
"#;

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a policy never waits"),
    }
}

fn user(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn reached(who: &str, whom: Option<Identity>, cluster: &str) -> Result<Permit, Denied> {
    let policy = Policy::parse(POLICY).unwrap();
    now(reach(&policy, "moorline.io", user(who), whom, cluster.parse().unwrap()))
}

#[track_caller]
fn refused(who: &str, whom: Identity) -> String {
    reached(who, Some(whom), "east").unwrap_err().public_message()
}

#[test]
fn whom_the_policy_allows_gets_a_permit() {
    let permit = reached("ann", None, "east").unwrap();
    assert_eq!((permit.identity(), permit.authenticated()), (&user("ann"), &user("ann")));
    assert_eq!(permit.cluster().as_str(), "east");
    assert_eq!(permit.rule(), "ClusterRole reach via ClusterRoleBinding a");
}

#[test]
fn the_others_are_told_as_kube_apiserver_would() {
    let denied = reached("ann", None, "west").unwrap_err();
    assert_eq!(
        denied.public_message(),
        r#"managedclusters.moorline.io "west" is forbidden: User "ann" cannot get resource "managedclusters" in API group "moorline.io" at the cluster scope"#
    );
    let status: serde_json::Value = serde_json::from_slice(&denied.status().to_json()).unwrap();
    assert_eq!((&status["code"], &status["reason"]), (&403.into(), &"Forbidden".into()));
    assert_eq!(
        status["details"],
        serde_json::json!({"name": "west", "group": "moorline.io", "kind": "managedclusters"})
    );
    assert!(reached("bob", None, "east").is_err());
}

#[test]
fn whoever_may_impersonate_goes_on_as_the_other() {
    let whom = user("ann").with_groups(["devs"]).unwrap().with_uid("one").unwrap();
    let permit = reached("boss", Some(whom.with_extra("scopes", ["one"]).unwrap()), "east").unwrap();
    assert_eq!(permit.authenticated(), &user("boss"));
    assert_eq!((permit.identity().user(), permit.identity().uid()), ("ann", Some("one")));
    assert_eq!(permit.identity().groups(), ["devs", "system:authenticated"]);
    let till = reached("boss", Some(user("system:serviceaccount:shop:till")), "east").unwrap();
    assert_eq!(till.identity().groups().len(), 3);
}

#[test]
fn each_part_must_be_allowed() {
    let ann = || user("ann");
    for (whom, message) in [
        (
            user("root"),
            r#"users "root" is forbidden: User "boss" cannot impersonate resource "users" in API group "" at the cluster scope"#,
        ),
        (
            ann().with_groups(["devs", "system:masters"]).unwrap(),
            r#"groups "system:masters" is forbidden: User "boss" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
        ),
        (
            ann().with_uid("two").unwrap(),
            r#"uids.authentication.k8s.io "two" is forbidden: User "boss" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
        (
            ann().with_extra("scopes", ["one", "two"]).unwrap(),
            r#"userextras.authentication.k8s.io "two" is forbidden: User "boss" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
        (
            ann().with_extra("other", ["one"]).unwrap(),
            r#"userextras.authentication.k8s.io "one" is forbidden: User "boss" cannot impersonate resource "userextras/other" in API group "authentication.k8s.io" at the cluster scope"#,
        ),
        (
            user("system:serviceaccount:shop:safe"),
            r#"serviceaccounts "safe" is forbidden: User "boss" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "shop""#,
        ),
    ] {
        assert_eq!(refused("boss", whom), message);
    }
    assert!(refused("ann", user("ann")).contains("cannot impersonate"));
    let many = user("ann").with_groups((0..1024).map(|n| n.to_string())).unwrap();
    assert!(refused("boss", many).contains("more than 1024"));
}

#[test]
fn impersonating_lends_nothing_of_ones_own() {
    let denied = reached("boss", Some(user("ann")), "west").unwrap_err();
    assert!(denied.public_message().contains(r#"User "ann" cannot get"#), "{denied}");
}

#[test]
fn administration_is_asked_by_verb() {
    let policy = Policy::parse(POLICY).unwrap();
    let ann = || user("ann").with_groups(["system:authenticated"]).unwrap();
    let east = "east".parse().unwrap();
    let list = now(administer(&policy, "moorline.io", ann(), None, "list", None)).unwrap();
    assert_eq!(list.rule(), "ClusterRole list via ClusterRoleBinding c");
    let delete = now(administer(&policy, "moorline.io", ann(), None, "delete", Some(&east))).unwrap_err();
    assert!(delete.public_message().contains(r#"User "ann" cannot delete resource "managedclusters""#), "{delete}");
    let create = now(administer(&policy, "moorline.io", ann(), None, "create", None)).unwrap_err();
    assert!(create.public_message().starts_with("managedclusters.moorline.io is forbidden: "), "{create}");
    assert!(now(administer(&policy, "other.io", ann(), None, "list", None)).is_err());
}

#[test]
fn no_answer_is_no_permit() {
    struct Silent;
    impl Authorizer for Silent {
        fn decide<'a>(
            &'a self,
            _: &'a Identity,
            _: &'a Attributes<'a>,
        ) -> impl Future<Output = Result<Decision, AuthorizerUnavailable>> + Send + 'a {
            ready(Err(AuthorizerUnavailable("10.0.0.1 refused".to_owned())))
        }
    }
    let denied = now(reach(&Silent, "moorline.io", user("ann"), None, "east".parse().unwrap())).unwrap_err();
    assert_eq!(denied.status().code, 503);
    assert!(!denied.public_message().contains("10.0.0.1"));
}

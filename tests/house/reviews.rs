//! What the management API says about who may do what, and by which rule; and users whom it revokes.

use http::{HeaderName, Method};
use http_body_util::BodyExt as _;
use moorline_process::write_private;
use moorline_testkit::client::{LIMIT, full};
use moorline_testkit::eventually;
use serde_json::{Value, json};

use super::people::{ADMIN, ALICE, BOB, CAROL, House};

impl House {
    async fn review(&self, token: &str, acting: &[(&str, &str)], question: &Value) -> (u16, Value) {
        let client = self.user(token);
        let mut request = client.request_with(Method::POST, "/v1/accessreviews", full(question.to_string()));
        for (name, value) in acting {
            request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let answer = client.ask(request).await.unwrap();
        (answer.code.as_u16(), serde_json::from_str(&answer.body).unwrap())
    }
}

#[tokio::test]
async fn a_review_names_the_rule_and_takes_the_right_to_act_as_somebody() {
    let house = House::new().await;
    let reach = |name: &str| json!({ "verb": "get", "resource": "managedclusters", "name": name });
    let by = |name: &str| json!(format!("ClusterRole {name} via ClusterRoleBinding {name}"));
    for (token, acting, question, expected) in [
        (ALICE, &[][..], reach("east"), Some("east")),
        (ALICE, &[], reach("west"), None),
        (BOB, &[], reach("east"), None),
        (ADMIN, &[], json!({ "verb": "create", "resource": "managedclusters" }), Some("all")),
        (ADMIN, &[], json!({ "verb": "create", "resource": "managedclusters", "group": "other.io" }), None),
        (CAROL, &[("impersonate-user", "dave")], reach("east"), Some("east")),
        (CAROL, &[("impersonate-user", "bob")], reach("east"), None),
        (CAROL, &[("impersonate-user", "dave"), ("impersonate-uid", "7")], reach("east"), Some("east")),
        (CAROL, &[], json!({ "verb": "impersonate", "resource": "uids", "name": "7" }), Some("act")),
        // Users to manage are other ones than those to act as.
        (CAROL, &[], json!({ "verb": "impersonate", "resource": "users", "name": "dave" }), Some("act")),
        (ADMIN, &[], json!({ "verb": "create", "resource": "users" }), None),
        (
            CAROL,
            &[],
            json!({ "verb": "impersonate", "resource": "userextras", "subresource": "scopes", "name": "view" }),
            Some("act"),
        ),
        (CAROL, &[], json!({ "verb": "get", "path": "/metrics" }), None),
    ] {
        let (code, answer) = house.review(token, acting, &question).await;
        assert_eq!((code, &answer["allowed"]), (200, &json!(expected.is_some())), "{question}: {answer}");
        assert_eq!(answer["rule"], expected.map_or(Value::Null, by), "{question}: {answer}");
    }
    let (code, answer) = house.review(CAROL, &[("impersonate-user", "dave")], &reach("east")).await;
    assert_eq!((code, &answer["user"]), (200, &json!("dave")));
    for (token, acting) in [
        (ALICE, &[("impersonate-user", "admin")][..]),
        (CAROL, &[("impersonate-user", "admin")]),
        (CAROL, &[("impersonate-user", "dave"), ("impersonate-uid", "8")]),
    ] {
        let (code, answer) = house.review(token, acting, &reach("east")).await;
        assert_eq!((code, &answer["kind"]), (403, &json!("Status")), "{answer}");
    }
    for wrong in [json!({}), json!({ "verb": "get" }), json!({ "verb": "get", "resource": "a", "path": "/b" })] {
        assert_eq!(house.review(ALICE, &[], &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(house.review("nobody's-token", &[], &reach("east")).await.0, 401);
}

#[tokio::test]
async fn a_revoked_users_running_watch_ends() {
    let house = House::with("", |raw| {
        // Only the server itself may make it known: the file is not looked at.
        raw.reload_interval = Some("1h".to_owned());
        raw.recheck_interval = Some("100ms".to_owned());
        raw.authorization_policy_file = Some(raw.state_dir.clone().unwrap().join("everything.yaml"));
        write_private(raw.authorization_policy_file.as_ref().unwrap(), EVERYTHING.as_bytes()).unwrap();
    })
    .await;
    let admin = house.user(ADMIN);
    let body = full(r#"{"name":"ann","groups":["moorline:admins"]}"#);
    let made = admin.ask(admin.request_with(Method::POST, "/v1/users", body)).await.unwrap();
    let made: Value = serde_json::from_str(&made.body).unwrap();
    let token = made["token"].as_str().unwrap();
    house.logs.forbid(token);
    let ann = house.user(token);
    let watch = ann.send(ann.request(Method::GET, "/clusters/east/ticks?watch=true")).await.unwrap();
    assert_eq!(watch.status(), 200);
    let mut events = watch.into_body();
    assert!(events.frame().await.unwrap().is_ok());
    let revoked = admin.ask(admin.request(Method::DELETE, "/v1/users/ann")).await.unwrap();
    assert_eq!(revoked.code, 200, "{}", revoked.body);
    let rest = tokio::time::timeout(LIMIT, async { while let Some(Ok(_event)) = events.frame().await {} }).await;
    assert!(rest.is_ok(), "the watch goes on");
    assert_eq!(ann.get("/clusters/east/version").await.unwrap().code, 401);
    eventually(LIMIT, async || (house.upstream.running() == 0).then_some(())).await.unwrap();
}

const EVERYTHING: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: all}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "moorline:admins"}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}
"#;

#[tokio::test]
async fn whoever_shows_no_credential_learns_no_rule() {
    let house = House::with("", |raw| raw.anonymous_auth = true).await;
    let nobody = house.user(ALICE).without_token();
    let question = json!({ "verb": "get", "resource": "managedclusters", "name": "east" }).to_string();
    let answer = nobody.ask(nobody.request_with(Method::POST, "/v1/accessreviews", full(question))).await.unwrap();
    assert_eq!(answer.code.as_u16(), 403, "{}", answer.body);
    assert_eq!(nobody.get("/clusters/east/api").await.unwrap().code.as_u16(), 403);
}

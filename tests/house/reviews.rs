//! What the management API says about who may do what, and by which rule.

use http::{HeaderName, Method};
use moorline_testkit::client::full;
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
        (CAROL, &[], json!({ "verb": "impersonate", "resource": "uids", "name": "7" }), Some("act")),
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
    for (token, acting) in [(ALICE, ("impersonate-user", "admin")), (CAROL, ("impersonate-user", "admin"))] {
        let (code, answer) = house.review(token, &[acting], &reach("east")).await;
        assert_eq!((code, &answer["kind"]), (403, &json!("Status")), "{answer}");
    }
    for wrong in [json!({}), json!({ "verb": "get" }), json!({ "verb": "get", "resource": "a", "path": "/b" })] {
        assert_eq!(house.review(ALICE, &[], &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(house.review("nobody's-token", &[], &reach("east")).await.0, 401);
}

//! Users with static tokens, as `moorline user` manages them.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use http::{Method, StatusCode};
use moorline_api::{CreatedUser, RevokedUser, UserList, paths};
use moorline_model::{Reason, Status};
use moorline_testkit::logs::Logs;

use crate::house::House;

/// `ann` may make users and act as `bob` and members of `dev`; she may revoke `bob` only.
const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: makers}
rules:
- {apiGroups: [moorline.io], resources: [users], verbs: [create]}
- {apiGroups: [moorline.io], resources: [users], resourceNames: [bob], verbs: [delete]}
- {apiGroups: [""], resources: [users], resourceNames: [bob], verbs: [impersonate]}
- {apiGroups: [""], resources: [groups], resourceNames: [dev], verbs: [impersonate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: makers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ann}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: makers}
"#;

#[tokio::test]
async fn users_are_made_listed_and_revoked() {
    let logs = Logs::capture();
    let house = House::start().await;
    let admin = house.user();
    let before = fs::read_to_string(house.state.tokens()).unwrap();
    let body = r#"{"name":"system:x/ü ann","groups":["dev","a b"],"uid":"7"}"#;
    let (code, answer) = admin.ask(Method::POST, paths::USERS, body).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let created: CreatedUser = serde_json::from_str(&answer).unwrap();
    logs.forbid(created.token.expose());
    assert_eq!(created.token.expose().len(), 64);
    assert_eq!(created.user.spec.groups, ["dev", "a b"]);

    let table = fs::read_to_string(house.state.tokens()).unwrap();
    assert!(table.starts_with(&before) && !table.contains(created.token.expose()), "{table}");
    assert_eq!(fs::metadata(house.state.tokens()).unwrap().permissions().mode() & 0o777, 0o600);
    let ann = house.user().with_token(created.token.expose());
    assert_eq!(ann.ask(Method::GET, paths::CLUSTERS, "").await.0, StatusCode::FORBIDDEN);

    let (code, answer) = admin.ask(Method::POST, paths::USERS, body).await;
    let status: Status = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, status.reason), (StatusCode::CONFLICT, Reason::AlreadyExists));
    assert_eq!(status.message, "users.moorline.io \"system:x/ü ann\" already exists");

    let (code, answer) = admin.ask(Method::GET, paths::USERS, "").await;
    assert_eq!(code, StatusCode::OK);
    let list: UserList = serde_json::from_str(&answer).unwrap();
    let names: Vec<_> = list.items.iter().map(|user| user.metadata.name.as_str()).collect();
    assert_eq!(names, ["admin", "system:x/ü ann"]);
    assert_eq!(list.items[1], created.user);

    let path = paths::user("system:x/ü ann");
    let id = &created.user.spec.token_id;
    assert_eq!(admin.ask(Method::DELETE, &format!("{path}?tokenId=000000000000"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(admin.ask(Method::DELETE, &format!("{path}?token=x"), "").await.0, StatusCode::BAD_REQUEST);
    let (code, answer) = admin.ask(Method::DELETE, &format!("{path}?tokenId={id}"), "").await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(serde_json::from_str::<RevokedUser>(&answer).unwrap().token_ids, std::slice::from_ref(id));
    assert_eq!(ann.ask(Method::GET, paths::CLUSTERS, "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(fs::read_to_string(house.state.tokens()).unwrap(), before);
    assert_eq!(admin.ask(Method::DELETE, &path, "").await.0, StatusCode::NOT_FOUND);
    drop(house.ended().await);
}

#[tokio::test]
async fn nobody_gives_others_more_than_they_could_take() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| {
        let dir = raw.state_dir.clone().unwrap();
        let (tokens, policy) = (dir.join("t.csv"), dir.join("p.yaml"));
        fs::write(&tokens, "tok,ann,1\n").unwrap();
        fs::write(&policy, POLICY).unwrap();
        raw.token_auth_file = Some(tokens);
        raw.authorization_policy_file = Some(policy);
    })
    .await;
    let ann = house.user().with_token("tok");
    for (body, code, said) in [
        (r#"{"name":"bob","groups":["dev"]}"#, 201, ""),
        (r#"{"name":"bob","groups":["moorline:admins"]}"#, 403, "cannot impersonate resource \\\"groups\\\""),
        (r#"{"name":"eve"}"#, 403, "cannot impersonate resource \\\"users\\\""),
        (r#"{"name":"bob","uid":"1"}"#, 403, "cannot impersonate resource \\\"uids\\\""),
        (r#"{"name":""}"#, 422, "metadata.name"),
        (r#"{"name":"bob","groups":["a,b"]}"#, 403, "a,b"),
        (r#"{"user":"bob"}"#, 400, "unknown field `user`"),
    ] {
        let (got, answer) = ann.ask(Method::POST, paths::USERS, body).await;
        assert_eq!(got.as_u16(), code, "{body}: {answer}");
        assert!(answer.contains(said), "{body}: {answer}");
    }
    assert_eq!(ann.ask(Method::GET, paths::USERS, "").await.0, StatusCode::FORBIDDEN);
    // Whether somebody is there is not for her to know.
    for name in ["ann", "nobody"] {
        assert_eq!(ann.ask(Method::DELETE, &paths::user(name), "").await.0, StatusCode::FORBIDDEN);
    }
    assert_eq!(ann.ask(Method::DELETE, &paths::user("bob"), "").await.0, StatusCode::OK);
    drop(house.ended().await);
}

#[tokio::test]
async fn users_made_at_once_are_all_there_and_a_broken_table_is_left_alone() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| raw.reload_interval = Some("10ms".to_owned())).await;
    let admin = house.user();
    let making = (0..8).map(|n| {
        let admin = admin.clone();
        tokio::spawn(async move {
            let (code, body) = admin.ask(Method::POST, paths::USERS, &format!("{{\"name\":\"u{n}\"}}")).await;
            assert_eq!(code, StatusCode::CREATED, "{body}");
            serde_json::from_str::<CreatedUser>(&body).unwrap()
        })
    });
    let making: Vec<_> = making.collect();
    for made in making {
        let user = admin.clone().with_token(made.await.unwrap().token.expose());
        assert_eq!(user.ask(Method::GET, paths::VERSION, "").await.0, StatusCode::OK);
    }
    let (_, list) = admin.ask(Method::GET, paths::USERS, "").await;
    assert_eq!(serde_json::from_str::<UserList>(&list).unwrap().items.len(), 9);
    let broken = fs::read_to_string(house.state.tokens()).unwrap() + "oops";
    let mut by_hand = OpenOptions::new().append(true).open(house.state.tokens()).unwrap();
    by_hand.write_all(b"oops").unwrap();
    let (code, answer) = admin.ask(Method::POST, paths::USERS, r#"{"name":"late"}"#).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.contains("correct it first: line ") && !answer.contains("oops"), "{answer}");
    assert_eq!(fs::read_to_string(house.state.tokens()).unwrap(), broken);
    drop(house.ended().await);
}

#[tokio::test]
async fn the_table_never_grows_too_large_to_be_read_again() {
    const MAX_FILE: usize = 16 * 1024 * 1024;
    let _logs = Logs::capture();
    let house = House::start().await;
    let admin = house.user();
    let (code, body) = admin.ask(Method::POST, paths::USERS, r#"{"name":"bob"}"#).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    let mut table = fs::read_to_string(house.state.tokens()).unwrap();
    table += &format!("#{}\n", "x".repeat(MAX_FILE - table.len() - 40));
    fs::write(house.state.tokens(), &table).unwrap();
    let (code, answer) = admin.ask(Method::POST, paths::USERS, r#"{"name":"eve"}"#).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
    assert!(answer.contains("would be larger than"), "{answer}");
    assert_eq!(fs::read_to_string(house.state.tokens()).unwrap().len(), table.len());
    // Who has a token can still be revoked.
    assert_eq!(admin.ask(Method::DELETE, &paths::user("bob"), "").await.0, StatusCode::OK);
    drop(house.ended().await);
}

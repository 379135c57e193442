//! The management API, as `moorline cluster` uses it.

use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, ManagedClusterList, ServerStatus, Version, paths};
use moorline_model::{ClusterRecord, ClusterUid, Reason, Status, Timestamp};
use moorline_server::{App, Config, bootstrap::StateDir};
use moorline_store::Embedded;
use moorline_testkit::logs::Logs;

use crate::house::{House, raw};

fn status(body: &str) -> Status {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn clusters_are_created_listed_and_deleted() {
    let logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    logs.forbid(&house.state.admin_token().unwrap().unwrap());
    let created = user.create("west").await;
    assert_eq!(created.enrolment.management_cluster_addr, house.tunnel.to_string());
    assert_eq!(created.cluster.status.fingerprints.len(), 1);
    user.create("east").await;
    let (code, body) = user.ask(Method::GET, paths::CLUSTERS, "").await;
    assert_eq!(code, StatusCode::OK);
    let list: ManagedClusterList = serde_json::from_str(&body).unwrap();
    let names: Vec<_> = list.items.iter().map(|cluster| cluster.metadata.name.as_str()).collect();
    assert_eq!(names, ["east", "west"]);
    assert!(!body.contains("PRIVATE KEY"));

    let (code, body) = user.ask(Method::POST, paths::CLUSTERS, r#"{"name":"east"}"#).await;
    assert_eq!((code, status(&body).reason), (StatusCode::CONFLICT, Reason::AlreadyExists));
    assert_eq!(status(&body).message, "managedclusters.moorline.io \"east\" already exists");

    assert_eq!(user.delete("east").await.0, StatusCode::OK);
    for (code, body) in [user.delete("east").await, user.ask(Method::GET, "/v1/clusters/east", "").await] {
        assert_eq!((code, status(&body).reason), (StatusCode::NOT_FOUND, Reason::NotFound));
    }
    let (_, body) = user.ask(Method::GET, paths::STATUS, "").await;
    let now: ServerStatus = serde_json::from_str(&body).unwrap();
    assert_eq!((now.clusters, now.connected_clusters, now.sessions), (1, 0, 0));
    let (_, body) = user.ask(Method::GET, paths::VERSION, "").await;
    assert_eq!(serde_json::from_str::<Version>(&body).unwrap().protocol_version, 1);
    drop(house.ended().await);
}

#[tokio::test]
async fn bad_requests_are_answered_with_what_is_wrong() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    for (body, code, part) in [
        (r#"{"name":"East"}"#, 422, "metadata.name: Invalid value: \"East\""),
        (r#"{"name":""}"#, 422, "must not be empty"),
        (r#"{"name":"management"}"#, 422, "the management cluster itself"),
        (r#"{"name":"a","labels":{"a b":"c"}}"#, 422, "metadata.labels"),
        (r#"{"name":"a","label":{}}"#, 400, "unknown field `label`"),
        ("{", 400, "is not a cluster"),
        (long.as_str(), 413, "more than 65536 bytes"),
    ] {
        let (got, answer) = user.ask(Method::POST, paths::CLUSTERS, body).await;
        let answer = status(&answer);
        assert_eq!(got.as_u16(), code, "{}", answer.message);
        assert!(answer.message.contains(part), "{}", answer.message);
    }
    for (method, path, code) in [
        (Method::PATCH, "/v1/clusters", 405),
        (Method::GET, "/v1/nothing", 404),
        (Method::GET, "/v1/clusters/East", 404),
        (Method::GET, "/v1/clusters/management", 404),
        (Method::GET, "/clusters/management/api", 404),
    ] {
        let (got, body) = user.ask(method, path, "").await;
        assert_eq!(got.as_u16(), code, "{path}: {body}");
        assert_eq!(status(&body).code, code);
    }
    drop(house.ended().await);
}

#[tokio::test]
async fn a_cluster_without_certificate_gets_one_and_no_second() {
    let logs = Logs::capture();
    let house = House::start_with(|raw| {
        let state = StateDir::new(raw.state_dir.clone().unwrap());
        let bare = |name: &str| {
            let uid = ClusterUid::from_bytes([7; 16]);
            ClusterRecord::new(name.parse().unwrap(), uid, Timestamp::from_unix_seconds(1))
        };
        let store = Embedded::open(&state.store()).unwrap();
        let revoked = Some(Timestamp::from_unix_seconds(2));
        store.create(&ClusterRecord { revoked, ..bare("west") }).unwrap();
        store.create(&ClusterRecord { certificate: Some(String::new()), ..bare("own") }).unwrap();
    })
    .await;
    let user = house.user();
    let enrol = async |name: &str| user.ask(Method::POST, &paths::enrolment(&name.parse().unwrap()), "").await;
    let (code, body) = enrol("west").await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    let enrolled: CreatedCluster = serde_json::from_str(&body).unwrap();
    logs.forbid(enrolled.enrolment.managed_cluster_key.expose());
    assert_eq!(enrolled.enrolment.management_cluster_addr, house.tunnel.to_string());
    let known = user.cluster("west").await;
    assert_eq!(
        (&known.status.fingerprints, known.status.fingerprints.len()),
        (&enrolled.cluster.status.fingerprints, 1)
    );
    let leaf = moorline_pki::certificates_from_pem(enrolled.enrolment.managed_cluster_crt.as_bytes()).unwrap();
    assert_eq!(moorline_pki::fingerprint(&leaf[0]).to_string(), known.status.fingerprints[0].to_string());
    for (name, code, part) in
        [("west", 409, "cluster revoke west"), ("own", 409, "brought a certificate"), ("east", 404, "not found")]
    {
        let (got, body) = enrol(name).await;
        assert_eq!((got.as_u16(), status(&body).message.contains(part)), (code, true), "{name}: {body}");
    }
    drop(house.ended().await);
}

#[tokio::test]
async fn who_may_not_administer_learns_nothing() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| {
        let dir = raw.state_dir.clone().unwrap();
        let (tokens, policy) = (dir.join("t.csv"), dir.join("p.yaml"));
        std::fs::write(&tokens, "tok,ann,1,\"devs\"\n").unwrap();
        std::fs::write(&policy, "").unwrap();
        raw.token_auth_file = Some(tokens);
    })
    .await;
    // The admin token of the first start is not in use here, and says so.
    let ann = house.user().with_token("tok");
    for path in ["/v1/clusters", "/v1/clusters/east", "/v1/status"] {
        let (code, body) = ann.ask(Method::GET, path, "").await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{path}: {body}");
    }
    let (code, _) = ann.ask(Method::POST, "/v1/clusters/east/enrolment", "").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let (code, body) = ann.ask(Method::DELETE, "/v1/clusters/east", "").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let forbidden = "managedclusters.moorline.io \"east\" is forbidden: User \"ann\" cannot delete resource \
                     \"managedclusters\" in API group \"moorline.io\" at the cluster scope";
    assert_eq!(status(&body).message, forbidden);
    let (code, _) = house.user().with_token("wrong").ask(Method::GET, "/v1/version", "").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    drop(house.ended().await);
}

#[tokio::test]
async fn a_second_start_finds_the_same() {
    let _logs = Logs::capture();
    let dir = tempfile::tempdir().unwrap();
    let mut ca = Vec::new();
    for start in 0..2 {
        let app = App::build(Config::resolve(raw(dir.path())).unwrap()).await.unwrap();
        let second = App::build(Config::resolve(raw(dir.path())).unwrap()).await.unwrap_err();
        assert_eq!(second.exit_code(), 2);
        assert!(second.to_string().contains("in use by another process"), "{second}");
        let gateway = app.gateway_addr();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async move { drop(stopped.await) }));
        let state = StateDir::new(dir.path());
        ca.push(std::fs::read(state.gateway_ca_certificate()).unwrap());
        let user = crate::user::User::at(gateway, &state);
        if start == 0 {
            user.create("east").await;
        } else {
            assert_eq!(user.cluster("east").await.metadata.name.as_str(), "east");
        }
        drop(stop);
        drop(running.await.unwrap());
    }
    assert_eq!(ca[0], ca[1]);
}

#[tokio::test]
async fn a_changed_token_file_is_taken_over_and_a_broken_one_is_not() {
    let logs = Logs::capture();
    let house = House::start_with(|raw| raw.reload_interval = Some("20ms".to_owned())).await;
    let ben = house.user().with_token("bens-token");
    let code = async || ben.ask(Method::GET, "/v1/version", "").await.0;
    assert_eq!(code().await, StatusCode::UNAUTHORIZED);
    let file = house.state.tokens();
    let table = std::fs::read_to_string(&file).unwrap() + "bens-token,ben,2\n";
    moorline_process::write_private(&file, table.as_bytes()).unwrap();
    let limit = crate::house::LIMIT;
    moorline_testkit::eventually(limit, async || (code().await == StatusCode::OK).then_some(())).await.unwrap();
    moorline_process::write_private(&file, b"broken").unwrap();
    moorline_testkit::eventually(limit, async || logs.contain(&["cannot reload", "tokens.csv"]).then_some(()))
        .await
        .unwrap();
    assert_eq!(code().await, StatusCode::OK);
    drop(house.ended().await);
}

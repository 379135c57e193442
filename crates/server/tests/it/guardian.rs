//! Clusters whose agent is Calico's Guardian, over the management API.

use http::{Method, StatusCode};
use moorline_api::{BroughtCluster, CreatedCluster, MigrateCluster, paths};
use moorline_model::{Dialect, Status};
use moorline_mux::CloseReason as MuxReason;
use moorline_testkit::{eventually, logs::Logs};

use crate::{
    agent::{Agent, Credentials},
    house::{House, LIMIT},
};

/// Version 1, self-signed, as Calico's recipe makes it. Nobody has its key.
const VERSION_1: &str = include_str!("../fixtures/version-1.crt");

fn brought(name: &str, certificate: &str) -> String {
    serde_json::json!({"name": name, "dialect": "guardian", "certificate": certificate}).to_string()
}

#[tokio::test]
async fn a_guardian_is_enrolled_for_years_and_joins_by_no_token() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let body = r#"{"name":"west","dialect":"guardian","operatorNamespace":"operators"}"#;
    let (code, body) = user.ask(Method::POST, paths::CLUSTERS, body).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    let created: CreatedCluster = serde_json::from_str(&body).unwrap();
    let cluster = &created.cluster;
    assert_eq!(cluster.spec.dialect, Dialect::Guardian);
    assert_eq!(cluster.spec.operator_namespace.as_deref(), Some("operators"));
    let certificate = &cluster.status.certificates[0];
    assert_eq!(certificate.dialect, Dialect::Guardian);
    let life = certificate.not_after.since(cluster.metadata.creation_timestamp);
    assert!(life.as_secs() > 5 * 365 * 86_400, "{life:?}");
    let authorities = moorline_pki::certificates_from_pem(created.enrolment.management_cluster_crt.as_bytes()).unwrap();
    let first = moorline_pki::CertificateInfo::parse(&authorities[0]).unwrap();
    assert_eq!(first.dns_names, ["moorline-tunnel"], "the one name that Guardian asks for");

    let (code, body) = user.ask(Method::POST, &paths::join_token(&"west".parse().unwrap()), "{}").await;
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((code, status.message.contains("Guardian")), (StatusCode::CONFLICT, true), "{body}");
    let (code, body) = user.ask(Method::POST, &paths::enrolment(&"west".parse().unwrap()), "").await;
    assert_eq!((code, body.contains("cluster migrate west")), (StatusCode::CONFLICT, true), "{body}");
    drop(house.ended().await);
}

#[tokio::test]
async fn a_certificate_that_was_brought_stands_for_one_cluster() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let (code, body) = user.ask(Method::POST, paths::CLUSTERS, &brought("west", VERSION_1)).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    let made: BroughtCluster = serde_json::from_str(&body).unwrap();
    let leaf = moorline_pki::certificates_from_pem(VERSION_1.as_bytes()).unwrap();
    let known = user.cluster("west").await;
    assert_eq!(known.status.fingerprints, [moorline_pki::fingerprint(&leaf[0])]);
    assert_eq!(known.status.certificates[0].dialect, Dialect::Guardian);
    assert_eq!(known.spec.certificate.as_deref(), Some(VERSION_1));

    let enrolment = paths::enrolment(&"west".parse().unwrap());
    for _again in 0..2 {
        let (code, body) = user.ask(Method::POST, &enrolment, "").await;
        assert_eq!(code, StatusCode::OK, "{body}");
        let again: BroughtCluster = serde_json::from_str(&body).unwrap();
        assert_eq!(again.management_cluster_crt, made.management_cluster_crt);
    }
    let (code, body) = user.ask(Method::POST, paths::CLUSTERS, &brought("east", VERSION_1)).await;
    assert_eq!(code, StatusCode::CONFLICT, "{body}");
    assert!(body.contains("another cluster") && !body.contains("west"), "{body}");

    let (code, body) = user.ask(Method::POST, &paths::revocation(&"west".parse().unwrap()), "").await;
    assert_eq!(code, StatusCode::OK, "{body}");
    let (code, body) = user.ask(Method::POST, &enrolment, "").await;
    assert_eq!((code, body.contains("does not come back")), (StatusCode::CONFLICT, true), "{body}");
    assert!(user.cluster("west").await.status.fingerprints.is_empty());
    drop(house.ended().await);
}

#[tokio::test]
async fn what_does_not_fit_a_guardian_is_refused() {
    let logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let key = house.tunnel_authority().issue_user("x", &[], now(), std::time::Duration::from_secs(60)).unwrap();
    let with_key = format!("{VERSION_1}{}", key.key_pem.as_str());
    logs.forbid(&key.key_pem);
    let of_moorline = serde_json::json!({"name": "west", "certificate": VERSION_1}).to_string();
    for (body, part) in [
        (brought("west", "nonsense"), "spec.certificate"),
        (brought("west", ""), "spec.certificate"),
        (brought("west", &with_key), "never send a private key"),
        (brought("west", &"x".repeat(40_000)), "at most 32768"),
        (of_moorline, "only for dialect guardian"),
        (r#"{"name":"west","dialect":"guardian","join":{}}"#.to_owned(), "cannot join"),
        (r#"{"name":"west","dialect":"guardian","operatorNamespace":"-"}"#.to_owned(), "spec.operatorNamespace"),
    ] {
        let (code, answer) = user.ask(Method::POST, paths::CLUSTERS, &body).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(answer.contains(part) && !answer.contains("KEY-----"), "{answer}");
    }
    drop(house.ended().await);
}

/// The dialects of the certificates that stand for a cluster.
async fn stands(house: &House, name: &str) -> Vec<Dialect> {
    house.user().cluster(name).await.status.certificates.iter().map(|certificate| certificate.dialect).collect()
}

async fn migrate(house: &House, name: &str, dialect: Dialect) -> CreatedCluster {
    let (path, body) = (paths::migration(&name.parse().unwrap()), MigrateCluster { dialect, operator_namespace: None });
    let (code, answer) = house.user().ask(Method::POST, &path, &serde_json::to_string(&body).unwrap()).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

async fn often() -> House {
    House::start_with(|raw| raw.check_interval = Some("300ms".to_owned())).await
}

const WELL: &str = r#"{"upstream_ok":true}"#;
const FAILS: &str = r#"{"upstream_ok":false,"upstream_reason":"connection refused"}"#;

#[tokio::test]
async fn the_agent_before_is_let_in_until_the_next_one_carries_requests() {
    let _logs = Logs::capture();
    let house = often().await;
    let (code, body) = house.user().ask(Method::POST, paths::CLUSTERS, &brought("west", VERSION_1)).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    // The answer to the first is lost.
    migrate(&house, "west", Dialect::Moorline).await;
    let next = migrate(&house, "west", Dialect::Moorline).await;
    assert_eq!(stands(&house, "west").await, [Dialect::Guardian, Dialect::Moorline]);
    let cluster = house.user().cluster("west").await;
    assert_eq!((cluster.spec.dialect, cluster.spec.certificate), (Dialect::Moorline, None));

    let credentials = Credentials::from(&next.enrolment);
    let agent = Agent::connect_probed(&house, &credentials).await.live(FAILS);
    let unreachable = async || {
        let conditions = house.user().cluster("west").await.status.conditions;
        conditions.iter().any(|one| one.reason == "KubeAPIServerUnreachable").then_some(())
    };
    eventually(LIMIT, unreachable).await.unwrap();
    assert_eq!(stands(&house, "west").await, [Dialect::Guardian, Dialect::Moorline], "it reaches nothing yet");
    agent.handle.close(MuxReason::Local("the test says so"));
    drop(agent.ended().await);
    let agent = Agent::connect_probed(&house, &credentials).await.live(WELL);
    eventually(LIMIT, async || (stands(&house, "west").await == [Dialect::Moorline]).then_some(())).await.unwrap();
    assert!(agent.handle.is_open());
    let events = eventually(LIMIT, async || {
        let (_, events) = house.user().ask(Method::GET, &paths::events(&"west".parse().unwrap()), "").await;
        events.contains("\"Migrated\"").then_some(events)
    });
    events.await.unwrap();
    drop(house.ended().await);
}

#[tokio::test]
async fn whoever_goes_back_keeps_the_agent_that_never_left() {
    let _logs = Logs::capture();
    let house = often().await;
    let user = house.user();
    let first = user.create("west").await;
    let agent = Agent::connect_probed(&house, &Credentials::from(&first.enrolment)).await.live(WELL);
    let (code, body) = user.ask(Method::POST, &paths::join_token(&"west".parse().unwrap()), "{}").await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    for _again in 0..3 {
        migrate(&house, "west", Dialect::Guardian).await;
        assert_eq!(stands(&house, "west").await, [Dialect::Moorline, Dialect::Guardian]);
    }
    let (_, tokens) = user.ask(Method::GET, paths::JOIN_TOKENS, "").await;
    assert!(!tokens.contains("west"), "{tokens}");
    let connected = async || user.cluster("west").await.status.connected.then_some(());
    eventually(LIMIT, connected).await.unwrap();
    assert_eq!(user.ask(Method::GET, "/clusters/west/api", "").await.1, WELL);

    migrate(&house, "west", Dialect::Moorline).await;
    eventually(LIMIT, async || (!stands(&house, "west").await.contains(&Dialect::Guardian)).then_some(()))
        .await
        .unwrap();
    assert!(agent.handle.is_open());
    assert_eq!(user.ask(Method::GET, "/clusters/west/api", "").await.1, WELL);
    drop(house.ended().await);
}

#[tokio::test]
async fn nobody_migrates_what_is_not_there_or_not_theirs() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    user.create("west").await;
    let (west, east) = (paths::migration(&"west".parse().unwrap()), paths::migration(&"east".parse().unwrap()));
    for (path, body, code) in [
        (&east, r#"{"dialect":"guardian"}"#, 404),
        (&west, r#"{"dialect":"voltron"}"#, 400),
        (&west, "{}", 400),
        (&west, r#"{"dialect":"guardian","operatorNamespace":"A"}"#, 422),
    ] {
        let (got, answer) = user.ask(Method::POST, path, body).await;
        assert_eq!(got.as_u16(), code, "{body}: {answer}");
    }
    let (code, _) = user.clone().with_token("wrong").ask(Method::POST, &west, r#"{"dialect":"guardian"}"#).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert_eq!(stands(&house, "west").await, [Dialect::Moorline]);
    drop(house.ended().await);
}

#[tokio::test]
async fn a_guardian_is_behind_in_a_rotation_until_it_has_a_new_manifest() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let body = r#"{"name":"west","dialect":"guardian"}"#;
    assert_eq!(user.ask(Method::POST, paths::CLUSTERS, body).await.0, StatusCode::CREATED);
    let (code, body) = user.ask(Method::POST, &format!("{}/rotate", paths::TUNNEL_AUTHORITY), "").await;
    assert_eq!((code, body.contains("cluster migrate west --dialect guardian")), (StatusCode::OK, true), "{body}");
    let next = migrate(&house, "west", Dialect::Guardian).await;
    let authorities = moorline_pki::certificates_from_pem(next.enrolment.management_cluster_crt.as_bytes()).unwrap();
    let staying = moorline_pki::CertificateInfo::parse(&authorities[0]).unwrap();
    let leaf = moorline_pki::certificates_from_pem(next.enrolment.managed_cluster_crt.as_bytes()).unwrap();
    assert_eq!(moorline_pki::CertificateInfo::parse(&leaf[0]).unwrap().issuer, staying.subject);
    assert_eq!((authorities.len(), staying.dns_names.len()), (2, 1), "the staying one first, with its one name");
    let (_, body) = user.ask(Method::GET, paths::TUNNEL_AUTHORITY, "").await;
    assert!(body.contains("west"), "the new one was not seen yet: {body}");
    drop(house.ended().await);
}

fn now() -> moorline_model::Timestamp {
    moorline_model::Timestamp::from(std::time::SystemTime::now())
}

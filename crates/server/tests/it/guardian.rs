//! Clusters whose agent is Calico's Guardian, over the management API.

use http::{Method, StatusCode};
use moorline_api::{BroughtCluster, CreatedCluster, paths};
use moorline_model::{Dialect, Status};
use moorline_testkit::logs::Logs;

use crate::house::House;

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

fn now() -> moorline_model::Timestamp {
    moorline_model::Timestamp::from(std::time::SystemTime::now())
}

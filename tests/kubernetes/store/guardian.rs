//! A cluster whose agent is Calico's Guardian, made by kubectl with the certificate of its owner; and its change to our own
//! agent, as its object shows it.

use http::{Method, StatusCode};
use moorline_api::{BroughtCluster, CreatedCluster, paths};
use moorline_testkit::client::full;
use moorline_testkit::eventually;
use moorline_testkit::guardian::{Settings, StandIn};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use serde_json::{Value, json};

use super::{Management, object};
use crate::kube::DEADLINE;

/// Version 1, self-signed, without extensions, by the recipe of Calico's documentation; the key in PKCS#1.
const BROUGHT: (&str, &str) = (
    include_str!("../../../crates/mtls/tests/fixtures/rsa-2048.crt"),
    include_str!("../../../crates/mtls/tests/fixtures/rsa-2048.key"),
);

async fn post(server: &Server, path: &str, body: &str) -> (StatusCode, String) {
    let client = server.admin_client().unwrap();
    let answer = client.ask(client.request_with(Method::POST, path, full(body.to_owned()))).await.unwrap();
    (answer.code, answer.body)
}

/// The dialects of the certificates that an object remembers.
fn remembered(object: &Value) -> Vec<&str> {
    let all = object["status"]["fingerprints"].as_array();
    all.into_iter().flatten().map(|one| one["dialect"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_owner_brings_a_certificate_by_kubectl_and_changes_to_our_agent_later() {
    let _logs = Logs::capture();
    let Some(management) = Management::start("guardian").await else { return };
    let server = management.server().await;
    let upstream = Upstream::start().await.unwrap();
    let spec = json!({ "dialect": "guardian", "certificate": BROUGHT.0, "operatorNamespace": "operators" });
    management.apply(&object("east", &spec)).await;
    super::until_known(&server, "east", true).await;
    let (code, answer) = post(&server, &paths::enrolment(&"east".parse().unwrap()), "").await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let made: BroughtCluster = serde_json::from_str(&answer).unwrap();
    assert_eq!(made.cluster.spec.operator_namespace.as_deref(), Some("operators"));
    assert_eq!(remembered(&management.object("east").await), [""; 0], "it is what the object asks for, no more");

    let files = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("management-cluster.crt", made.management_cluster_crt.as_str()),
        ("managed-cluster.crt", BROUGHT.0),
        ("managed-cluster.key", BROUGHT.1),
        ("token", "the-agent's-own-token"),
    ] {
        moorline_process::write_private(&files.path().join(name), text.as_bytes()).unwrap();
    }
    let settings = Settings::new(server.tunnel, files.path(), &upstream.url());
    let Some(mut guardian) = StandIn::start_or_skip(&settings).await.unwrap() else { return };
    guardian.event("connected").await.unwrap();
    management.becomes("east", "True").await;
    let shown = management.kubectl.ok(&["get", "mcl", "east"]).await;
    assert!(shown.contains("guardian"), "{shown}");

    let (code, answer) = post(&server, &paths::migration(&"east".parse().unwrap()), r#"{"dialect":"moorline"}"#).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let created: CreatedCluster = serde_json::from_str(&answer).unwrap();
    let migrating = management.object("east").await;
    assert_eq!(remembered(&migrating), ["guardian", "moorline"]);
    assert_eq!((&migrating["spec"]["dialect"], &migrating["spec"]["certificate"]), (&json!("moorline"), &Value::Null));
    let through = server.admin_client().unwrap().get("/clusters/east/api/v1/pods").await.unwrap();
    assert_eq!(through.code, StatusCode::OK, "Guardian stays: {}", through.body);

    let _agent = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    let alone = async || (remembered(&management.object("east").await) == ["moorline"]).then_some(());
    eventually(DEADLINE, alone).await.unwrap();
    guardian.event("ended").await.unwrap();
    // Somebody's manifest brings the certificate back, and that lets nobody in.
    management.apply(&object("east", &json!({ "dialect": "moorline", "certificate": BROUGHT.0 }))).await;
    let back = async || management.object("east").await["spec"]["certificate"].is_string().then_some(());
    eventually(DEADLINE, back).await.unwrap();
    let known = super::known(&server, "east").await.unwrap();
    assert_eq!(known["status"]["certificates"].as_array().map(Vec::len), Some(1), "{known}");
    management.becomes("east", "True").await;
}

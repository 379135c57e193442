//! Clusters kept as `ManagedCluster` objects of a management cluster: made by kubectl and by the management API,
//! followed, shown, and gone when their objects are.
//!
//! Each test has a management cluster of its own, with the rights in it that `docs/clusters.md` names and no more.

mod guardian;
mod outages;
mod promises;

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use moorline_api::Secret;
use moorline_ca::Authority;
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{ControlPlane, Credential, Kubectl, Options, Tools};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use serde_json::{Value, json};

use crate::kube::{DEADLINE, Kube};

const OBJECTS: &str = "/apis/moorline.io/v1alpha1/managedclusters";
const DEFINITION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds/managedclusters.yaml");

/// A management cluster with the definition in it.
struct Management {
    plane: ControlPlane,
    kubectl: Kube,
    kubeconfig: PathBuf,
}

impl Management {
    async fn start(name: &str) -> Option<Self> {
        let tools = Tools::require_or_skip()?;
        let plane = ControlPlane::start(&tools, Options { name: format!("store-{name}"), ..Options::default() });
        let plane = plane.await.unwrap();
        let kubectl = Kube {
            version: *tools.kubectls().last().unwrap_or(&Kubectl::New),
            tools,
            kubeconfig: plane.admin_kubeconfig().unwrap(),
            prefix: String::new(),
            namespace: "default".to_owned(),
        };
        kubectl.ok(&["apply", "-f", DEFINITION]).await;
        kubectl.ok(&["wait", "--for=condition=Established", "crd/managedclusters.moorline.io"]).await;
        let rights = json!([
            {
                "apiGroups": ["moorline.io"],
                "resources": ["managedclusters"],
                "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
            },
            { "apiGroups": ["moorline.io"], "resources": ["managedclusters/status"], "verbs": ["patch", "update"] },
            { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
        ]);
        plane.grant("moorline-server", &rights).await.unwrap();
        let certificate = plane.client_certificate("moorline-server", "moorline").unwrap();
        let kubeconfig = plane.kubeconfig("moorline-server", &Credential::Certificate(&certificate)).unwrap();
        Some(Self { plane, kubectl, kubeconfig })
    }

    async fn server(&self) -> Server {
        self.server_in(tempfile::tempdir().unwrap()).await
    }

    async fn server_in(&self, directory: tempfile::TempDir) -> Server {
        let kubeconfig = self.kubeconfig.clone();
        let server = Server::start_in(directory, |raw| {
            raw.cluster_store = Some("kubernetes".to_owned());
            raw.kubeconfig = Some(kubeconfig);
        });
        server.await.unwrap()
    }

    async fn apply(&self, object: &Value) {
        self.kubectl.ok_with(&["apply", "-f", "-"], object.to_string().as_bytes()).await;
    }

    async fn object(&self, name: &str) -> Value {
        self.plane.api().get(&format!("{OBJECTS}/{name}")).await.unwrap()
    }

    /// The status of the condition that says whether it is connected, and the reason.
    async fn connected(&self, name: &str) -> (String, String) {
        condition(&self.object(name).await, "ManagedClusterConnected")
    }

    async fn becomes(&self, name: &str, status: &str) {
        let so = async || (self.connected(name).await.0 == status).then_some(());
        eventually(DEADLINE, so).await.unwrap();
    }
}

fn condition(object: &Value, kind: &str) -> (String, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "moorline.io/v1alpha1",
        "kind": "ManagedCluster",
        "metadata": { "name": name, "labels": { "zone": "eu" } },
        "spec": spec,
    })
}

/// What the server says of a cluster.
async fn known(server: &Server, name: &str) -> Option<Value> {
    let answer = server.admin_client().unwrap().get(&format!("/v1/clusters/{name}")).await.unwrap();
    (answer.code == StatusCode::OK).then(|| serde_json::from_str(&answer.body).unwrap())
}

/// Waits until the server has heard of a cluster, or no longer knows it.
async fn until_known(server: &Server, name: &str, wanted: bool) {
    eventually(DEADLINE, async || (known(server, name).await.is_some() == wanted).then_some(())).await.unwrap();
}

/// A certificate that the server's own authority signed, as an owner would bring it, with its key.
fn brought(server: &Server, name: &str) -> (String, Secret) {
    let read = |file: &str| std::fs::read_to_string(server.directory().join(file)).unwrap();
    let authority = Authority::from_pem(&read("tunnel-ca.crt"), &read("tunnel-ca.key")).unwrap();
    let now = std::time::SystemTime::now().into();
    let issued = authority.issue_user(name, &[], now, Duration::from_secs(3600)).unwrap();
    (issued.certificate_pem, issued.key_pem.into())
}

/// An agent with a certificate that was brought.
async fn agent_with(server: &Server, certificate: &str, key: &Secret, upstream: &Upstream) -> Agent {
    // The files of another cluster, with this certificate in the place of its own.
    let mut created = server.create("spare").await.unwrap();
    created.enrolment.managed_cluster_crt = certificate.to_owned();
    created.enrolment.managed_cluster_key = key.clone();
    let client = server.admin_client().unwrap();
    client.ask(client.request(http::Method::DELETE, "/v1/clusters/spare")).await.unwrap();
    Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap()
}

#[tokio::test]
async fn kubectl_makes_a_cluster_shows_it_and_takes_it_away() {
    let Some(management) = Management::start("kubectl").await else { return };
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = management.server().await;
    let (certificate, key) = brought(&server, "east");
    management.apply(&object("east", &json!({ "certificate": certificate }))).await;
    until_known(&server, "east", true).await;
    let cluster = known(&server, "east").await.unwrap();
    let own = management.object("east").await;
    assert_eq!(
        (&cluster["metadata"]["uid"], &cluster["metadata"]["labels"]["zone"]),
        (&own["metadata"]["uid"], &json!("eu"))
    );
    management.becomes("east", "False").await;
    assert_eq!(management.connected("east").await.1, "NeverConnected");
    assert_eq!(condition(&management.object("east").await, "Accepted").0, "True");

    let agent = agent_with(&server, &certificate, &key, &upstream).await;
    server.connected("east").await.unwrap();
    management.becomes("east", "True").await;
    let columns = management.kubectl.ok(&["get", "mcl"]).await;
    let [head, row] = [columns.lines().next().unwrap(), columns.lines().nth(1).unwrap()]
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(head, ["NAME", "CONNECTED", "VERSION", "DIALECT", "AGE"], "{columns}");
    assert_eq!((row[0].as_str(), row[1].as_str(), row[3].as_str()), ("east", "True", "moorline"), "{columns}");
    let shown = management.object("east").await;
    assert_eq!(shown["status"]["sessions"], 1);
    assert!(shown["status"]["certificateExpiry"].is_string(), "{shown}");

    let told = async || {
        let events = management.kubectl.ok(&["describe", "mcl/east"]).await;
        (events.contains("Normal") && events.contains("Connected")).then_some(())
    };
    eventually(DEADLINE, told).await.unwrap();

    // Nothing changes, so nothing is written: the server's own writes lead to no others.
    let version = shown["metadata"]["resourceVersion"].clone();
    let written = async || (management.object("east").await["metadata"]["resourceVersion"] != version).then_some(());
    assert!(eventually(Duration::from_secs(6), written).await.is_err());

    // Who claims its certificate does not get it: not by bringing it, not by writing a status.
    management.apply(&object("a-thief", &json!({ "certificate": certificate }))).await;
    management.apply(&object("b-thief", &json!({}))).await;
    let fingerprint = known(&server, "east").await.unwrap()["status"]["fingerprints"][0].clone();
    assert!(fingerprint.is_string());
    let claim =
        json!({ "status": { "fingerprints": [{ "fingerprint": fingerprint, "notAfter": "2030-01-01T00:00:00Z" }] } });
    let path = format!("{OBJECTS}/b-thief/status");
    management.plane.api().call(http::Method::PATCH, &path, Some(&claim)).await.unwrap().ok().unwrap();
    for thief in ["a-thief", "b-thief"] {
        let refused = async || (condition(&management.object(thief).await, "Accepted").0 == "False").then_some(());
        eventually(DEADLINE, refused).await.unwrap();
        assert!(server.cluster(thief).await.unwrap().status.fingerprints.is_empty());
    }
    assert_eq!(server.cluster("east").await.unwrap().status.sessions.len(), 1);

    management.kubectl.ok(&["label", "--overwrite", "mcl/east", "zone=us"]).await;
    let relabelled = async || (known(&server, "east").await?["metadata"]["labels"]["zone"] == "us").then_some(());
    eventually(DEADLINE, relabelled).await.unwrap();
    assert_eq!(server.cluster("east").await.unwrap().status.sessions.len(), 1, "its session goes on");

    management.kubectl.ok(&["delete", "mcl/east"]).await;
    until_known(&server, "east", false).await;
    let gone = async || (server.metric("moorline_tunnel_sessions", &[]).await.unwrap() == 0.0).then_some(());
    eventually(DEADLINE, gone).await.unwrap();

    // F39: another cluster of the name is not the first one's agent's.
    management.apply(&object("east", &json!({}))).await;
    until_known(&server, "east", true).await;
    assert_ne!(known(&server, "east").await.unwrap()["metadata"]["uid"], own["metadata"]["uid"]);
    management.becomes("east", "False").await;
    assert_eq!(server.metric("moorline_tunnel_sessions", &[]).await.unwrap(), 0.0);
    drop(agent);
}

#[tokio::test]
async fn what_is_no_cluster_is_refused_with_words_that_help() {
    let Some(management) = Management::start("refusals").await else { return };
    let refused = async |name: &str, spec: Value, said: &str| {
        let text = object(name, &spec).to_string();
        let ended = management.kubectl.run_with(&["apply", "-f", "-"], text.as_bytes()).await;
        assert_eq!(ended.code, Some(1), "{name} {spec}");
        assert!(ended.stderr.contains(said), "{name} {spec}: {}", ended.stderr);
    };
    refused("management", json!({}), "stands for the management cluster itself").await;
    refused("a.b", json!({}), "at most 63 lower-case letters").await;
    refused(&"x".repeat(64), json!({}), "at most 63 lower-case letters").await;
    refused("east", json!({ "dialect": "klingon" }), "spec.dialect").await;
    refused("east", json!({ "operatorNamespace": "A_B" }), "spec.operatorNamespace").await;
    refused("east", json!({ "certificate": "x" }), "write a certificate in PEM").await;
    let both = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----";
    refused("east", json!({ "certificate": both }), "never put a private key here").await;
    let attestation = json!({ "attestation": { "issuer": "i", "audience": "a", "subject": "me" } });
    refused("east", attestation, "system:serviceaccount:NAMESPACE:NAME").await;

    // A name is enough, and what is not given has a default that shows.
    let bare =
        json!({ "apiVersion": "moorline.io/v1alpha1", "kind": "ManagedCluster", "metadata": { "name": "bare" } });
    management.apply(&bare).await;
    assert_eq!(management.object("bare").await["spec"], json!({ "dialect": "moorline" }));
    // Its status is no part of what people apply.
    let mut forged = object("forged", &json!({}));
    forged["status"] =
        json!({ "fingerprints": [{ "fingerprint": "0".repeat(64), "notAfter": "2030-01-01T00:00:00Z" }] });
    management.apply(&forged).await;
    assert_eq!(management.object("forged").await["status"], Value::Null);
}

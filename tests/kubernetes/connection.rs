//! An agent with what its manifest gives it and no more: the connection resource says where it goes and how it stands,
//! its Secret keeps the certificates that it renews, and the roles of the manifest are enough for both.

use http::Method;
use http_body_util::BodyExt as _;
use moorline_agent::{RawConfig, doctor};
use moorline_impersonation::Narrowing;
use moorline_manifest::agent::{Acting, Address, Certificates, Manifest, Written};
use moorline_model::Verdict;
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{ControlPlane, Credential, Kubectl, Options, Tools};
use moorline_testkit::logs::Logs;
use serde_json::{Value, json};

use crate::kube::{DEADLINE, Kube};

const CONNECTION: &str = "/apis/moorline.io/v1alpha1/managementclusterconnections/default";
const SECRET: &str = "/api/v1/namespaces/moorline/secrets/moorline-agent-certs";
const ACCOUNT: &str = "/api/v1/namespaces/moorline/serviceaccounts/moorline-agent";

/// A cluster in which the manifest of an agent is applied.
struct Managed {
    plane: ControlPlane,
    kubectl: Kube,
}

impl Managed {
    async fn start(tools: &Tools) -> Self {
        let options = Options { name: "connection".to_owned(), ..Options::default() };
        let plane = ControlPlane::start(tools, options).await.unwrap();
        let kubectl = Kube {
            tools: tools.clone(),
            version: Kubectl::New,
            kubeconfig: plane.admin_kubeconfig().unwrap(),
            prefix: String::new(),
            namespace: "moorline".to_owned(),
        };
        Self { plane, kubectl }
    }

    /// Applies the manifest, and says where the agent goes.
    async fn apply(&self, manifest: &str, address: &str) {
        self.kubectl.ok_with(&["apply", "--filename=-"], manifest.as_bytes()).await;
        // Of a kind that only the manifest has made known.
        self.kubectl.ok(&["wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"]).await;
        let connection = json!({
            "apiVersion": "moorline.io/v1alpha1",
            "kind": "ManagementClusterConnection",
            "metadata": { "name": "default" },
            "spec": { "managementClusterAddr": address },
        });
        self.kubectl.ok_with(&["apply", "--filename=-"], connection.to_string().as_bytes()).await;
    }

    /// The token of the agent's account, as kubelet would mount it.
    async fn token(&self) -> String {
        let request = json!({ "spec": { "expirationSeconds": 86400 } });
        let answer = self.plane.api().call(Method::POST, &format!("{ACCOUNT}/token"), Some(&request)).await.unwrap();
        answer.ok().unwrap()["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn go_to(&self, address: &str) {
        let patch = json!({ "spec": { "managementClusterAddr": address } }).to_string();
        self.kubectl.ok(&["patch", "mcc", "default", "--type=merge", "--patch", &patch]).await;
    }

    async fn available(&self) -> Value {
        let object = self.plane.api().get(CONNECTION).await.unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Available").unwrap_or_default()
    }

    /// Waits until the condition is this one, and about the spec of this generation.
    async fn becomes(&self, status: &str, reason: &str, generation: i64) -> Value {
        let so = async || {
            let now = self.available().await;
            let same = now["status"] == status && now["reason"] == reason && now["observedGeneration"] == generation;
            same.then_some(now)
        };
        match eventually(DEADLINE, so).await {
            Ok(condition) => condition,
            Err(late) => panic!("{late}: {status} {reason} {generation}, but {}", self.available().await),
        }
    }

    /// kubectl with the agent's own token.
    fn thief(&self, token: &str) -> Kube {
        let kubeconfig = self.plane.kubeconfig("agent", &Credential::Token(token)).unwrap();
        Kube { kubeconfig, ..self.kubectl.clone() }
    }
}

/// What `kubectl apply` gets, for this server.
fn manifest(created: &moorline_api::CreatedCluster, address: &str) -> String {
    let acting = Acting { arguments: Vec::new(), narrowing: Narrowing::default() };
    let install = Written::default().resolve("0.1.0", acting).unwrap();
    let enrolment = &created.enrolment;
    let certificates = Certificates {
        authorities: &enrolment.management_cluster_crt,
        certificate: &enrolment.managed_cluster_crt,
        key: enrolment.managed_cluster_key.expose(),
    };
    let (cluster, address) = ("west".parse().unwrap(), Address::parse(address, 9449).unwrap());
    Manifest {
        install: &install,
        cluster: &cluster,
        address: &address,
        credential: moorline_manifest::agent::Credential::Certificates(certificates),
    }
    .stream()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_is_all_that_an_agent_needs() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let logs = Logs::capture();
    let server = Server::start_with(|raw| raw.agent_certificate_life = Some("45s".to_owned())).await.unwrap();
    // Before the certificate is made, which does not live long.
    let managed = Managed::start(&tools).await;
    let created = server.create("west").await.unwrap();
    let address = server.tunnel.to_string();
    managed.apply(&manifest(&created, &address), &address).await;
    let token = managed.token().await;
    logs.forbid(&token);
    let files = managed.plane.directory().join("agent");
    std::fs::create_dir_all(&files).unwrap();
    let (token_file, ca_file) = (files.join("token"), files.join("ca.crt"));
    moorline_process::write_private(&token_file, token.as_bytes()).unwrap();
    std::fs::write(&ca_file, managed.plane.ca_pem()).unwrap();
    let flags = |raw: &mut RawConfig| {
        raw.management_cluster_addr = None;
        raw.management_cluster_connection = Some("default".to_owned());
        raw.identity_secret = Some("moorline/moorline-agent-certs".to_owned());
        (raw.kube_token_file, raw.kube_ca_file) = (Some(token_file.clone()), Some(ca_file.clone()));
    };
    let mounted = tempfile::tempdir().unwrap();
    moorline_testkit::house::write_enrolment(&created, mounted.path()).unwrap();
    let mut raw = moorline_testkit::house::raw_agent(mounted.path(), server.tunnel, &managed.plane.url());
    flags(&mut raw);
    healthy(&raw).await;

    let before = managed.plane.api().get(SECRET).await.unwrap();
    let agent = Agent::start(&created, server.tunnel, &managed.plane.url(), flags).unwrap();
    let first = managed.becomes("True", "Connected", 1).await;
    managed.kubectl.ok(&["wait", "--for=condition=Available", "mcc/default", "--timeout=60s"]).await;
    goes_where_it_is_told(&managed, &server, &first).await;
    keeps_what_it_renews(&managed, &agent, &before).await;
    may_do_nothing_else(&managed.thief(&token)).await;
}

/// The doctor finds nothing wrong with an agent of these flags.
async fn healthy(raw: &RawConfig) {
    let report = doctor::examine(raw).await;
    assert!(!report.failed(), "{report}");
    for check in
        ["kube-apiserver", "permission-impersonate-users", "permission-connection", "permission-secret", "tunnel"]
    {
        let finding = report.findings.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.verdict, Verdict::Ok, "{report}");
    }
}

/// Another address is gone to without an end of what runs; one that leads nowhere is told, and changes nothing else.
async fn goes_where_it_is_told(managed: &Managed, server: &Server, first: &Value) {
    managed.plane.grant_everything("admin").await.unwrap();
    let user = server.admin_client().unwrap();
    let request = user.request(Method::GET, "/clusters/west/api/v1/namespaces?watch=true&resourceVersion=0");
    let response = user.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut watch = response.into_body();
    let port = server.tunnel.port();
    managed.go_to(&format!("localhost:{port}")).await;
    let second = managed.becomes("True", "Connected", 2).await;
    assert_eq!(second["lastTransitionTime"], first["lastTransitionTime"], "it was available all along");
    managed.go_to("127.0.0.1:1").await;
    let refused = managed.becomes("False", "ConnectionRefused", 3).await;
    assert!(refused["message"].as_str().unwrap().contains("Remedy: "), "{refused}");
    let answer = user.get("/clusters/west/api/v1/namespaces/kube-system").await.unwrap();
    assert_eq!(answer.code, 200, "the session before serves: {}", answer.body);
    managed.go_to(&server.tunnel.to_string()).await;
    managed.becomes("True", "Connected", 4).await;

    managed.kubectl.ok(&["create", "namespace", "seen-by-the-watch"]).await;
    let mut seen = String::new();
    while !seen.contains("seen-by-the-watch") {
        let frame = tokio::time::timeout(LIMIT, watch.frame()).await.expect("the watch is silent");
        let Some(frame) = frame else { panic!("the watch ended: {seen}") };
        let frame = frame.expect("the watch broke");
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
}

/// Certificate, key and authorities are replaced together, and the rest of the Secret is left alone.
async fn keeps_what_it_renews(managed: &Managed, agent: &Agent, before: &Value) {
    let renewed = async || {
        let now = managed.plane.api().get(SECRET).await.unwrap();
        (now["data"]["managed-cluster.crt"] != before["data"]["managed-cluster.crt"]).then_some(now)
    };
    let now = eventually(DEADLINE, renewed).await.unwrap();
    assert_ne!(now["data"]["managed-cluster.key"], before["data"]["managed-cluster.key"]);
    assert_eq!(now["metadata"]["annotations"]["moorline.io/cluster"], "west");
    assert_eq!((&now["type"], &now["metadata"]["labels"]), (&before["type"], &before["metadata"]["labels"]));
    assert!(agent.metric("moorline_agent_certificate_renewals_total", &["ok"]).await.unwrap() >= 1.0);
    assert_eq!(agent.metric("moorline_agent_identity_secret_ok", &[]).await.unwrap(), 1.0);
}

/// Whoever has the agent's token and acts as nobody.
async fn may_do_nothing_else(thief: &Kube) {
    let spec = json!({ "spec": { "managementClusterAddr": "evil.example.com" } }).to_string();
    for more in [
        &["get", "secrets"][..],
        &["get", "secret", "other"],
        &["delete", "secret", "moorline-agent-certs"],
        &["patch", "mcc", "default", "--type=merge", "--patch", &spec],
        &["get", "pods"],
        &["get", "secrets", "--namespace=kube-system"],
    ] {
        let ended = thief.run(more).await;
        assert!(ended.stderr.contains("(Forbidden)"), "{more:?}: {ended:?}");
    }
    thief.ok(&["get", "mcc", "default"]).await;
}

//! The management commands against a scripted gateway over real TLS: what they ask, what they print, how they end.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use moorline_ca::{Authority, SubjectName};
use moorline_model::{Reason, Status, Timestamp};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A gateway that answers by script, and remembers what it was asked.
struct Gateway {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

const TOKEN: &str = "t0ken";

impl Gateway {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from(SystemTime::now());
        let day = Duration::from_secs(24 * 60 * 60);
        let authority = Authority::generate("test", now, day).unwrap();
        fs::write(dir.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        fs::write(dir.path().join("token"), TOKEN).unwrap();
        let issued = authority.issue_server(&[SubjectName::from_host("127.0.0.1")], now, day).unwrap();
        let chain = moorline_pki::certificates_from_pem(issued.certificate_pem.as_bytes()).unwrap();
        let key = moorline_pki::private_key_from_pem(issued.key_pem.as_bytes()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(TlsAcceptor::from(Arc::new(tls)), log, sender));
        });
        Self { addr: receiver.recv().unwrap(), asked, dir }
    }

    fn moorline(&self, args: &[&str]) -> Output {
        let file = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
        command.args(args).env_clear().env("HOME", self.dir.path()).env("MOORLINE_TOKEN_FILE", file("token"));
        command.env("MOORLINE_SERVER", format!("https://{}", self.addr));
        command.env("MOORLINE_CERTIFICATE_AUTHORITY", file("ca.crt")).output().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

async fn serve(tls: TlsAcceptor, asked: Arc<Mutex<Vec<String>>>, addr: mpsc::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    addr.send(listener.local_addr().unwrap()).unwrap();
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        // A client that does not trust us ends the handshake: that is one of the tests.
        let Ok(stream) = tls.accept(stream).await else { continue };
        let service = service_fn(|request: Request<Incoming>| {
            let asked = Arc::clone(&asked);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                asked.lock().unwrap().push(format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body)));
                let known = head.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
                let (code, body) = match known {
                    true => answer(&head.method, head.uri.path(), &String::from_utf8_lossy(&body)),
                    false => failure(401, Reason::Unauthorized, "Unauthorized"),
                };
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = code.try_into().unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }
}

fn answer(method: &Method, path: &str, body: &str) -> (u16, String) {
    match (method.as_str(), path) {
        ("GET", "/v1/clusters") => (200, json!({"kind": "ManagedClusterList", "items": [west()]}).to_string()),
        ("GET", "/v1/clusters/west" | "/v1/clusters/east") => (200, west().to_string()),
        ("GET", "/v1/clusters/calico") => (200, calico(None).to_string()),
        ("GET", "/v1/clusters/west/events") => {
            (200, json!({"kind": "ClusterEventList", "items": [lost()]}).to_string())
        }
        ("DELETE", "/v1/clusters/west") => (200, String::from_utf8(Status::success().to_json()).unwrap()),
        ("POST", "/v1/clusters/east/enrolment") => failure(409, Reason::Conflict, "east has a certificate already"),
        ("POST", "/v1/clusters") if body.contains("certificate") => {
            let asked: Value = serde_json::from_str(body).unwrap();
            let cluster = calico(asked["certificate"].as_str());
            let brought = json!({"cluster": cluster, "managementClusterAddr": "gw.example:9449",
                                 "management-cluster.crt": "CA\n"});
            (201, brought.to_string())
        }
        (
            "POST",
            "/v1/clusters"
            | "/v1/clusters/west/enrolment"
            | "/v1/clusters/calico/enrolment"
            | "/v1/clusters/west/migration"
            | "/v1/clusters/calico/migration",
        ) => {
            let enrolment = json!({"managementClusterAddr": "gw.example:9449", "management-cluster.crt": "CA\n",
                                   "managed-cluster.crt": "CERT\n", "managed-cluster.key": "KEY\n"});
            (201, json!({"cluster": west(), "enrolment": enrolment}).to_string())
        }
        ("POST", "/v1/accessreviews") => {
            let allowed = body.contains("west");
            let rule = allowed.then_some("ClusterRole reach via ClusterRoleBinding devs");
            let answer =
                json!({"allowed": allowed, "rule": rule, "user": "ann", "groups": ["dev"], "group": "moorline.io"});
            (200, answer.to_string())
        }
        ("GET", "/v1/users") => (200, json!({"kind": "UserList", "items": [ann()], "apiVersion": "x"}).to_string()),
        ("POST", "/v1/users") if body.contains("bob") => failure(409, Reason::AlreadyExists, "bob already exists"),
        ("POST", "/v1/users") => (201, json!({"user": ann(), "token": "n3w"}).to_string()),
        ("DELETE", "/v1/users/a%2Fnn") => (200, json!({"name": "a/nn", "tokenIds": ["0123456789ab"]}).to_string()),
        ("GET", "/v1/version") => (200, json!({"version": "9.8.7", "protocolVersion": 1}).to_string()),
        _unknown => failure(404, Reason::NotFound, "managedclusters.moorline.io \"x\" not found"),
    }
}

fn failure(code: u16, reason: Reason, message: &str) -> (u16, String) {
    (code, String::from_utf8(Status::failure(code, reason, message).to_json()).unwrap())
}

fn west() -> Value {
    json!({
        "apiVersion": "moorline.io/v1alpha1", "kind": "ManagedCluster",
        "metadata": {"name": "west", "uid": "11111111-1111-1111-1111-111111111111",
                     "creationTimestamp": "9999-01-01T00:00:00Z"},
        "spec": {"dialect": "moorline"},
        "status": {"conditions": [{"type": "ManagedClusterConnected", "status": "False", "reason": "NoSession"}],
                   "sessions": [], "fingerprints": []},
        "aFieldOfTomorrow": {"kept": true},
    })
}

fn calico(certificate: Option<&str>) -> Value {
    let mut cluster = west();
    cluster["metadata"]["name"] = json!("calico");
    cluster["spec"] = json!({"dialect": "guardian", "operatorNamespace": "operators", "certificate": certificate});
    cluster
}

fn lost() -> Value {
    json!({"type": "Warning", "reason": "Disconnected", "message": "it hung up", "count": 1,
           "firstTimestamp": "9999-01-01T00:00:00Z", "lastTimestamp": "9999-01-01T00:00:00Z"})
}

fn ann() -> Value {
    json!({"apiVersion": "moorline.io/v1alpha1", "kind": "User", "metadata": {"name": "a/nn"},
           "spec": {"groups": ["dev", "ops"], "tokenId": "0123456789ab"}})
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn clusters_are_shown_in_every_format() {
    let gateway = Gateway::start();
    let run = |args: &[&str]| ok(&gateway.moorline(args));
    let table = "NAME   CONNECTED   SESSIONS   AGE\nwest   False       0          0s\n";
    assert_eq!(run(&["cluster", "list"]), table);
    assert_eq!(run(&["cluster", "get", "west"]), table);
    assert_eq!(run(&["cluster", "list", "-o", "name"]), "managedcluster.moorline.io/west\n");
    assert_eq!(run(&["status", "-o", "name"]), "managedcluster.moorline.io/west\n");
    let json: Value = serde_json::from_str(&run(&["cluster", "get", "west", "-o", "json"])).unwrap();
    assert_eq!(json, west(), "also what this program does not know");
    let yaml: Value = serde_saphyr::from_str(&run(&["cluster", "get", "west", "-o", "yaml"])).unwrap();
    assert_eq!(yaml, west());
    let status = gateway.moorline(&["status", "-o", "wide"]);
    assert!(ok(&status).contains("NoSession"));
    assert_eq!(err(&status), "warning: west is not connected: NoSession: \n1 cluster, 0 connected; 0 sessions\n");
    assert!(run(&["version"]).ends_with("Server Version: v9.8.7\n"));
    assert_eq!(gateway.asked().len(), 10);
}

#[test]
fn a_cluster_is_described_with_what_happened_to_it() {
    let gateway = Gateway::start();
    let text = ok(&gateway.moorline(&["cluster", "describe", "west"]));
    assert!(text.starts_with("Name:         west\n"), "{text}");
    assert!(text.ends_with("  Warning  Disconnected  0s   it hung up\n"), "{text}");
    let json: Value =
        serde_json::from_str(&ok(&gateway.moorline(&["cluster", "describe", "west", "-o", "json"]))).unwrap();
    assert_eq!((&json["cluster"], &json["events"]), (&west(), &json!([lost()])));
    assert_eq!(gateway.moorline(&["cluster", "describe", "x"]).status.code(), Some(1));
}

#[test]
fn a_doctor_tells_what_a_gateway_lacks_and_who_is_missing() {
    let gateway = Gateway::start();
    let examined = gateway.moorline(&["doctor", "-o", "json"]);
    let report: Value = serde_json::from_slice(&examined.stdout).unwrap();
    assert!(examined.status.success(), "{report}");
    let verdict = |check: &str| {
        let all = report["findings"].as_array().unwrap();
        all.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("no {check}: {report}"))["verdict"]
            .clone()
    };
    for check in ["gateway-dns", "gateway-tcp", "gateway-tls", "gateway-certificate", "credential", "clock"] {
        assert_eq!(verdict(check), "OK", "{check}");
    }
    assert_eq!((verdict("authorization"), verdict("server")), (json!("WARN"), json!("SKIPPED")));
    assert_eq!(verdict("tunnel"), "SKIPPED", "nobody says where it is");
    // Its listener speaks TLS, and nothing that agents do.
    let there = format!("127.0.0.1:{}", gateway.addr.port());
    let examined = gateway.moorline(&["doctor", "--tunnel-address", &there]);
    assert_eq!(examined.status.code(), Some(1));
    let text = String::from_utf8(examined.stdout).unwrap();
    assert!(text.contains("FAIL     tunnel-tls "), "{text}");
}

#[test]
fn an_added_cluster_comes_as_a_manifest_or_as_files() {
    let gateway = Gateway::start();
    let add = |more: &[&str]| gateway.moorline(&[&["cluster", "add", "west"], more].concat());
    let added = add(&["-l", "region=eu"]);
    let manifest = ok(&added);
    let kinds: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("Namespace", "Deployment"));
    assert!(manifest.contains("managed-cluster.key: S0VZCg==") && manifest.contains("gw.example:9449"), "{manifest}");
    assert_eq!(err(&added), "managedcluster \"west\" created\n");
    assert_eq!(gateway.asked(), ["POST /v1/clusters {\"name\":\"west\",\"labels\":{\"region\":\"eu\"}}"]);

    let secret: Value = serde_saphyr::from_str(&ok(&add(&["-o", "secret", "-n", "tunnels"]))).unwrap();
    assert_eq!((&secret["kind"], &secret["metadata"]["namespace"]), (&json!("Secret"), &json!("tunnels")));
    let narrow = add(&["--user-prefix", "hub:", "--replicas", "2"]);
    let manifest = ok(&narrow);
    assert!(manifest.contains("--user-prefix=hub:") && manifest.contains("kind: PodDisruptionBudget"), "{manifest}");
    assert!(err(&narrow).contains("RBAC cannot say user hub:*"), "{}", err(&narrow));

    let dir = gateway.path("west");
    let files = ["--output-dir", dir.to_str().unwrap()];
    assert!(ok(&add(&files)).contains("written to"));
    assert_eq!(fs::read_to_string(dir.join("managed-cluster.key")).unwrap(), "KEY\n");
    let kustomize = gateway.path("kustomize");
    let kustomized = [&files[..1], &[kustomize.to_str().unwrap(), "-o", "kustomize"]].concat();
    assert!(err(&add(&kustomized)).contains("kubectl apply -k"));
    assert!(fs::read_to_string(kustomize.join("secret.yaml")).unwrap().contains("S0VZCg=="));
    gateway.asked();
    for wrong in [&files[..], &kustomized, &["-o", "kustomize"], &["-o", "secret", "--output-dir", "x"]] {
        assert_eq!(add(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(gateway.asked().is_empty(), "no key is made that would be lost");
}

#[test]
fn a_guardian_gets_what_calicos_operator_needs() {
    let gateway = Gateway::start();
    let add = |more: &[&str]| gateway.moorline(&[&["cluster", "add", "west", "--dialect", "guardian"], more].concat());
    let added = add(&[]);
    let manifest = ok(&added);
    let kinds: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "Secret", "ManagementClusterConnection"]);
    assert!(manifest.contains("managed-cluster.key: S0VZCg==") && manifest.contains("gw.example:9449"), "{manifest}");
    assert!(err(&added).contains("system:masters"), "{}", err(&added));
    assert_eq!(gateway.asked(), [r#"POST /v1/clusters {"name":"west","dialect":"guardian"}"#]);

    let dir = gateway.path("files");
    let files = add(&["--output-dir", dir.to_str().unwrap(), "--operator-namespace", "operators"]);
    assert!(ok(&files).contains("managed-cluster.key written to"), "{files:?}");
    assert!(
        err(&files).contains(&format!("GUARDIAN_CERT_PATH={} GUARDIAN_VOLTRON_URL=gw.example:9449", dir.display()))
    );
    assert_eq!(fs::read_to_string(dir.join("management-cluster.crt")).unwrap(), "CA\n");
    let asked = r#"POST /v1/clusters {"name":"west","dialect":"guardian","operatorNamespace":"operators"}"#;
    assert_eq!(gateway.asked(), [asked]);
    for wrong in [
        &["--join"][..],
        &["--image", "x"],
        &["--user-prefix", "hub:"],
        &["--deny-group", "ops"],
        &["--no-uid"],
        &["--allow-user", "dev-*"],
        &["-o", "helm"],
        &["--operator-namespace", "-"],
        &["--key", "/nowhere"],
        &["--certificate", "/nowhere"],
        &["--output-dir", dir.to_str().unwrap()],
    ] {
        let refused = add(wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}: {}", err(&refused));
    }
    for wrong in [["--operator-namespace", "x"], ["--certificate", "x"], ["--key", "x"]] {
        assert_eq!(gateway.moorline(&[&["cluster", "add", "west"], &wrong[..]].concat()).status.code(), Some(2));
    }
    assert!(gateway.asked().is_empty(), "no key is made that would be lost");
}

#[test]
fn the_key_of_a_certificate_that_is_brought_stays_here() {
    let gateway = Gateway::start();
    let now = Timestamp::from(SystemTime::now());
    let authority = Authority::generate("own", now, Duration::from_secs(60)).unwrap();
    let file = |name: &str, text: &str| {
        fs::write(gateway.path(name), text).unwrap();
        gateway.path(name).to_str().unwrap().to_owned()
    };
    let [own, other] = [(); 2].map(|()| authority.issue_user("west", &[], now, Duration::from_secs(60)).unwrap());
    let certificate = file("own.crt", &own.certificate_pem);
    let (key, others) = (file("own.key", &own.key_pem), file("other.key", &other.key_pem));
    let both = file("both.pem", &format!("{}{}", own.certificate_pem, own.key_pem.as_str()));
    let add =
        |more: &[&str]| gateway.moorline(&[&["cluster", "add", "calico", "--dialect", "guardian"], more].concat());

    let whole = add(&["--certificate", &certificate, "--key", &key, "-o", "secret"]);
    let secret: Value = serde_saphyr::from_str(&ok(&whole)).unwrap();
    assert_eq!(secret["data"].as_object().unwrap().len(), 3);
    let asked = gateway.asked().concat();
    assert!(asked.contains("BEGIN CERTIFICATE") && !asked.contains("PRIVATE KEY"), "{asked}");
    let bare = add(&["--certificate", &certificate]);
    let manifest = ok(&bare);
    assert!(manifest.contains("management-cluster.crt") && !manifest.contains("managed-cluster.crt"), "{manifest}");
    assert!(err(&bare).contains("kubectl create secret generic"), "{}", err(&bare));
    let dir = gateway.path("own");
    let files = add(&["--certificate", &certificate, "--key", &key, "--output-dir", dir.to_str().unwrap()]);
    assert!(ok(&files).contains("managed-cluster.key written to"));
    assert_eq!(fs::read_to_string(dir.join("managed-cluster.key")).unwrap(), own.key_pem.as_str());

    gateway.asked();
    for (certificate, key, why) in
        [(&certificate, &others, "is not the key"), (&both, &key, "holds a private key"), (&key, &key, "private key")]
    {
        let refused = add(&["--certificate", certificate, "--key", key]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(err(&refused).contains(why) && !err(&refused).contains("BEGIN"), "{}", err(&refused));
    }
    assert!(gateway.asked().is_empty());
}

#[test]
fn a_registered_cluster_gets_its_manifest_once() {
    let gateway = Gateway::start();
    let manifest = gateway.moorline(&["cluster", "manifest", "west"]);
    assert!(ok(&manifest).contains("managed-cluster.key: S0VZCg=="));
    assert_eq!(gateway.asked(), ["GET /v1/clusters/west ", "POST /v1/clusters/west/enrolment null"]);
    let calico = ok(&gateway.moorline(&["cluster", "manifest", "calico", "--allow-group", "dev"]));
    assert!(
        calico.contains("namespace: operators") && calico.contains("kind: ManagementClusterConnection"),
        "{calico}"
    );
    assert!(calico.contains("- dev\n"), "{calico}");
    gateway.asked();
    assert_eq!(gateway.moorline(&["cluster", "manifest", "calico", "--image", "x"]).status.code(), Some(2));
    assert_eq!(gateway.asked(), ["GET /v1/clusters/calico "], "no key is made that would be lost");
    let again = gateway.moorline(&["cluster", "manifest", "east"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("Error from server (Conflict): east has a certificate already"), "{}", err(&again));
}

#[test]
fn a_cluster_migrates_to_the_other_dialect_and_back() {
    let gateway = Gateway::start();
    let migrate = |args: &[&str]| gateway.moorline(&[&["cluster", "migrate"], args].concat());
    let there = migrate(&["west"]);
    assert!(
        ok(&there).contains("kind: ManagementClusterConnection\n") && err(&there).contains("go on until"),
        "{there:?}"
    );
    let asked = ["GET /v1/clusters/west ", r#"POST /v1/clusters/west/migration {"dialect":"guardian"}"#];
    assert_eq!(gateway.asked(), asked);
    let back = migrate(&["calico", "--replicas", "2"]);
    assert!(ok(&back).contains("kind: Deployment\n"), "{back:?}");
    assert_eq!(gateway.asked()[1], r#"POST /v1/clusters/calico/migration {"dialect":"moorline"}"#);
    let fresh = migrate(&["calico", "--dialect", "guardian", "-o", "secret", "--operator-namespace", "other"]);
    let secret: Value = serde_saphyr::from_str(&ok(&fresh)).unwrap();
    assert_eq!(
        (secret["metadata"]["namespace"].as_str(), secret["data"].as_object().unwrap().len()),
        (Some("other"), 3)
    );
    let body = r#"{"dialect":"guardian","operatorNamespace":"other"}"#;
    assert_eq!(gateway.asked()[1], format!("POST /v1/clusters/calico/migration {body}"));
    for wrong in [&["west", "--replicas", "2"][..], &["west", "-o", "files"], &["calico", "--operator-namespace", "x"]]
    {
        assert_eq!(migrate(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(gateway.asked().iter().all(|asked| asked.starts_with("GET ")), "no key is made that would be lost");
}

#[test]
fn deletion_goes_on_past_what_is_not_there() {
    let gateway = Gateway::start();
    let deleted = gateway.moorline(&["cluster", "delete", "x", "west"]);
    assert_eq!(deleted.status.code(), Some(1));
    assert_eq!(String::from_utf8(deleted.stdout.clone()).unwrap(), "managedcluster \"west\" deleted\n");
    assert_eq!(err(&deleted), "Error from server (NotFound): managedclusters.moorline.io \"x\" not found\n");
}

#[test]
fn a_context_is_written_only_for_a_cluster_that_is_there() {
    let gateway = Gateway::start();
    let file = gateway.path("config");
    let args = |name| ["kubeconfig", name, "--kubeconfig", file.to_str().unwrap()].map(str::to_owned);
    let run = |name| gateway.moorline(&args(name).each_ref().map(String::as_str));
    assert_eq!(run("x").status.code(), Some(1));
    assert!(!Path::new(&file).exists());
    assert_eq!(ok(&run("west")), format!("context \"moorline-west\" written to {}\n", file.display()));
    let config: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], format!("https://{}/clusters/west", gateway.addr));
    assert_eq!(config["users"][0]["user"]["token"], TOKEN);
    let default = gateway.moorline(&["kubeconfig", "west"]);
    assert!(ok(&default).contains(&format!("{}", gateway.path(".kube/config").display())));
}

#[test]
fn strangers_are_told_what_is_wrong() {
    let gateway = Gateway::start();
    fs::write(gateway.path("token"), "wrong").unwrap();
    let refused = gateway.moorline(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).starts_with("Error from server (Unauthorized): Unauthorized\nhint: "), "{}", err(&refused));

    let other = Authority::generate("other", Timestamp::from(SystemTime::now()), Duration::from_secs(60)).unwrap();
    fs::write(gateway.path("ca.crt"), other.certificate_pem()).unwrap();
    gateway.asked();
    let refused = gateway.moorline(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("--certificate-authority"), "{}", err(&refused));
    assert!(gateway.asked().is_empty(), "no token was shown to a stranger");
}

#[test]
fn a_token_is_shown_once_and_alone_or_written_into_a_kubeconfig() {
    let gateway = Gateway::start();
    let added = gateway.moorline(&["user", "add", "a/nn", "-g", "dev", "--group", "ops", "--uid", "7"]);
    assert_eq!(ok(&added), "n3w\n");
    assert!(err(&added).starts_with("user \"a/nn\" created\n") && !err(&added).contains("n3w"), "{}", err(&added));
    assert_eq!(gateway.asked(), [r#"POST /v1/users {"name":"a/nn","uid":"7","groups":["dev","ops"]}"#]);
    let json: Value = serde_json::from_str(&ok(&gateway.moorline(&["user", "add", "a/nn", "-o", "json"]))).unwrap();
    assert_eq!(json, json!({"user": ann(), "token": "n3w"}));
    let there = gateway.moorline(&["user", "add", "bob"]);
    assert_eq!(there.status.code(), Some(1));
    assert_eq!(err(&there), "Error from server (AlreadyExists): bob already exists\n");

    gateway.asked();
    let file = gateway.path("ann.yaml");
    let to_file = |cluster| ["user", "add", "a/nn", "--write-kubeconfig", file.to_str().unwrap(), "--cluster", cluster];
    assert_eq!(gateway.moorline(&to_file("x")).status.code(), Some(1));
    assert_eq!(gateway.asked(), ["GET /v1/clusters/x "], "no token is made that would be lost");
    let written = gateway.moorline(&to_file("west"));
    assert_eq!(ok(&written), format!("kubeconfig with their token written to {}\n", file.display()));
    assert!(!err(&written).contains("n3w"));
    let config: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(
        (&config["users"][0]["user"]["token"], &config["current-context"]),
        (&json!("n3w"), &json!("moorline-west"))
    );
    gateway.asked();
    assert_eq!(gateway.moorline(&to_file("west")).status.code(), Some(2));
    assert!(gateway.asked().is_empty(), "no token is made that would be lost");
}

#[test]
fn users_are_listed_and_revoked_by_name_or_token() {
    let gateway = Gateway::start();
    let run = |args: &[&str]| ok(&gateway.moorline(args));
    let table = "NAME   GROUPS    UID      TOKEN-ID\na/nn   dev,ops   <none>   0123456789ab\n";
    assert_eq!(run(&["user", "list"]), table);
    assert_eq!(run(&["users", "ls", "-o", "name"]), "user.moorline.io/a/nn\n");
    let revoked = "user \"a/nn\" revoked (token 0123456789ab)\n";
    assert_eq!(run(&["user", "revoke", "a/nn"]), revoked);
    gateway.asked();
    assert_eq!(run(&["user", "revoke", "--token-id", "0123456789ab"]), revoked);
    assert_eq!(gateway.asked(), ["GET /v1/users ", "DELETE /v1/users/a%2Fnn?tokenId=0123456789ab "]);
    let unknown = gateway.moorline(&["user", "revoke", "--token-id", "ffffffffffff"]);
    assert_eq!(unknown.status.code(), Some(1));
    let both = gateway.moorline(&["user", "revoke", "x", "a/nn"]);
    assert_eq!((both.status.code(), String::from_utf8(both.stdout.clone()).unwrap()), (Some(1), revoked.to_owned()));
    assert!(err(&both).starts_with("Error from server (NotFound)"), "{}", err(&both));
    assert_eq!(gateway.moorline(&["user", "revoke"]).status.code(), Some(2));
}

#[test]
fn can_i_answers_as_kubectl_does_and_names_the_rule() {
    let gateway = Gateway::start();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let yes = gateway.moorline(&["auth", "can-i", "get", "managedclusters", "west"]);
    assert_eq!((yes.status.code(), text(&yes.stdout).as_str()), (Some(0), "yes\n"), "{yes:?}");
    assert_eq!(
        text(&yes.stderr),
        "User \"ann\" in groups dev: get managedclusters.moorline.io \"west\": allowed by ClusterRole reach via \
         ClusterRoleBinding devs\n"
    );
    let asked = gateway.asked();
    assert_eq!(asked, [r#"POST /v1/accessreviews {"verb":"get","resource":"managedclusters","name":"west"}"#]);
    let no =
        gateway.moorline(&["auth", "can-i", "delete", "managedclusters.other.io", "east", "--as=eve", "--as-group=x"]);
    assert_eq!((no.status.code(), text(&no.stdout).as_str()), (Some(1), "no\n"), "{no:?}");
    assert!(text(&no.stderr).ends_with("\"east\": no rule allows it\n"), "{no:?}");
    assert_eq!(gateway.moorline(&["auth", "can-i", "get", "/", "--as-uid", "7"]).status.code(), Some(2));
    let quiet = gateway.moorline(&["auth", "can-i", "get", "/metrics", "--quiet"]);
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(1), 0, 0), "{quiet:?}");
    let wrong = gateway.moorline(&["auth", "can-i", "get", "/metrics", "name"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

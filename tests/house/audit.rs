//! The audit trail of a whole house: posted to a webhook over TLS, ruled by a policy that changes, and in the way of
//! requests where that is asked for.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{GatewayAcceptor, KeyPair};
use moorline_server::{RawAudit, RawConfig};
use moorline_testkit::client::LIMIT;
use moorline_testkit::house::Server;
use moorline_testkit::upstream::Upstream;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::people::until;

const HOUR: Duration = Duration::from_secs(3600);

/// What a webhook was posted, and what it answers.
pub(super) struct Receiver {
    pub(super) posted: Arc<Mutex<Vec<Value>>>,
    code: Arc<Mutex<StatusCode>>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Serves over TLS; writes a kubeconfig for it to `kubeconfig`.
    pub(super) async fn start(kubeconfig: &Path) -> Self {
        let authority = Authority::generate("webhook", std::time::SystemTime::now().into(), HOUR).unwrap();
        let names = [SubjectName::from_host("127.0.0.1")];
        let issued = authority.issue_server(&names, std::time::SystemTime::now().into(), HOUR).unwrap();
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let acceptor = Arc::new(GatewayAcceptor::new(keys, None).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority_file = kubeconfig.with_extension("crt");
        std::fs::write(&authority_file, authority.certificate_pem()).unwrap();
        let (address, file) = (listener.local_addr().unwrap(), authority_file.display());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             users: [{{name: u, user: {{token: the-webhook-token}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://{address}/audit', certificate-authority: '{file}'}}}}]\n"
        );
        std::fs::write(kubeconfig, text).unwrap();
        let (posted, code) = (Arc::default(), Arc::new(Mutex::new(StatusCode::OK)));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, acceptor, Arc::clone(&posted), Arc::clone(&code)));
        Self { posted, code, _serving: serving }
    }

    pub(super) fn answers(&self, code: StatusCode) {
        *self.code.lock().unwrap() = code;
    }

    /// The completed events so far, by their URI.
    fn uris(&self) -> Vec<String> {
        let posted = self.posted.lock().unwrap();
        let events = posted.iter().flat_map(|list| list["items"].as_array().unwrap());
        let completed = events.filter(|event| event["stage"] == "ResponseComplete");
        completed.map(|event| event["requestURI"].as_str().unwrap().to_owned()).collect()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: Arc<GatewayAcceptor>,
    posted: Arc<Mutex<Vec<Value>>>,
    code: Arc<Mutex<StatusCode>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _from) = listener.accept().await.unwrap();
        let (acceptor, posted, code) = (Arc::clone(&acceptor), Arc::clone(&posted), Arc::clone(&code));
        connections.spawn(async move {
            let (stream, _nobody) = acceptor.accept(socket, LIMIT).await.unwrap();
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let (posted, code) = (Arc::clone(&posted), *code.lock().unwrap());
                async move {
                    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/audit"));
                    assert_eq!(request.headers()["authorization"], "Bearer the-webhook-token");
                    let body = request.into_body().collect().await?.to_bytes();
                    if code.is_success() {
                        posted.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                    }
                    let mut response = Response::new(Full::new(Bytes::new()));
                    *response.status_mut() = code;
                    Ok::<_, hyper::Error>(response)
                }
            });
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn audited(raw: &mut RawConfig, kubeconfig: &Path, mode: &str) {
    raw.audit = RawAudit {
        audit_log_path: Some("off".into()),
        audit_webhook_config_file: Some(kubeconfig.to_owned()),
        audit_webhook_mode: Some(mode.to_owned()),
        audit_webhook_batch_max_wait: Some("100ms".to_owned()),
        audit_webhook_initial_backoff: Some("1s".to_owned()),
        ..RawAudit::default()
    };
}

#[tokio::test]
async fn a_webhook_gets_every_event_also_after_it_was_down_and_at_the_end() {
    let files = tempfile::tempdir().unwrap();
    let kubeconfig = files.path().join("webhook");
    let receiver = Receiver::start(&kubeconfig).await;
    let server = Server::start_with(|raw| audited(raw, &kubeconfig, "batch")).await.unwrap();
    let user = server.admin_client().unwrap();
    let mut expected = Vec::new();
    let mut ask = async |path: String| {
        user.get(&path).await.unwrap();
        expected.push(path);
    };
    for number in 0..10 {
        ask(format!("/v1/clusters/up-{number}")).await;
    }
    until("posted", async || receiver.uris().len() == 10).await;
    receiver.answers(StatusCode::SERVICE_UNAVAILABLE);
    for number in 0..10 {
        ask(format!("/v1/clusters/down-{number}")).await;
    }
    until("failed", async || server.metric("moorline_audit_errors_total", &["webhook"]).await.unwrap() > 0.0).await;
    receiver.answers(StatusCode::OK);
    until("posted again", async || receiver.uris().len() == 20).await;
    for number in 0..10 {
        ask(format!("/v1/clusters/last-{number}")).await;
    }
    let (_outcome, directory) = server.ended().await.unwrap();
    assert_eq!(receiver.uris(), expected);
    assert!(!directory.path().join("audit.log").exists());
}

#[tokio::test]
async fn in_blocking_mode_nothing_goes_on_that_a_webhook_does_not_take() {
    let files = tempfile::tempdir().unwrap();
    let kubeconfig = files.path().join("webhook");
    let receiver = Receiver::start(&kubeconfig).await;
    let server = Server::start_with(|raw| audited(raw, &kubeconfig, "blocking")).await.unwrap();
    let upstream = Upstream::start().await.unwrap();
    let _agent = server.agent("east", &upstream.url()).await.unwrap();
    let user = server.admin_client().unwrap();
    assert_eq!(user.get("/clusters/east/first").await.unwrap().code, StatusCode::OK);
    receiver.answers(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = user.get("/clusters/east/second").await.unwrap();
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.body.contains("cannot be recorded") && answer.headers.contains_key("retry-after"),
        "{}",
        answer.body
    );
    assert!(upstream.seen("/second").is_empty(), "it went no further");
    receiver.answers(StatusCode::OK);
    until("goes on", async || user.get("/clusters/east/third").await.unwrap().code == StatusCode::OK).await;
    assert_eq!(upstream.seen("/first").len(), 1);
    drop(server.ended().await.unwrap());
    assert!(receiver.uris().contains(&"/clusters/east/third".to_owned()));
}

#[tokio::test]
async fn a_policy_decides_what_is_written_and_a_broken_one_changes_nothing() {
    let files = tempfile::tempdir().unwrap();
    let policy = files.path().join("policy.yaml");
    let write = |rules: &str| {
        std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n")).unwrap();
    };
    write("- {level: None, nonResourceURLs: [/v1/version]}\n- {level: Metadata, omitStages: [RequestReceived]}");
    let log = files.path().join("audit.log");
    let server = Server::start_with(|raw| {
        raw.reload_interval = Some("50ms".to_owned());
        raw.audit.audit_policy_file = Some(policy.clone());
        raw.audit.audit_log_path = Some(log.clone());
    })
    .await
    .unwrap();
    let user = server.admin_client().unwrap();
    let written = || std::fs::read_to_string(&log).unwrap();
    let ask = async |path: &str| drop(user.get(path).await.unwrap());
    ask("/v1/version").await;
    ask("/v1/clusters/first").await;
    until("written", async || written().contains("/v1/clusters/first")).await;
    assert!(!written().contains("/v1/version"));
    let reloads = async |outcome: &str| server.metric("moorline_reloads_total", &[outcome]).await.unwrap();
    write("- {level: Everything}");
    until("refused", async || reloads("refused").await > 0.0).await;
    ask("/v1/clusters/second").await;
    until("written", async || written().contains("/v1/clusters/second")).await;
    write("- {level: Metadata, nonResourceURLs: [/v1/version]}");
    until("reloaded", async || reloads("changed").await > 0.0).await;
    ask("/v1/clusters/third").await;
    ask("/v1/version").await;
    until("written", async || written().contains("/v1/version")).await;
    assert!(!written().contains("/v1/clusters/third"));
    drop(server.ended().await.unwrap());
}

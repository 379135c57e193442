//! An issuer that answers by script over real TLS, and a gateway on the same port that takes its newest token.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use moorline_ca::{Authority, SubjectName};
use moorline_model::Timestamp;
use moorline_mtls::{GatewayAcceptor, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

pub(crate) type Form = BTreeMap<String, String>;

const PATIENCE: Duration = Duration::from_secs(10);

/// What it is to say, and what it was asked.
#[derive(Default)]
pub(crate) struct Script {
    /// What the browser was shown, by the code that it brings back: the challenge, and the nonce for the token.
    pub(crate) codes: BTreeMap<String, (String, String)>,
    /// Errors that come before the tokens of a device.
    pub(crate) before_device: VecDeque<&'static str>,
    /// How long its tokens last.
    pub(crate) life: i64,
    /// The one refresh token that is good.
    pub(crate) refresh: Option<String>,
    pub(crate) refreshes: usize,
    issued: usize,
    /// The newest ID token.
    pub(crate) token: String,
}

pub(crate) struct Issuer {
    pub(crate) url: String,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) home: tempfile::TempDir,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (now, day) = (Timestamp::from(SystemTime::now()), Duration::from_secs(24 * 60 * 60));
        let authority = Authority::generate("test", now, day).unwrap();
        fs::write(home.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        let issued = authority.issue_server(&[SubjectName::from_host("127.0.0.1")], now, day).unwrap();
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let script = Arc::new(Mutex::new(Script { life: 600, ..Script::default() }));
        let (sender, receiver) = mpsc::channel();
        let acceptor = GatewayAcceptor::new(keys, None).unwrap();
        let answers = Arc::clone(&script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(&acceptor, &answers, &sender));
        });
        Self { url: format!("https://{}", receiver.recv().unwrap()), script, home }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The program as a user of its own would run it, with the issuer named.
    pub(crate) fn moorline(&self, command: &str, more: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_moorline"));
        program.arg(command).args(["--issuer-url", &self.url, "--client-id", "us", "--issuer-certificate-authority"]);
        program.arg(self.path("ca.crt")).args(more).env_clear().env("HOME", self.home.path());
        program.env("MOORLINE_SERVER", &self.url).env("MOORLINE_CERTIFICATE_AUTHORITY", self.path("ca.crt"));
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    pub(crate) fn run(&self, command: &str, more: &[&str]) -> Output {
        let output = self.moorline(command, more).output().unwrap();
        self.check(command, &output);
        output
    }

    /// Nothing that is secret is told to a terminal, but the token to kubectl.
    pub(crate) fn check(&self, command: &str, output: &Output) {
        let script = self.script.lock().unwrap();
        let told = [output.stderr.clone(), if command == "credential" { Vec::new() } else { output.stdout.clone() }];
        let told = String::from_utf8(told.concat()).unwrap();
        for secret in [script.token.as_str(), "refresh-", "device-secret"] {
            assert!(secret.is_empty() || !told.contains(secret), "{secret} in {told}");
        }
    }

    /// The files in which tokens are kept.
    pub(crate) fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(".cache/moorline/tokens")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .collect()
    }
}

async fn serve(acceptor: &GatewayAcceptor, script: &Mutex<Script>, addr: &mpsc::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    addr.send(listener.local_addr().unwrap()).unwrap();
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        let Ok((stream, _none)) = acceptor.accept(stream, PATIENCE).await else { continue };
        let service = service_fn(|request: Request<Incoming>| async {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let form: Form = form_urlencoded::parse(&body).into_owned().collect();
            let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let (code, answer) = script.lock().unwrap().answer(&url, head.uri.path(), &form, authorization.as_deref());
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            *response.status_mut() = code.try_into().unwrap();
            Ok::<_, Infallible>(response)
        });
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }
}

impl Script {
    fn answer(&mut self, url: &str, path: &str, form: &Form, authorization: Option<&str>) -> (u16, Value) {
        match path {
            "/.well-known/openid-configuration" => {
                let endpoint = |name: &str| format!("{url}/{name}");
                let scopes = ["openid", "groups", "offline_access"];
                (
                    200,
                    json!({"issuer": url, "authorization_endpoint": endpoint("auth?tenant=1"),
                    "token_endpoint": endpoint("token"), "device_authorization_endpoint": endpoint("device"),
                    "scopes_supported": scopes}),
                )
            }
            "/device" => {
                assert_eq!(
                    (form["client_id"].as_str(), form["scope"].as_str()),
                    ("us", "openid groups offline_access")
                );
                (
                    200,
                    json!({"device_code": "device-secret", "user_code": "ABCD-EFGH", "interval": 0, "expires_in": 300,
                    "verification_uri": format!("{url}/type")}),
                )
            }
            "/token" => self.redeem(url, form),
            // The gateway.
            "/v1/clusters/west" if authorization == Some(&format!("Bearer {}", self.token)) => (200, json!({})),
            _other => (401, json!({})),
        }
    }

    fn redeem(&mut self, url: &str, form: &Form) -> (u16, Value) {
        assert_eq!(form["client_id"], "us");
        let refuse = |error: &str| (400, json!({"error": error, "error_description": "so it is"}));
        let mut nonce = None;
        match form["grant_type"].as_str() {
            "authorization_code" => {
                let Some((challenge, wanted)) = self.codes.remove(&form["code"]) else {
                    return refuse("invalid_grant");
                };
                let digest = Sha256::digest(&form["code_verifier"]);
                assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(digest), challenge);
                nonce = Some(wanted);
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                assert_eq!(form["device_code"], "device-secret");
                if let Some(error) = self.before_device.pop_front() {
                    return refuse(error);
                }
            }
            "refresh_token" => {
                self.refreshes += 1;
                if self.refresh.take().as_ref() != Some(&form["refresh_token"]) {
                    return refuse("invalid_grant");
                }
            }
            other => panic!("{other}"),
        }
        self.issued += 1;
        let expires = Timestamp::from(SystemTime::now()).unix_seconds() + self.life;
        let claims = json!({"iss": url, "aud": ["us"], "sub": "ann", "exp": expires, "nonce": nonce, "n": self.issued});
        self.token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        self.refresh = Some(format!("refresh-{}", self.issued));
        (
            200,
            json!({"access_token": "a", "token_type": "bearer", "expires_in": self.life, "id_token": self.token,
            "refresh_token": self.refresh}),
        )
    }
}

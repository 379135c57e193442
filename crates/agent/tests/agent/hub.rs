//! A scripted tunnel server: TLS and the multiplexer are real, what it says is up to the test.

use std::{fs, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use moorline_agent::RawConfig;
use moorline_ca::{Authority, SubjectName};
use moorline_model::{ClusterUid, Identity};
use moorline_mtls::{KeyPair, Roots, TunnelAcceptor};
use moorline_mux::{Handle, Role, Stream};
use moorline_wire::{
    ALPN, Decoder, HeartbeatAck, Hello, Message, SessionLimits, Welcome, encode, headers, write_identity,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use crate::bench::{PATIENCE, now, spawn, within};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// No heartbeat falls into a test with this interval.
pub(crate) const QUIET: Duration = Duration::from_secs(60);

pub(crate) struct Hub {
    listener: TcpListener,
    acceptor: TunnelAcceptor,
    files: TempDir,
}

/// A session after the agent's hello.
pub(crate) struct Session {
    pub(crate) handle: Handle,
    pub(crate) hello: Hello,
    stream: Stream,
    decoder: Decoder,
    opened: mpsc::Receiver<Stream>,
}

/// How many streams of an agent may wait for a test that looks at them.
const OPENED: usize = 4096;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

impl Hub {
    pub(crate) async fn start() -> Self {
        let authority = Authority::generate("tunnel", now(), 10 * DAY).unwrap();
        Self::trusting(&authority, &authority).await
    }

    /// A server whose certificate comes from one authority, and which believes agents of another.
    pub(crate) async fn trusting(server: &Authority, agents: &Authority) -> Self {
        let issued = server.issue_server(&[SubjectName::Dns("moorline-tunnel".to_owned())], now(), DAY).unwrap();
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let roots = Roots::from_pem(agents.certificate_pem().as_bytes()).unwrap();
        let acceptor = TunnelAcceptor::new(keys, roots, ALPN).unwrap();
        let files = tempfile::tempdir().unwrap();
        let hub = Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), acceptor, files };
        hub.install(server);
        hub
    }

    /// Another server of the same installation, at an address of its own.
    pub(crate) async fn twin(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: self.acceptor.clone(), files: tempfile::tempdir().unwrap() }
    }

    /// Writes the agent's files, its certificate from this authority.
    pub(crate) fn install(&self, authority: &Authority) {
        self.install_at(authority, now());
    }

    /// The same, issued at that time.
    pub(crate) fn install_at(&self, authority: &Authority, time: moorline_model::Timestamp) {
        let uid = ClusterUid::from_bytes([1; 16]);
        let issued = authority.issue_agent(&"prod".parse().unwrap(), &uid, time, DAY).unwrap();
        for (name, text) in [
            ("management-cluster.crt", authority.certificate_pem()),
            ("managed-cluster.crt", &issued.certificate_pem),
            ("managed-cluster.key", &issued.key_pem),
            ("token", "the-agents-token"),
        ] {
            fs::write(self.files.path().join(name), text).unwrap();
        }
    }

    /// Where the agent has that file.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.files.path().join(name)
    }

    /// The agent's files as they are now, as the data of a Secret.
    pub(crate) fn secret(&self) -> serde_json::Value {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let names = ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"];
        let data = names.map(|name| (name, STANDARD.encode(fs::read(self.files.path().join(name)).unwrap())));
        serde_json::json!({ "metadata": { "labels": { "kept": "as-it-is" } }, "type": "Opaque", "data": std::collections::BTreeMap::from(data) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// What an agent of this server is told, with this kube-apiserver.
    pub(crate) fn raw(&self, upstream: &str) -> RawConfig {
        RawConfig {
            management_cluster_addr: Some(format!("127.0.0.1:{}", self.port())),
            cert_dir: Some(self.files.path().to_owned()),
            kube_apiserver: Some(upstream.to_owned()),
            kube_token_file: Some(self.files.path().join("token")),
            admin_addr: Some("127.0.0.1:0".to_owned()),
            drain_grace: Some("10s".to_owned()),
            ..RawConfig::default()
        }
    }

    /// The next session, up to the hello.
    pub(crate) async fn hello(&self) -> Session {
        // Its TLS session is large, and many futures hold this one.
        let hearing = Box::pin(async {
            // An agent that is being repaired may try once more with what it had.
            let tls = loop {
                let (tcp, _) = self.listener.accept().await.unwrap();
                if let Ok((tls, _peer)) = self.acceptor.accept(tcp, PATIENCE).await {
                    break tls;
                }
            };
            let (handle, mut incoming, driver) = moorline_mux::session(tls, moorline_mux::Config::new(Role::Server));
            spawn(driver);
            let stream = incoming.accept().await.unwrap();
            let (found, opened) = mpsc::channel(OPENED);
            // Kept, since dropping it would refuse further streams of the agent.
            spawn(async move {
                while let Some(stream) = incoming.accept().await {
                    drop(found.send(stream).await);
                }
            });
            let mut session = Session { handle, hello: placeholder(), stream, decoder: Decoder::new(), opened };
            match session.next().await {
                Some(Message::Hello(hello)) => session.hello = hello,
                other => panic!("{other:?} instead of a hello"),
            }
            session
        });
        within(hearing).await.expect("no session in time")
    }

    /// The next session, welcomed.
    pub(crate) async fn session(&self, heartbeat: Duration) -> Session {
        let mut session = self.hello().await;
        session.welcome(heartbeat).await;
        session
    }

    /// The next handshake, whatever comes of it.
    pub(crate) async fn handshake(&self) -> Result<(), moorline_mtls::HandshakeError> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        Box::pin(self.acceptor.accept(tcp, PATIENCE)).await.map(drop)
    }
}

impl Session {
    pub(crate) async fn welcome(&mut self, heartbeat: Duration) {
        let welcome = Welcome {
            protocol: 1,
            server_version: "scripted".to_owned(),
            session_id: self.hello.session_id,
            cluster: "prod".parse().unwrap(),
            heartbeat_interval_ms: u64::try_from(heartbeat.as_millis()).unwrap(),
            limits: SessionLimits::default(),
        };
        self.say(&Message::Welcome(welcome)).await;
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        self.stream.write_all(&encode(message)).await.unwrap();
    }

    /// What no message of this version is.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message, or the end of the control stream.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            match within(self.stream.read(&mut buffer)).await.expect("no message in time") {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&buffer[..read]),
            }
        }
    }

    /// The next message that passes the filter; heartbeats are answered meanwhile.
    pub(crate) async fn find<T>(&mut self, mut wanted: impl FnMut(&Message) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the control stream ended");
            if let Message::Heartbeat(beat) = message {
                self.say(&Message::HeartbeatAck(HeartbeatAck { sequence: beat.sequence })).await;
            }
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// Reads control messages until the agent ends the stream, and then lets go of it, as a server does. Gives the
    /// reason for the session's end.
    pub(crate) async fn ended(mut self) -> moorline_mux::CloseReason {
        while self.next().await.is_some() {}
        let Self { handle, stream, .. } = self;
        drop(stream);
        within(handle.closed()).await.expect("the session does not end")
    }

    /// The next stream that the agent opened, in time.
    pub(crate) async fn opened(&mut self) -> Stream {
        within(self.opened.recv()).await.expect("the agent opened no stream in time").unwrap()
    }

    /// Whether the agent has opened a stream that nobody looked at.
    pub(crate) fn has_opened(&self) -> bool {
        !self.opened.is_empty()
    }

    /// A stream for raw bytes.
    pub(crate) async fn stream(&self) -> Stream {
        within(self.handle.open()).await.unwrap().unwrap()
    }

    /// A stream for HTTP.
    pub(crate) async fn http(&self) -> SendRequest<Body> {
        let io = TokioIo::new(self.stream().await);
        let (sender, connection) =
            hyper::client::conn::http1::Builder::new().max_buf_size(4 * 1024 * 1024).handshake(io).await.unwrap();
        spawn(connection.with_upgrades());
        sender
    }

    /// One request as `ann`, on a stream of its own.
    pub(crate) async fn get(&self, path: &str) -> Response<Incoming> {
        let mut http = self.http().await;
        within(http.send_request(request("GET", path))).await.expect("no answer in time").unwrap()
    }
}

pub(crate) fn ann() -> Identity {
    Identity::new("ann").unwrap().with_groups(["devs", "system:authenticated"]).unwrap()
}

/// A request of `ann` without a body.
pub(crate) fn request(method: &str, path: &str) -> Request<Body> {
    with_body(method, path, empty())
}

pub(crate) fn with_body(method: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "moorline")
        .header(headers::IDENTITY, write_identity(&ann()))
        .body(body)
        .unwrap()
}

pub(crate) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = within(response.into_body().collect()).await.expect("no full body in time").unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn placeholder() -> Hello {
    Hello {
        protocol_min: 0,
        protocol_max: 0,
        agent_version: String::new(),
        session_id: moorline_model::SessionId::from_bytes([0; 16]),
        cluster_uid: None,
        kubernetes_version: None,
        capabilities: Vec::new(),
        cluster: None,
        roots: Vec::new(),
    }
}

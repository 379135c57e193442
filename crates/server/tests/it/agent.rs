//! A scripted agent: says what a test tells it to, answers heartbeats only when asked to, serves canned responses.

use std::net::SocketAddr;

use moorline_api::Enrolment;
use moorline_ca::Issued;
use moorline_mtls::{ClientStream, Connector, HandshakeError, KeyPair, Roots, explain_io};
use moorline_mux::{CloseReason as MuxReason, Config, Handle, Incoming, Role, Stream};
use moorline_wire::{
    AgentStatus, Decoder, GoAway, HeartbeatAck, Hello, Message, PROTOCOL_VERSION, Refused, Welcome, encode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::house::{House, LIMIT};

/// What an agent has in its certificate directory.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl From<&Enrolment> for Credentials {
    fn from(enrolment: &Enrolment) -> Self {
        Self {
            authority: enrolment.management_cluster_crt.clone(),
            certificate: enrolment.managed_cluster_crt.clone(),
            key: enrolment.managed_cluster_key.expose().to_owned(),
        }
    }
}

impl Credentials {
    /// The same server, another certificate.
    pub(crate) fn with(&self, issued: &Issued) -> Self {
        Self { certificate: issued.certificate_pem.clone(), key: issued.key_pem.to_string(), ..self.clone() }
    }
}

/// The agent's end of a session, after the TLS handshake.
pub(crate) struct Agent {
    pub(crate) handle: Handle,
    pub(crate) incoming: Incoming,
    pub(crate) driver: JoinHandle<MuxReason>,
    stream: Stream,
    decoder: Decoder,
}

impl Agent {
    /// Dials and opens the control stream.
    pub(crate) async fn dial(house: &House, credentials: &Credentials) -> Self {
        Self::dial_to(house.tunnel, credentials).await
    }

    async fn dial_to(tunnel: SocketAddr, credentials: &Credentials) -> Self {
        let tls = connect(tunnel, credentials).await;
        let (handle, incoming, driver) = moorline_mux::session(tls, Config::new(Role::Client));
        let driver = tokio::spawn(driver);
        let stream = handle.open().await.unwrap();
        Self { handle, incoming, driver, stream, decoder: Decoder::new() }
    }

    /// Dials, says hello, is welcome.
    pub(crate) async fn connect(house: &House, credentials: &Credentials) -> Self {
        Self::connect_to(house.tunnel, credentials).await
    }

    /// As [`Agent::connect`], to a server that runs elsewhere.
    pub(crate) async fn connect_to(tunnel: SocketAddr, credentials: &Credentials) -> Self {
        let mut agent = Self::dial_to(tunnel, credentials).await;
        agent.say(&Message::Hello(hello(None))).await;
        agent.welcome().await;
        agent
    }

    /// As [`Agent::connect`], and it says that it answers probes.
    pub(crate) async fn connect_probed(house: &House, credentials: &Credentials) -> Self {
        let mut agent = Self::dial(house, credentials).await;
        let capabilities = vec![moorline_wire::probe::CAPABILITY.to_owned()];
        agent.say(&Message::Hello(Hello { capabilities, ..hello(None) })).await;
        agent.welcome().await;
        agent
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        self.stream.write_all(&encode(message)).await.unwrap();
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; none at the end of the stream.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        let mut buffer = [0; 1024];
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let read = tokio::time::timeout(LIMIT, self.stream.read(&mut buffer)).await.expect("a message");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            Some(Message::Welcome(welcome)) => welcome,
            other => panic!("expected a welcome, got {other:?}; the session: {:?}", self.handle),
        }
    }

    pub(crate) async fn refused(&mut self) -> Refused {
        match self.hear().await {
            Some(Message::Refused(refused)) => refused,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// The next go-away; answers heartbeats meanwhile.
    pub(crate) async fn go_away(&mut self) -> GoAway {
        loop {
            let message = self.hear().await.expect("a go-away before the end");
            if let Message::GoAway(go_away) = message {
                return go_away;
            }
            if let Message::Heartbeat(beat) = message {
                self.acknowledge(beat.sequence).await;
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, sequence: u64) {
        // The server may be gone by now.
        drop(self.stream.write_all(&encode(&Message::HeartbeatAck(HeartbeatAck { sequence }))).await);
    }

    pub(crate) async fn say_healthy(&mut self) {
        self.say(&Message::Status(AgentStatus {
            upstream_ok: true,
            upstream_reason: None,
            kubernetes_version: Some("v1.35.0".to_owned()),
            cluster_uid: None,
        }))
        .await;
    }

    /// Lives from now on: answers heartbeats, and every request with `text`. Ends with the session.
    pub(crate) fn live(mut self, text: &'static str) -> Alive {
        let mut incoming = std::mem::replace(&mut self.incoming, dead_incoming());
        let serving = tokio::spawn(async move {
            while let Some(stream) = incoming.accept().await {
                tokio::spawn(serve(stream, text));
            }
        });
        let handle = self.handle.clone();
        let beating = tokio::spawn(async move {
            let mut said = Vec::new();
            while let Some(message) = self.hear().await {
                if let Message::Heartbeat(beat) = &message {
                    self.acknowledge(beat.sequence).await;
                } else {
                    said.push(message);
                }
            }
            (said, self.driver.await.unwrap())
        });
        Alive { handle, beating, _serving: serving }
    }
}

/// An agent that lives on its own.
pub(crate) struct Alive {
    pub(crate) handle: Handle,
    beating: JoinHandle<(Vec<Message>, MuxReason)>,
    _serving: JoinHandle<()>,
}

impl Alive {
    /// Waits for the end of the session: what the server said besides heartbeats, and how it ended.
    pub(crate) async fn ended(self) -> (Vec<Message>, MuxReason) {
        tokio::time::timeout(LIMIT, self.beating).await.expect("the session ends").unwrap()
    }
}

async fn connect(tunnel: SocketAddr, credentials: &Credentials) -> ClientStream<TcpStream> {
    let socket = TcpStream::connect(tunnel).await.unwrap();
    let keys = KeyPair::from_pem(credentials.certificate.as_bytes(), credentials.key.as_bytes()).unwrap();
    let roots = Roots::from_pem(credentials.authority.as_bytes()).unwrap();
    let connector = Connector::new(keys, roots, moorline_wire::ALPN);
    connector.connect(socket, "moorline-tunnel", LIMIT).await.unwrap().0
}

/// What an agent hears whose certificate TLS itself refuses: in TLS 1.3 with its first read.
pub(crate) async fn refused_by_tls(house: &House, credentials: &Credentials) -> HandshakeError {
    let mut tls = connect(house.tunnel, credentials).await;
    let read = tokio::time::timeout(LIMIT, tls.read_u8()).await.expect("a refusal");
    explain_io(&read.unwrap_err()).expect("a refusal by TLS")
}

/// The hello of a good agent, with or without a claim.
pub(crate) fn hello(cluster: Option<&str>) -> Hello {
    Hello {
        protocol_min: PROTOCOL_VERSION,
        protocol_max: PROTOCOL_VERSION,
        agent_version: "test".to_owned(),
        session_id: moorline_model::SessionId::from_bytes(rand::random()),
        cluster_uid: None,
        kubernetes_version: None,
        capabilities: Vec::new(),
        cluster: cluster.map(|name| name.parse().unwrap()),
        roots: Vec::new(),
    }
}

fn dead_incoming() -> Incoming {
    let (one, _other) = tokio::io::duplex(1);
    moorline_mux::session(one, Config::new(Role::Client)).1
}

/// Answers requests on one stream, for ever: `/watch` with a response that does not end.
async fn serve(mut stream: Stream, text: &'static str) {
    let mut head = Vec::new();
    loop {
        let mut byte = [0; 1024];
        match stream.read(&mut byte).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&byte[..count]),
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let endless = head.starts_with(b"GET /watch");
        head.clear();
        let response = if endless {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n", text.len())
        } else {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
        };
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
        if endless {
            // Until the server resets the stream.
            drop(stream.read(&mut byte).await);
            return;
        }
    }
}

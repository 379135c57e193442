//! A management side with nothing but the libraries: TLS without ALPN, our multiplexer, and pinned TLS within streams. It
//! shows what Guardian's dialect asks of `mtls` and `mux`, without the server's policy around them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_ca::{Authority, SubjectName};
use moorline_model::{ClusterName, ClusterUid, Timestamp};
use moorline_mtls::client::InnerConnector;
use moorline_mtls::{Arrived, KeyPair, PresentedPeer, Roots, TunnelAcceptor};
use moorline_mux::{CloseReason, Config, Handle, Incoming, Role, Stream};
use moorline_testkit::client::LIMIT;
use moorline_testkit::guardian::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::peer::within;

/// What the certificates of both sides are signed by, and the name that Guardian is to expect.
const NAME: &str = "moorline-tunnel";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where Guardians dial.
pub(crate) struct Management {
    listener: TcpListener,
    acceptor: TunnelAcceptor,
    files: tempfile::TempDir,
}

/// One session with a Guardian.
pub(crate) struct Session {
    pub(crate) handle: Handle,
    pub(crate) peer: PresentedPeer,
    pub(crate) version: &'static str,
    pub(crate) incoming: Incoming,
    pub(crate) driver: JoinHandle<CloseReason>,
    inner: InnerConnector,
}

/// A stream on which requests are sent.
pub(crate) type Inner = moorline_mtls::ClientStream<Stream>;

impl Management {
    pub(crate) async fn start() -> Self {
        let now = Timestamp::from(SystemTime::now());
        let authority = Authority::generate_for_server("tunnel", Some(NAME), now, DAY).unwrap();
        let door = authority.issue_server(&[SubjectName::from_host(NAME)], now, DAY).unwrap();
        let keys = KeyPair::from_pem(door.certificate_pem.as_bytes(), door.key_pem.as_bytes()).unwrap();
        let roots = Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        let acceptor = TunnelAcceptor::new(keys, roots, b"moorline/1").unwrap().with_guardian(|| true).unwrap();
        let cluster: ClusterName = "east".parse().unwrap();
        let agent = authority.issue_agent(&cluster, &ClusterUid::from_bytes([7; 16]), now, DAY).unwrap();
        let files = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("management-cluster.crt", authority.certificate_pem()),
            ("managed-cluster.crt", &agent.certificate_pem),
            ("managed-cluster.key", &agent.key_pem),
            ("token", "guardians-own-token\n"),
        ] {
            moorline_process::write_private(&files.path().join(name), text.as_bytes()).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor, files }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// What a Guardian of this side is started with.
    pub(crate) fn settings(&self, kube_apiserver: &str) -> Settings {
        Settings::new(self.address(), self.files(), kube_apiserver)
    }

    /// The next Guardian that dials.
    pub(crate) async fn session(&self) -> Session {
        let socket = self.accept().await;
        self.greet(socket).await
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> TcpStream {
        let (socket, _) = within(self.listener.accept()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// Makes a session of it.
    #[expect(clippy::disallowed_methods, reason = "tests of a library have no task tracker")]
    pub(crate) async fn greet(&self, io: TcpStream) -> Session {
        let arriving = self.acceptor.hear(io, LIMIT).await.unwrap();
        assert!(arriving.is_guardian());
        let Arrived::Guardian(stream, peer) = arriving.finish().await.unwrap() else { panic!("not as a Guardian") };
        let version = stream.tls_version();
        let inner = InnerConnector::new(peer.fingerprint()).unwrap();
        let config = Config::new(Role::Server).with_raw_go_peer().with_max_inbound_streams(1000);
        let config = config.with_accept_backlog(1000).with_read_silence(Some(Duration::from_secs(15)));
        let (handle, incoming, driver) = moorline_mux::session(stream, config.build().unwrap());
        Session { handle, peer, version, incoming, driver: tokio::spawn(driver), inner }
    }
}

impl Session {
    /// A stream for HTTP/1.1: one request, with an upgrade or without.
    pub(crate) async fn http1(&self) -> Inner {
        let stream = within(self.handle.open()).await.unwrap();
        self.inner.connect_http1(stream, LIMIT).await.unwrap()
    }

    /// A stream for HTTP/2: as many requests as wanted.
    #[expect(clippy::disallowed_methods, reason = "tests of a library have no task tracker")]
    pub(crate) async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let stream = within(self.handle.open()).await.unwrap();
        let stream = self.inner.connect_h2(stream, LIMIT).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = within(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
        // Its end shows at the sender.
        tokio::spawn(async move { drop(connection.await) });
        sender
    }
}

/// Sends the head of a request for an upgrade and gives the head of the answer. `sacrifice`: with the byte behind it that
/// Go's HTTP server reads while nobody looks.
pub(crate) async fn upgrade(stream: &mut Inner, path: &str, sacrifice: bool) -> String {
    let head = format!("POST {path} HTTP/1.1\r\nhost: cluster\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    if sacrifice {
        // A record of its own: within that of the head it would be read with the head.
        stream.write_all(b"\n").await.unwrap();
        stream.flush().await.unwrap();
    }
    until_empty_line(stream).await
}

/// The head of an answer.
pub(crate) async fn until_empty_line(stream: &mut Inner) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

//! Certificates for the tests of this directory, minted as they are asked for, and one connection to use them on.

use std::time::{Duration, SystemTime};

use moorline_ca::{Authority, Issued, SubjectName};
use moorline_model::{ClusterUid, Timestamp};
use moorline_mtls::{
    Connector, HandshakeError, KeyPair, Roots, ServerStream, TunnelAcceptor, VerifiedPeer, explain_io,
};
use tokio::io::{AsyncReadExt as _, DuplexStream};

pub(crate) const ALPN: &[u8] = b"moorline/1";
pub(crate) const SERVER_NAME: &str = "moorline-tunnel";
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A moment so many days from now, to mint certificates of another age.
pub(crate) fn days_from_now(days: i64) -> Timestamp {
    let now = Timestamp::from(SystemTime::now());
    Timestamp::from_unix_seconds(now.unix_seconds() + days * 86_400)
}

/// An authority that has been there for years, and what it signs.
pub(crate) struct World(Authority);

impl World {
    pub(crate) fn new() -> Self {
        Self(Authority::generate("test authority", days_from_now(-1_000), 3_000 * DAY).unwrap())
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.0.certificate_pem().as_bytes()).unwrap()
    }

    pub(crate) fn roots_pem(&self) -> String {
        self.0.certificate_pem().to_owned()
    }

    pub(crate) fn server(&self) -> KeyPair {
        self.server_at(days_from_now(0), &[SERVER_NAME, "127.0.0.1"])
    }

    pub(crate) fn server_at(&self, now: Timestamp, names: &[&str]) -> KeyPair {
        let names: Vec<_> = names.iter().copied().map(SubjectName::from_host).collect();
        pair(&self.0.issue_server(&names, now, 2 * DAY).unwrap())
    }

    pub(crate) fn issue_server_pem(&self) -> Issued {
        self.0.issue_server(&[SubjectName::from_host(SERVER_NAME)], days_from_now(0), DAY).unwrap()
    }

    pub(crate) fn agent(&self) -> KeyPair {
        self.agent_at(days_from_now(0))
    }

    pub(crate) fn agent_at(&self, now: Timestamp) -> KeyPair {
        pair(&self.issue_agent(now))
    }

    pub(crate) fn issue_agent(&self, now: Timestamp) -> Issued {
        let uid = ClusterUid::from_bytes([1; 16]);
        self.0.issue_agent(&"east".parse().unwrap(), &uid, now, 2 * DAY).unwrap()
    }

    pub(crate) fn user(&self, name: &str, group: &str) -> KeyPair {
        pair(&self.0.issue_user(name, &[group.to_owned()], days_from_now(0), DAY).unwrap())
    }

    pub(crate) fn acceptor(&self) -> TunnelAcceptor {
        TunnelAcceptor::new(self.server(), self.roots(), ALPN).unwrap()
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new(self.agent(), self.roots(), ALPN)
    }
}

pub(crate) fn pair(issued: &Issued) -> KeyPair {
    KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

pub(crate) fn link() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 * 1024)
}

type Accepted = Result<(ServerStream<DuplexStream>, VerifiedPeer), HandshakeError>;

/// Lets the two meet. The client's side is what it knows after its handshake *and* its first read.
pub(crate) async fn meet(acceptor: &TunnelAcceptor, connector: &Connector) -> (Accepted, Result<(), HandshakeError>) {
    let (near, far) = link();
    let client = async {
        let (mut stream, _peer) = connector.connect(near, SERVER_NAME, LIMIT).await?;
        first_read(&mut stream).await
    };
    let server = async {
        let accepted = acceptor.accept(far, LIMIT).await;
        if let Ok((mut stream, peer)) = accepted {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"!").await.unwrap();
            tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
            return Ok((stream, peer));
        }
        accepted
    };
    tokio::join!(server, client)
}

/// What the first read says of the handshake: in TLS 1.3 that is where a client hears of its refusal.
pub(crate) async fn first_read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<(), HandshakeError> {
    match stream.read_u8().await {
        Ok(_byte) => Ok(()),
        Err(error) => Err(explain_io(&error).unwrap_or_else(|| panic!("unexplained: {error:?}"))),
    }
}

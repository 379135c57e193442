//! TCP as the agent uses it: resolve anew, try every address, set the options that find a dead peer; and for those who
//! connect to the agent, listen and set the same.
//!
//! Called by the dialler of the tunnel, by the connections to the kube-apiserver, and by the listeners of services.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::{net::TcpStream, time::Instant};

/// How many of a name's addresses are tried. More than any sane record holds; bounds the time of one dial.
const MAX_ADDRESSES: usize = 8;

/// The least time that one address gets, however many there are.
const LEAST_PER_ADDRESS: Duration = Duration::from_secs(1);

/// Silence before the kernel asks whether the peer still is there, and the pause between its questions.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// How long written bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Callers that the kernel holds until they are accepted, as many as it may by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Bytes that the kernel may hold unsent. More would only wait there, where no small frame can overtake a bulk transfer.
const UNSENT: u32 = 128 * 1024;

/// Why a TCP connection was not made.
#[derive(Debug, Error)]
pub(crate) enum DialTcpError {
    /// The name has no address, or the resolver did not answer.
    #[error("the name {0} does not resolve")]
    Resolve(String, #[source] io::Error),
    /// The resolver did not answer in time.
    #[error("the name {0} did not resolve within {1:?}")]
    ResolveTimeout(String, Duration),
    /// No address answered; one reason each.
    #[error("{}", describe(.0))]
    Connect(Vec<Attempt>),
}

/// One address that was tried in vain.
#[derive(Debug)]
pub(crate) struct Attempt {
    address: SocketAddr,
    error: io::Error,
}

impl Attempt {
    #[cfg(test)]
    pub(crate) fn new(address: SocketAddr, error: io::Error) -> Self {
        Self { address, error }
    }

    /// What went wrong there.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }
}

impl DialTcpError {
    /// A constant word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Resolve(..) | Self::ResolveTimeout(..) => "dns",
            Self::Connect(_) => "tcp",
        }
    }

    /// Whether silence was the reason, for every address.
    pub(crate) fn timed_out(&self) -> bool {
        match self {
            Self::Resolve(..) => false,
            Self::ResolveTimeout(..) => true,
            Self::Connect(attempts) => attempts.iter().all(|tried| tried.error.kind() == io::ErrorKind::TimedOut),
        }
    }
}

/// Connects to the first address of `host` that answers. `limit` is for resolving, and again for connecting.
pub(crate) async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, DialTcpError> {
    connect(resolve(host, port, limit).await?, limit).await
}

/// Connects to the first of these that answers, each having its share of what is left of `limit`.
async fn connect(addresses: Vec<SocketAddr>, limit: Duration) -> Result<TcpStream, DialTcpError> {
    let deadline = Instant::now() + limit;
    let mut attempts = Vec::new();
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    for address in addresses {
        let share = (deadline.saturating_duration_since(Instant::now()) / left.max(1)).max(LEAST_PER_ADDRESS);
        left = left.saturating_sub(1);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match configure(&stream) {
                Ok(()) => return Ok(stream),
                Err(error) => attempts.push(Attempt { address, error }),
            },
            Ok(Err(error)) => attempts.push(Attempt { address, error }),
            Err(_elapsed) => attempts.push(Attempt { address, error: io::ErrorKind::TimedOut.into() }),
        }
    }
    Err(DialTcpError::Connect(attempts))
}

/// A listener whose connections are accepted without waiting.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As the standard library does: an address is free as soon as nobody listens there.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What is set on an accepted connection. No `TCP_USER_TIMEOUT`: the kernel takes a caller who does not read for one who
/// does not acknowledge.
pub(crate) fn configure_accepted(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, retries) = KEEPALIVE;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// The other side is to see a failure when this is closed, not an end.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a broken connection is closed in order");
    }
}

async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, DialTcpError> {
    let found = tokio::time::timeout(limit, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => return Err(DialTcpError::Resolve(host.to_owned(), error)),
        Err(_elapsed) => return Err(DialTcpError::ResolveTimeout(host.to_owned(), limit)),
    };
    if addresses.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "no address");
        return Err(DialTcpError::Resolve(host.to_owned(), none));
    }
    Ok(addresses)
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    configure_accepted(stream)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn describe(attempts: &[Attempt]) -> String {
    let each: Vec<_> = attempts.iter().map(|tried| format!("{}: {}", tried.address, tried.error)).collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use moorline_testkit::Refusing;

    use super::*;

    #[tokio::test]
    async fn a_refused_address_is_named() {
        let nobody = Refusing::bind().unwrap();
        let error = dial("127.0.0.1", nobody.address().port(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains(&nobody.address().to_string()), "{error}");
        assert!(!error.timed_out());
        assert_eq!(error.label(), "tcp");
    }

    #[tokio::test]
    async fn f23_every_address_is_tried() {
        // As a name's record may hold them: one where nobody listens before the one where somebody does.
        let nobody = Refusing::bind().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![nobody.address(), listener.local_addr().unwrap()];
        let stream = connect(addresses, Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert!(socket.keepalive().unwrap());
    }
}

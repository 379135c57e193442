//! A connection to a service, all of it within one limit.
//!
//! Called by `pass` and `proxy`. Names are looked up for each connection, so that a service that moved is found, by a few
//! threads at most: a resolver that does not answer keeps nobody else waiting for the disk.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::{net::TcpStream, time::Instant};

use super::catalog::Offered;
use crate::state::State;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// When the operating system asks a silent service for a sign of life, how often, and how often in vain: nothing else
/// ends a connection that is idle.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);

/// How long sent bytes may stay unacknowledged before the operating system gives the connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Why there is no connection to a service.
#[derive(Debug, Error)]
pub(super) enum DialError {
    /// Its name has no address.
    #[error("the service's name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// None of its addresses takes connections.
    #[error("the service cannot be connected to: {0}")]
    Connect(io::Error),
    /// Its TLS is not as it should be.
    #[error("no TLS with the service: {0}")]
    Tls(moorline_mtls::HandshakeError),
    /// It takes connections, and says nothing that could be HTTP.
    #[error("no HTTP with the service: {0}")]
    Http(hyper::Error),
    /// All of it took too long.
    #[error("the service could not be reached within {0:?}")]
    Timeout(Duration),
}

impl DialError {
    /// Whether it was time that ran out.
    pub(super) fn timed_out(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Tls(moorline_mtls::HandshakeError::Timeout(_)))
    }
}

/// Connects to a service until `until`.
///
/// # Errors
/// [`DialError`].
pub(super) async fn dial(state: &State, offered: &Offered, until: Instant) -> Result<TcpStream, DialError> {
    let late = || DialError::Timeout(state.services.config.dial_timeout);
    let resolving = tokio::time::timeout_at(until, resolve(state, offered)).await;
    let addresses = resolving.map_err(|_elapsed| late())??;
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut failed = None;
    for address in addresses {
        // One that swallows everything leaves time for the others.
        let share = until.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream).map_err(DialError::Connect)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = Some(DialError::Connect(error)),
            Err(_elapsed) => failed = failed.or_else(|| Some(late())),
        }
    }
    Err(failed.unwrap_or_else(|| DialError::Resolve(io::Error::new(io::ErrorKind::NotFound, "no address"))))
}

async fn resolve(state: &State, offered: &Offered) -> Result<Vec<SocketAddr>, DialError> {
    let (host, port) = (&offered.service.upstream.host, offered.service.upstream.port);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let closed = || DialError::Resolve(io::Error::other("this server is about to stop"));
    let own = Arc::clone(&offered.lookups).acquire_owned().await.map_err(|_closed| closed())?;
    let turn = Arc::clone(&state.services.lookups).acquire_owned().await.map_err(|_closed| closed())?;
    let host = host.clone();
    let looking = state.tasks.spawn_blocking("service-lookup", move || {
        // The turns last as long as the thread is busy, which a caller that gives up does not change.
        let _turns = (own, turn);
        (host.as_str(), port).to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect::<Vec<_>>())
    });
    looking.await.map_err(|_panicked| closed())?.map_err(DialError::Resolve)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

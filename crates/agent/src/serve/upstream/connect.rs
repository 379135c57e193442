//! One connection to the kube-apiserver: name, TCP, TLS, each with its deadline.
//!
//! Called by the pool. The target comes from the configuration and never from a request.

use std::{fmt, time::Duration};

use http::HeaderValue;
use moorline_mtls::{ClientStream, HandshakeError, HttpsConnector};
use moorline_wire::Failure;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::either::Either;

use crate::{
    socket::{self, DialTcpError},
    tunnel::authority,
};

/// How long resolving the name and connecting may take together. It is a neighbour: what takes longer is down.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the TLS handshake may take.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes to and from the kube-apiserver, plain only towards loopback.
pub(crate) type Io = Either<TcpStream, ClientStream<TcpStream>>;

/// Where the kube-apiserver is and how its word is believed.
#[derive(Clone)]
pub(crate) struct Target {
    /// Name or address.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// TLS, with the agent's client certificate if it has one; `None` is plain HTTP, which the configuration allows
    /// towards loopback only.
    pub(crate) tls: Option<Tls>,
}

/// TLS towards the kube-apiserver.
#[derive(Clone)]
pub(crate) struct Tls {
    /// Verifies the kube-apiserver and proves who the agent is.
    pub(crate) connector: HttpsConnector,
    /// The name that the kube-apiserver's certificate must carry.
    pub(crate) server_name: String,
}

/// Why there is no connection to the kube-apiserver.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// Name or TCP.
    #[error("cannot reach the kube-apiserver at {0}")]
    Tcp(String, #[source] DialTcpError),
    /// TLS.
    #[error("TLS with the kube-apiserver at {0} failed")]
    Tls(String, #[source] HandshakeError),
    /// The connection was closed before anything was sent over it.
    #[error("the kube-apiserver at {0} closed a new connection at once")]
    ClosedAtOnce(String),
    /// HTTP could not be set up on the connection.
    #[error("HTTP cannot be spoken on the connection")]
    Setup(#[source] hyper::Error),
}

impl ConnectError {
    /// What the other end of the tunnel is told.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Tcp(_, error) if error.timed_out() => Failure::UpstreamTimeout,
            Self::Tcp(..) | Self::ClosedAtOnce(_) => Failure::UpstreamRefused,
            Self::Tls(..) => Failure::UpstreamTls,
            Self::Setup(_) => Failure::UpstreamBroken,
        }
    }

    /// A constant word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Tcp(_, error) => error.label(),
            Self::Tls(..) => "tls",
            Self::ClosedAtOnce(_) => "closed",
            Self::Setup(_) => "http",
        }
    }
}

impl Target {
    /// The `Host` header for requests.
    pub(super) fn host_header(&self) -> HeaderValue {
        // The configuration has checked that host and port form an authority.
        HeaderValue::try_from(authority(&self.host, self.port)).unwrap_or(HeaderValue::from_static("kubernetes"))
    }

    pub(super) async fn connect(&self) -> Result<Io, ConnectError> {
        let tcp = socket::dial(&self.host, self.port, CONNECT_TIMEOUT)
            .await
            .map_err(|error| ConnectError::Tcp(self.to_string(), error))?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(tcp)) };
        let stream = tls
            .connector
            .connect(tcp, &tls.server_name, TLS_TIMEOUT)
            .await
            .map_err(|error| ConnectError::Tls(self.to_string(), error))?;
        Ok(Either::Right(stream))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

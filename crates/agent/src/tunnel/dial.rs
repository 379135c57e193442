//! The way to the server: name, TCP, proxy, TLS. Each step has its own deadline and its own error.
//!
//! Called by `session` for every attempt; the name is resolved anew each time.

use std::time::Duration;

use moorline_mtls::{ClientStream, Connector, Fault, HandshakeError, HttpsConnector, Refusal, explain_io};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::either::Either;

use super::proxy::{self, Proxy, authority};
use crate::socket::{self, DialTcpError};

/// The name that the tunnel server's certificate carries besides its public ones. It is what the agent verifies, so
/// that any address, port forwarding or load balancer in front of the server works.
pub(crate) const SERVER_NAME: &str = "moorline-tunnel";

/// For resolving the name, and again for connecting, over all addresses.
pub(crate) const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// For the proxy's answer to `CONNECT`: the proxy resolves and connects meanwhile.
pub(crate) const PROXY_TIMEOUT: Duration = Duration::from_secs(15);

/// For the TLS handshake, with the proxy and again with the server.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to refuse a certificate after the handshake: a round trip, with room.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes to the server or to the proxy.
pub(crate) type Leg = Either<TcpStream, ClientStream<TcpStream>>;

/// Bytes to the server, encrypted.
pub(super) type Io = ClientStream<Leg>;

/// Where the server is and how to get there.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Name or address of the tunnel server, as the operator wrote it.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// The proxy in between, with what verifies it if it is an `https://` one.
    pub(crate) proxy: Option<(Proxy, Option<HttpsConnector>)>,
    /// The agent's certificate and the tunnel's authority.
    pub(crate) connector: Connector,
    /// The name that the server's certificate must carry.
    pub(crate) server_name: String,
}

/// The step at which a dial failed, and why.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("cannot connect to the server at {0}")]
    Tcp(String, #[source] DialTcpError),
    #[error("cannot connect to the proxy {0}")]
    ProxyTcp(String, #[source] DialTcpError),
    #[error("TLS with the proxy {0} failed")]
    ProxyTls(String, #[source] HandshakeError),
    #[error("the proxy {0} opened no way to {1}")]
    Proxy(String, String, #[source] proxy::ConnectError),
    #[error("the proxy {0} did not answer the CONNECT request for {1} within {2:?}")]
    ProxyTimeout(String, String, Duration),
    #[error("TLS with the server at {0} failed")]
    Tls(String, #[source] HandshakeError),
}

impl Dialer {
    /// The server as the operator wrote it.
    pub(crate) fn target(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Dials once.
    pub(super) async fn dial(&self) -> Result<Io, DialError> {
        let leg = reach(&self.host, self.port, self.proxy.as_ref()).await?;
        match self.connector.connect(leg, &self.server_name, TLS_TIMEOUT).await {
            Ok((io, _server)) => Ok(io),
            Err(error) => Err(DialError::Tls(self.target(), error)),
        }
    }

    /// Dials, waits a moment whether the server refuses this agent's certificate, which TLS 1.3 tells after the
    /// handshake, and hangs up. No session begins.
    pub(crate) async fn examine(&self) -> Result<Option<HandshakeError>, DialError> {
        let mut io = self.dial().await?;
        let first = tokio::time::timeout(REFUSAL_TIMEOUT, io.read_u8()).await;
        // A goodbye that does not get through changes nothing.
        drop(tokio::time::timeout(REFUSAL_TIMEOUT, io.shutdown()).await);
        Ok(match first {
            Ok(Err(error)) => explain_io(&error),
            Ok(Ok(_)) | Err(_) => None,
        })
    }
}

/// The way to a server, directly or through a proxy: TCP, and nothing said to the server yet.
pub(crate) async fn reach(
    host: &str,
    port: u16,
    proxy: Option<&(Proxy, Option<HttpsConnector>)>,
) -> Result<Leg, DialError> {
    let Some((proxy, connector)) = proxy else {
        let connected = socket::dial(host, port, TCP_TIMEOUT).await;
        return connected.map(Leg::Left).map_err(|error| DialError::Tcp(authority(host, port), error));
    };
    let tcp = socket::dial(&proxy.host, proxy.port, TCP_TIMEOUT)
        .await
        .map_err(|error| DialError::ProxyTcp(proxy.to_string(), error))?;
    let leg = match connector {
        None => Leg::Left(tcp),
        Some(connector) => {
            let connected = connector.connect(tcp, &proxy.host, TLS_TIMEOUT).await;
            Leg::Right(connected.map_err(|error| DialError::ProxyTls(proxy.to_string(), error))?)
        }
    };
    match tokio::time::timeout(PROXY_TIMEOUT, proxy.connect(leg, host, port)).await {
        Ok(Ok(leg)) => Ok(leg),
        Ok(Err(error)) => Err(DialError::Proxy(proxy.to_string(), authority(host, port), error)),
        Err(_elapsed) => Err(DialError::ProxyTimeout(proxy.to_string(), authority(host, port), PROXY_TIMEOUT)),
    }
}

impl DialError {
    /// The step, as a metric label.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::Tcp(_, error) => error.label(),
            Self::ProxyTcp(..) | Self::ProxyTls(..) | Self::Proxy(..) | Self::ProxyTimeout(..) => "proxy",
            Self::Tls(..) => "tls",
        }
    }

    /// Whether the usual backoff may help, without anybody repairing anything.
    pub(crate) fn retryable(&self) -> bool {
        if let Self::Tls(_, error) = self { error.retryable() || leads_elsewhere(error) } else { true }
    }

    /// What to look at.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Tcp(_, DialTcpError::Resolve(..) | DialTcpError::ResolveTimeout(..)) => {
                "check --management-cluster-addr and this cluster's DNS"
            }
            Self::Tcp(..) => {
                "check that the tunnel server runs and that firewalls let this cluster reach it, or set HTTPS_PROXY"
            }
            Self::ProxyTcp(..) | Self::ProxyTls(..) => "check HTTPS_PROXY, or exempt the server by NO_PROXY",
            Self::Proxy(_, _, proxy::ConnectError::Refused(status)) if status.as_u16() == 407 => {
                "write the proxy's user and password into HTTPS_PROXY: http://user:password@host:port"
            }
            Self::Proxy(_, _, proxy::ConnectError::Refused(status)) if status.is_server_error() => {
                "the proxy cannot reach the server: check the address and the proxy's own network"
            }
            Self::Proxy(_, _, proxy::ConnectError::Refused(_)) => "have the proxy allow CONNECT to the server's port",
            Self::Proxy(..) | Self::ProxyTimeout(..) => "check that HTTPS_PROXY names an HTTP proxy, and its health",
            Self::Tls(_, error) => tls_remedy(error),
        }
    }
}

/// Whether something else than a tunnel server has answered. Whoever put it in the way may take it away again, without
/// this agent's operator doing anything.
fn leads_elsewhere(error: &HandshakeError) -> bool {
    matches!(
        error,
        HandshakeError::AlpnMismatch { .. }
            | HandshakeError::NotTls(_)
            | HandshakeError::Refused(Refusal::NoApplicationProtocol)
    )
}

/// What to look at when TLS with the server failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the error itself says who is at fault for the rest")]
pub(crate) fn tls_remedy(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::UnknownAuthority => {
            "management-cluster.crt is not the authority of this server (wrong server, or a proxy that opens TLS)"
        }
        HandshakeError::WrongName { .. } => "the address leads to something that is no Moorline tunnel server",
        elsewhere if leads_elsewhere(elsewhere) => {
            "the port leads to something that is no Moorline tunnel server, or a middlebox opens TLS"
        }
        HandshakeError::Refused(Refusal::UnknownAuthority | Refusal::Revoked | Refusal::CertificateTime) => {
            "get a new certificate for this cluster: moorline cluster add, or check the clocks"
        }
        other => match other.fault() {
            Fault::Ours => "the server does not accept this agent's certificate: check managed-cluster.crt and .key",
            Fault::Peer => "check the server's certificate and the clocks of both sides",
            Fault::Network => "check what lies between: firewalls, load balancers, proxies",
        },
    }
}

//! The dialling side: the agent's end of the tunnel, and plain HTTPS to a kube-apiserver or a gateway.
//!
//! Called by the agent and the command line with a connected byte stream.

mod inner;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use inner::InnerConnector;
use moorline_model::Fingerprint;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::{
    config::{self, ConfigError},
    error::{HandshakeError, classify, protocols},
    key_pair::KeyPair,
    peer::VerifiedPeer,
    reload::Source,
    roots::{Roots, RootsError},
    sniff::Sniff,
    stream::ClientStream,
};

/// A server name that is neither a DNS name nor an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is neither a DNS name nor an IP address")]
pub struct InvalidServerName(String);

/// Dials as an agent: TLS 1.3, one application protocol, our certificate shown, the server's verified.
#[derive(Clone, Debug)]
pub struct Connector {
    keys: Source<KeyPair>,
    roots: Source<Roots>,
    also: Option<Roots>,
    alpn: &'static [u8],
}

impl Connector {
    /// `keys` is what the agent shows, `roots` is whom it believes, `alpn` the one protocol it speaks. Both sources
    /// are asked anew for each handshake.
    #[must_use]
    pub fn new(keys: impl Into<Source<KeyPair>>, roots: impl Into<Source<Roots>>, alpn: &'static [u8]) -> Self {
        Self { keys: keys.into(), roots: roots.into(), also: None, alpn }
    }

    /// Believes these authorities besides, whatever the source says: those of the operating system, for a server that
    /// shows a certificate of theirs.
    #[must_use]
    pub fn believing_also(self, roots: Roots) -> Self {
        Self { also: Some(roots), ..self }
    }

    /// Does the handshake within `limit`, and verifies that the server's certificate is for `server_name`.
    ///
    /// The server judges our certificate after this is done: see [`crate::explain_io`] for errors of the first read.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        server_name: &str,
        limit: Duration,
    ) -> Result<(ClientStream<IO>, VerifiedPeer), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let roots = self.roots.current();
        let joined = self.also.as_ref().map(|also| roots.joined(also));
        let config = config::tunnel_client(&self.keys.current(), joined.as_ref().unwrap_or(&roots), self.alpn)
            .map_err(|error| HandshakeError::Certificate(error.to_string()))?;
        let (mut stream, peer) = handshake(config, io, server_name, limit, &[self.alpn]).await?;
        if stream.alpn() != Some(self.alpn) {
            // The server speaks no protocol at all, for which TLS has no alert.
            drop(tokio::time::timeout(limit, stream.shutdown()).await);
            return Err(HandshakeError::AlpnMismatch { wanted: protocols(&[self.alpn]) });
        }
        Ok((stream, peer))
    }
}

/// Dials as somebody who wants to join: TLS 1.3, one application protocol, no certificate of our own, and the server's
/// verified by a pin of its authority.
#[derive(Clone, Debug)]
pub struct JoinConnector {
    pins: Vec<Fingerprint>,
    alpn: &'static [u8],
}

impl JoinConnector {
    /// `pins` are the SHA-256 of the public keys (`SubjectPublicKeyInfo`) of authorities, any of which is believed.
    #[must_use]
    pub fn new(pins: Vec<Fingerprint>, alpn: &'static [u8]) -> Self {
        Self { pins, alpn }
    }

    /// Does the handshake within `limit`. When it is done, the server is the one that was pinned and is for
    /// `server_name`: nothing secret is to be said before.
    ///
    /// # Errors
    /// [`HandshakeError`]; [`HandshakeError::WrongPin`] where the server shows no authority with a pinned key.
    pub async fn connect<IO>(
        &self,
        io: IO,
        server_name: &str,
        limit: Duration,
    ) -> Result<ClientStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = config::join_client(&self.pins, self.alpn)
            .map_err(|error| HandshakeError::Certificate(error.to_string()))?;
        let (mut stream, _peer) = handshake(config, io, server_name, limit, &[self.alpn]).await?;
        if stream.alpn() != Some(self.alpn) {
            drop(tokio::time::timeout(limit, stream.shutdown()).await);
            return Err(HandshakeError::AlpnMismatch { wanted: protocols(&[self.alpn]) });
        }
        Ok(stream)
    }
}

/// Whom an HTTPS client believes.
#[derive(Clone, Debug)]
pub enum HttpsTrust {
    /// The authorities in this source, and nobody else.
    Roots(Source<Roots>),
    /// Anybody. The connection is encrypted to whoever answers.
    DangerousAnybody,
}

impl HttpsTrust {
    /// What the operating system trusts. Reads its files, so it blocks.
    ///
    /// # Errors
    /// [`RootsError::System`] when there is nothing.
    pub fn system() -> Result<Self, RootsError> {
        Ok(Self::Roots(Roots::system()?.into()))
    }
}

impl From<Roots> for HttpsTrust {
    fn from(roots: Roots) -> Self {
        Self::Roots(roots.into())
    }
}

/// Dials HTTPS servers, with a client certificate where there is one.
#[derive(Clone, Debug)]
pub struct HttpsConnector {
    trust: HttpsTrust,
    keys: Option<Source<KeyPair>>,
    alpn: &'static [&'static [u8]],
}

impl HttpsConnector {
    /// Believes `trust`, shows `keys` when asked to, offers `alpn` (`[b"h2", b"http/1.1"]`, say), best first; with an
    /// empty list, none. Sources are asked anew for each handshake.
    #[must_use]
    pub fn new(trust: impl Into<HttpsTrust>, keys: Option<Source<KeyPair>>, alpn: &'static [&'static [u8]]) -> Self {
        Self { trust: trust.into(), keys, alpn }
    }

    /// Believes whoever answers: for `insecure-skip-tls-verify` in a kubeconfig, and nothing else.
    #[must_use]
    pub fn dangerous_without_verification(keys: Option<Source<KeyPair>>, alpn: &'static [&'static [u8]]) -> Self {
        Self { trust: HttpsTrust::DangerousAnybody, keys, alpn }
    }

    /// Does the handshake within `limit`. `server_name` is a DNS name or an IP address, without port or brackets.
    /// Which of the offered protocols it is to be is in [`ClientStream::alpn`].
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        server_name: &str,
        limit: Duration,
    ) -> Result<ClientStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config().map_err(|error| HandshakeError::Certificate(error.to_string()))?;
        Ok(handshake(config, io, server_name, limit, self.alpn).await?.0)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let keys = self.keys.as_ref().map(Source::current);
        match &self.trust {
            HttpsTrust::Roots(roots) => config::https_client(&roots.current(), keys.as_deref(), self.alpn),
            HttpsTrust::DangerousAnybody => config::https_client_without_verification(keys.as_deref(), self.alpn),
        }
    }
}

/// Checks a name before it is dialled: a DNS name or an IP address, without port or brackets.
///
/// # Errors
/// [`InvalidServerName`].
pub fn check_server_name(name: &str) -> Result<(), InvalidServerName> {
    parse_name(name).map(drop)
}

fn parse_name(name: &str) -> Result<ServerName<'static>, InvalidServerName> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(name.to_owned()).map_err(|_invalid| InvalidServerName(name.to_owned()))
}

async fn handshake<IO>(
    config: Arc<ClientConfig>,
    io: IO,
    server_name: &str,
    limit: Duration,
    alpn: &[&[u8]],
) -> Result<(ClientStream<IO>, VerifiedPeer), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = parse_name(server_name).map_err(|invalid| HandshakeError::Certificate(invalid.to_string()))?;
    let stream = dial(config, io, name, limit, alpn).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.ok_or_else(|| HandshakeError::Certificate("the server showed none".to_owned()))?;
    let peer = VerifiedPeer::of(leaf).map_err(|error| HandshakeError::Certificate(error.to_string()))?;
    Ok((ClientStream::new(stream), peer))
}

type Stream<IO> = tokio_rustls::client::TlsStream<Sniff<IO>>;

async fn dial<IO>(
    config: Arc<ClientConfig>,
    io: IO,
    name: ServerName<'static>,
    limit: Duration,
    alpn: &[&[u8]],
) -> Result<Stream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let connecting = TlsConnector::from(config).connect(name, Sniff::new(io)).into_fallible();
    match tokio::time::timeout(limit, connecting).await {
        Err(_elapsed) => Err(HandshakeError::Timeout(limit)),
        Ok(Err((error, io))) => Err(classify(&error, io.not_tls(), io.first(), alpn)),
        Ok(Ok(stream)) => Ok(stream),
    }
}

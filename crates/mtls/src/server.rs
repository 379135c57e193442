//! The accepting side: the tunnel door, which insists on a certificate, and the gateway door, which can do without.
//!
//! Called by the server with an accepted connection, in the task of that connection. A slow or silent peer holds it
//! for the given limit at most, and a refused one for [`LINGER`] more.

mod arriving;
pub mod hello;

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
pub use arriving::{Arrived, Arriving};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{self, ConfigError, HTTP_ALPN},
    error::{HandshakeError, classify},
    key_pair::KeyPair,
    peer::VerifiedPeer,
    reload::Source,
    roots::Roots,
    sniff::Sniff,
    stream::ServerStream,
};

/// How long a refused peer is listened to after it was told why: hanging up on what it still sends would make the
/// operating system reset the connection, and the reason would be lost on the way.
pub const LINGER: Duration = Duration::from_secs(1);

/// How much of that is read before hanging up anyway.
const LINGER_BYTES: u64 = 64 * 1024;

/// Accepts agents: TLS 1.3, one application protocol, a client certificate that chains to the roots and is in time.
#[derive(Clone, Debug)]
pub struct TunnelAcceptor {
    inner: Arc<Following>,
    alpn: &'static [u8],
    joining: Option<JoinDoor>,
    guardian: Option<GuardianDoor>,
    keys: Source<KeyPair>,
    roots: Source<Roots>,
}

impl TunnelAcceptor {
    /// `keys` is what the server shows, `roots` is whom it believes, `alpn` the one protocol it speaks. Both sources
    /// are asked anew for each handshake.
    ///
    /// # Errors
    /// [`ConfigError`] when the roots are of no use to the TLS library.
    pub fn new(
        keys: impl Into<Source<KeyPair>>,
        roots: impl Into<Source<Roots>>,
        alpn: &'static [u8],
    ) -> Result<Self, ConfigError> {
        let build = move |keys: &KeyPair, roots: Option<&Roots>| match roots {
            Some(roots) => config::tunnel_server(keys, roots, alpn),
            None => Err(ConfigError::missing_roots()),
        };
        let (keys, roots) = (keys.into(), roots.into());
        let inner = Arc::new(Following::new(keys.clone(), Some(roots.clone()), Box::new(build))?);
        Ok(Self { inner, alpn, joining: None, guardian: None, keys, roots })
    }

    /// Also lets in who offers the protocol `alpn` and no other, without a certificate: whoever wants to join. They are
    /// shown all authorities, since they know no more of them than a pin.
    ///
    /// # Errors
    /// [`ConfigError`] when keys or roots are of no use to the TLS library.
    pub fn with_join(mut self, alpn: &'static [u8]) -> Result<Self, ConfigError> {
        let build = move |keys: &KeyPair, roots: Option<&Roots>| match roots {
            Some(roots) => config::join_server(keys, roots, alpn),
            None => Err(ConfigError::missing_roots()),
        };
        let following = Following::new(self.keys.clone(), Some(self.roots.clone()), Box::new(build))?;
        self.joining = Some(JoinDoor { rules: Arc::new(following), alpn });
        Ok(self)
    }

    /// Also lets in, while `wanted`, who offers no protocol at all, as Calico's Guardian does: in TLS 1.2, too, and with any
    /// certificate whose key it holds. Nothing else is known of it then, see [`crate::PresentedPeer`]. It is asked once
    /// for each connection; where it says no, such a peer is held to the rules for agents, and refused.
    ///
    /// # Errors
    /// [`ConfigError`] when the keys are of no use to the TLS library.
    pub fn with_guardian(mut self, wanted: impl Fn() -> bool + Send + Sync + 'static) -> Result<Self, ConfigError> {
        let build = |keys: &KeyPair, _no_roots: Option<&Roots>| config::guardian_server(keys);
        let rules = Arc::new(Following::new(self.keys.clone(), None, Box::new(build))?);
        self.guardian = Some(GuardianDoor { rules, wanted: Arc::new(wanted) });
        Ok(self)
    }

    /// Reads what a peer wants; the whole handshake has `limit`.
    ///
    /// # Errors
    /// [`HandshakeError`], after the peer was told as far as TLS has words for it.
    pub async fn hear<IO>(&self, io: IO, limit: Duration) -> Result<Arriving<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        arriving::hear(io, limit, (&self.inner, self.alpn), (self.joining.as_ref(), self.guardian.as_ref())).await
    }

    /// Does the handshake of an agent within `limit`.
    ///
    /// # Errors
    /// [`HandshakeError`], after the peer was told as far as TLS has words for it.
    pub async fn accept<IO>(&self, io: IO, limit: Duration) -> Result<(ServerStream<IO>, VerifiedPeer), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match arriving::hear(io, limit, (&self.inner, self.alpn), (None, None)).await?.finish().await? {
            Arrived::Agent(stream, peer) => Ok((stream, peer)),
            Arrived::Stranger(_) | Arrived::Guardian(..) => Err(HandshakeError::NoClientCertificate),
        }
    }
}

/// The rules for who offers this protocol and no other.
#[derive(Clone, Debug)]
struct JoinDoor {
    rules: Arc<Following>,
    alpn: &'static [u8],
}

/// The rules for who offers no protocol, and whether they count now.
#[derive(Clone)]
struct GuardianDoor {
    rules: Arc<Following>,
    wanted: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for GuardianDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardianDoor").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Accepts users: TLS 1.2 or 1.3, HTTP/2 or HTTP/1.1. A client certificate is optional where user authorities are
/// given; one that is presented and not valid fails the handshake, as at a kube-apiserver.
#[derive(Clone, Debug)]
pub struct GatewayAcceptor {
    inner: Arc<Following>,
}

impl GatewayAcceptor {
    /// `keys` is what the server shows, `users` whom it believes about users. Both sources are asked anew for each
    /// handshake.
    ///
    /// # Errors
    /// [`ConfigError`] when the user authorities are of no use to the TLS library.
    pub fn new(keys: impl Into<Source<KeyPair>>, users: Option<Source<Roots>>) -> Result<Self, ConfigError> {
        Ok(Self { inner: Arc::new(Following::new(keys.into(), users, Box::new(config::gateway_server))?) })
    }

    /// Does the handshake within `limit`. Whether it is HTTP/2 is in [`ServerStream::alpn`].
    ///
    /// # Errors
    /// [`HandshakeError`], after the peer was told as far as TLS has words for it.
    pub async fn accept<IO>(
        &self,
        io: IO,
        limit: Duration,
    ) -> Result<(ServerStream<IO>, Option<VerifiedPeer>), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = handshake(self.inner.config(), io, limit, &HTTP_ALPN).await?;
        let peer = peer_of(&stream)?;
        Ok((ServerStream::new(stream), peer))
    }
}

async fn handshake<IO>(
    config: Arc<ServerConfig>,
    io: IO,
    limit: Duration,
    alpn: &[&[u8]],
) -> Result<Stream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = TlsAcceptor::from(config).accept(Sniff::new(io)).into_fallible();
    match tokio::time::timeout(limit, accepting).await {
        Err(_elapsed) => Err(HandshakeError::Timeout(limit)),
        Ok(outcome) => finish(outcome, alpn).await,
    }
}

type Stream<IO> = tokio_rustls::server::TlsStream<Sniff<IO>>;

async fn finish<IO>(
    outcome: Result<Stream<IO>, (io::Error, Sniff<IO>)>,
    alpn: &[&[u8]],
) -> Result<Stream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match outcome {
        Ok(stream) => Ok(stream),
        Err((error, mut io)) => {
            let reason = classify(&error, io.not_tls(), io.first(), alpn);
            drop(tokio::time::timeout(LINGER, linger(&mut io)).await);
            Err(reason)
        }
    }
}

/// Says that nothing more will come, then reads until the peer has hung up, too.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<u64> {
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
}

fn leaf_of<IO>(stream: &Stream<IO>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates().and_then(<[_]>::first)
}

fn peer_of<IO>(stream: &Stream<IO>) -> Result<Option<VerifiedPeer>, HandshakeError> {
    leaf_of(stream).map(VerifiedPeer::of).transpose().map_err(|error| HandshakeError::Certificate(error.to_string()))
}

type Build = Box<dyn Fn(&KeyPair, Option<&Roots>) -> Result<Arc<ServerConfig>, ConfigError> + Send + Sync>;

/// A configuration that is built anew when what it was built from has changed.
struct Following {
    keys: Source<KeyPair>,
    roots: Option<Source<Roots>>,
    build: Build,
    built: ArcSwap<Built>,
}

struct Built {
    keys: Arc<KeyPair>,
    roots: Option<Arc<Roots>>,
    config: Arc<ServerConfig>,
}

impl Following {
    fn new(keys: Source<KeyPair>, roots: Option<Source<Roots>>, build: Build) -> Result<Self, ConfigError> {
        let (key, root) = (keys.current(), roots.as_ref().map(Source::current));
        let config = build(&key, root.as_deref())?;
        let built = ArcSwap::from_pointee(Built { keys: key, roots: root, config });
        Ok(Self { keys, roots, build, built })
    }

    fn config(&self) -> Arc<ServerConfig> {
        let built = self.built.load();
        let (keys, roots) = (self.keys.current(), self.roots.as_ref().map(Source::current));
        let same_roots = match (&built.roots, &roots) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if same_roots && Arc::ptr_eq(&built.keys, &keys) {
            return Arc::clone(&built.config);
        }
        let config = (self.build)(&keys, roots.as_deref()).unwrap_or_else(|error| {
            // Remembered all the same, so that it is told once and not with every handshake.
            tracing::error!(%error, "the new keys or roots cannot be used; those before stay in use");
            Arc::clone(&built.config)
        });
        self.built.store(Arc::new(Built { keys, roots, config: Arc::clone(&config) }));
        config
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("keys", &self.keys.current()).finish_non_exhaustive()
    }
}

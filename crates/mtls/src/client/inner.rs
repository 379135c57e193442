//! The dialling side within a stream of a Guardian session: Guardian is the TLS server there, with the certificate that
//! the session came with.
//!
//! Called by the server's tunnel, once for each stream that it opens to a Guardian.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use moorline_model::Fingerprint;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::dial;
use crate::{
    config::{self, ConfigError, H2_ALPN},
    error::{HandshakeError, protocols},
    stream::ClientStream,
};

/// Dials a Guardian within a stream: TLS 1.2 or 1.3, and exactly the certificate with the given fingerprint, whatever its
/// form, its names and its time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InnerConnector {
    h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl InnerConnector {
    /// `fingerprint` is the SHA-256 of the certificate that the session came with.
    ///
    /// # Errors
    /// [`ConfigError`] when the TLS library cannot be configured so.
    pub fn new(fingerprint: Fingerprint) -> Result<Self, ConfigError> {
        Ok(Self { h2: config::inner_client(fingerprint, &H2_ALPN)?, http1: config::inner_client(fingerprint, &[])? })
    }

    /// Does the handshake within `limit`, for HTTP/2 and nothing else.
    ///
    /// # Errors
    /// [`HandshakeError`]; [`HandshakeError::WrongCertificate`] where another certificate is shown,
    /// [`HandshakeError::AlpnMismatch`] where HTTP/2 is not spoken.
    pub async fn connect_h2<IO>(&self, io: IO, limit: Duration) -> Result<ClientStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = connect(&self.h2, io, limit, &H2_ALPN).await?;
        if stream.alpn() != H2_ALPN.first().copied() {
            // The server speaks no protocol at all, for which TLS has no alert.
            drop(tokio::time::timeout(limit, stream.shutdown()).await);
            return Err(HandshakeError::AlpnMismatch { wanted: protocols(&H2_ALPN) });
        }
        Ok(stream)
    }

    /// Does the handshake within `limit` and offers no protocol, which means HTTP/1.1 to Guardian.
    ///
    /// # Errors
    /// [`HandshakeError`]; [`HandshakeError::WrongCertificate`] where another certificate is shown.
    pub async fn connect_http1<IO>(&self, io: IO, limit: Duration) -> Result<ClientStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        connect(&self.http1, io, limit, &[]).await
    }
}

async fn connect<IO>(
    config: &Arc<ClientConfig>,
    io: IO,
    limit: Duration,
    alpn: &[&[u8]],
) -> Result<ClientStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Neither sent nor compared with anything: the certificate has no name to verify.
    let nobody = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let stream = dial(Arc::clone(config), io, nobody, limit, alpn).await.map_err(HandshakeError::without_chain)?;
    Ok(ClientStream::new(stream))
}

//! A handshake in two halves: first what the peer says it wants, then the rest under the rules for that.
//!
//! Given by [`TunnelAcceptor::hear`](super::TunnelAcceptor::hear), so that the tunnel door can give those who join
//! places and rates of their own before it does any work for them. What a peer wants is decided once, by its first
//! message, and whoever could want either is held to the stricter rule: no certificate, no tunnel.

use std::{sync::Arc, time::Duration};

use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{Following, LINGER, finish, linger, peer_of};
use crate::{
    error::{HandshakeError, classify, protocols},
    peer::VerifiedPeer,
    sniff::Sniff,
    stream::ServerStream,
};

/// A peer whose first message was read, and that was not answered yet.
pub struct Arriving<IO> {
    start: StartHandshake<Sniff<IO>>,
    rules: Arc<Following>,
    alpn: &'static [u8],
    joins: bool,
    limit: Duration,
    until: Instant,
}

/// Who has come.
pub enum Arrived<IO> {
    /// An agent, with a certificate that chains to the roots.
    Agent(ServerStream<IO>, VerifiedPeer),
    /// Somebody who wants to join. Nothing is known of them.
    Stranger(ServerStream<IO>),
}

/// Reads the first message of a peer. `joining` are the rules for who offers that protocol and no other.
pub(super) async fn hear<IO>(
    io: IO,
    limit: Duration,
    (rules, alpn): (&Arc<Following>, &'static [u8]),
    joining: Option<&(Arc<Following>, &'static [u8])>,
) -> Result<Arriving<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let until = Instant::now() + limit;
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), Sniff::new(io));
    let heard = tokio::time::timeout_at(until, &mut acceptor).await;
    let start = match heard {
        Err(_elapsed) => return Err(HandshakeError::Timeout(limit)),
        Ok(Ok(start)) => start,
        Ok(Err(error)) => {
            let Some(mut io) = acceptor.take_io() else { return Err(classify(&error, None, &[], &[alpn])) };
            let reason = classify(&error, io.not_tls(), io.first(), &[alpn]);
            drop(tokio::time::timeout(LINGER, linger(&mut io)).await);
            return Err(reason);
        }
    };
    let only = |wanted: &[u8]| {
        start
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(wanted) && offered.next().is_none())
    };
    let (rules, alpn, joins) = match joining.filter(|(_, alpn)| only(alpn)) {
        Some((rules, alpn)) => (Arc::clone(rules), *alpn, true),
        None => (Arc::clone(rules), alpn, false),
    };
    Ok(Arriving { start, rules, alpn, joins, limit, until })
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Arriving<IO> {
    /// Whether it wants to join, and nothing else.
    pub fn joins(&self) -> bool {
        self.joins
    }

    /// Does the rest of the handshake, within what is left of the limit.
    ///
    /// # Errors
    /// [`HandshakeError`], after the peer was told as far as TLS has words for it.
    pub async fn finish(self) -> Result<Arrived<IO>, HandshakeError> {
        let alpn = self.alpn;
        let accepting = self.start.into_stream(self.rules.config()).into_fallible();
        let outcome = tokio::time::timeout_at(self.until, accepting).await;
        let stream = finish(outcome.map_err(|_elapsed| HandshakeError::Timeout(self.limit))?, &[alpn]).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(alpn);
        let peer = peer_of(&stream)?;
        let mut stream = ServerStream::new(stream);
        if !agreed {
            // The peer offered no protocol at all, for which TLS has no alert.
            drop(tokio::time::timeout(LINGER, stream.shutdown()).await);
            return Err(HandshakeError::AlpnMismatch { wanted: protocols(&[alpn]) });
        }
        if self.joins {
            return Ok(Arrived::Stranger(stream));
        }
        Ok(Arrived::Agent(stream, peer.ok_or(HandshakeError::NoClientCertificate)?))
    }
}

impl<IO> std::fmt::Debug for Arriving<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("joins", &self.joins).finish_non_exhaustive()
    }
}

impl<IO> std::fmt::Debug for Arrived<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(_, peer) => f.debug_tuple("Agent").field(peer).finish(),
            Self::Stranger(_) => f.write_str("Stranger"),
        }
    }
}

//! A handshake in two halves: first what the peer says it wants, then the rest under the rules for that.
//!
//! Given by [`TunnelAcceptor::hear`](super::TunnelAcceptor::hear), so that the tunnel door can give those who join
//! places and rates of their own before it does any work for them. What a peer wants is decided once, by its first
//! message, and whoever could want several things is held to the strictest rule: no certificate, no tunnel. No rule is
//! ever loosened by what comes later.

use std::{sync::Arc, time::Duration};

use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{Following, GuardianDoor, JoinDoor, LINGER, finish, leaf_of, linger, peer_of};
use crate::{
    error::{HandshakeError, classify, protocols},
    peer::{PresentedPeer, VerifiedPeer},
    sniff::Sniff,
    stream::ServerStream,
};

/// A peer whose first message was read, and that was not answered yet.
pub struct Arriving<IO> {
    start: StartHandshake<Sniff<IO>>,
    rules: Arc<Following>,
    wants: Wants,
    limit: Duration,
    until: Instant,
}

/// What a peer's first message says it wants, with the protocol that this is agreed on by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Tunnel(&'static [u8]),
    Join(&'static [u8]),
    /// It offered no protocol, and such peers are let in.
    Guardian,
}

/// Who has come.
pub enum Arrived<IO> {
    /// An agent, with a certificate that chains to the roots.
    Agent(ServerStream<IO>, VerifiedPeer),
    /// Somebody who wants to join. Nothing is known of them.
    Stranger(ServerStream<IO>),
    /// Somebody who offered no protocol, as Calico's Guardian does, and holds the key of a certificate. Nothing else is
    /// known of them.
    Guardian(ServerStream<IO>, PresentedPeer),
}

/// Reads the first message of a peer. `joining` are the rules for who offers that protocol and no other, `guardian` those
/// for who offers none.
pub(super) async fn hear<IO>(
    io: IO,
    limit: Duration,
    (rules, alpn): (&Arc<Following>, &'static [u8]),
    (joining, guardian): (Option<&JoinDoor>, Option<&GuardianDoor>),
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
    let mut offered = start.client_hello().alpn();
    let offers = offered.is_some();
    let first = offered.as_mut().and_then(Iterator::next);
    let only = first.filter(|_first| offered.is_some_and(|mut rest| rest.next().is_none()));
    let (rules, wants) = match (joining, guardian) {
        (Some(door), _) if only == Some(door.alpn) => (&door.rules, Wants::Join(door.alpn)),
        (_, Some(door)) if !offers && (door.wanted)() => (&door.rules, Wants::Guardian),
        _ => (rules, Wants::Tunnel(alpn)),
    };
    let rules = Arc::clone(rules);
    Ok(Arriving { start, rules, wants, limit, until })
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Arriving<IO> {
    /// Whether it wants to join, and nothing else.
    pub fn joins(&self) -> bool {
        matches!(self.wants, Wants::Join(_))
    }

    /// Whether it offers no protocol, and is let in for that.
    pub fn is_guardian(&self) -> bool {
        self.wants == Wants::Guardian
    }

    /// Does the rest of the handshake, within what is left of the limit.
    ///
    /// # Errors
    /// [`HandshakeError`], after the peer was told as far as TLS has words for it.
    pub async fn finish(self) -> Result<Arrived<IO>, HandshakeError> {
        let alpn = match self.wants {
            Wants::Tunnel(alpn) | Wants::Join(alpn) => Some(alpn),
            Wants::Guardian => None,
        };
        let accepting = self.start.into_stream(self.rules.config()).into_fallible();
        let outcome = tokio::time::timeout_at(self.until, accepting).await;
        let outcome = outcome.map_err(|_elapsed| HandshakeError::Timeout(self.limit))?;
        let finished = finish(outcome, alpn.as_slice()).await;
        let stream = match self.wants {
            Wants::Guardian => finished.map_err(HandshakeError::without_chain)?,
            Wants::Tunnel(_) | Wants::Join(_) => finished?,
        };
        if stream.get_ref().1.alpn_protocol() != alpn {
            // The peer offered no protocol at all, for which TLS has no alert.
            drop(tokio::time::timeout(LINGER, ServerStream::new(stream).shutdown()).await);
            return Err(HandshakeError::AlpnMismatch { wanted: protocols(alpn.as_slice()) });
        }
        match self.wants {
            Wants::Join(_) => Ok(Arrived::Stranger(ServerStream::new(stream))),
            Wants::Tunnel(_) => {
                let peer = peer_of(&stream)?.ok_or(HandshakeError::NoClientCertificate)?;
                Ok(Arrived::Agent(ServerStream::new(stream), peer))
            }
            Wants::Guardian => {
                let leaf = leaf_of(&stream).ok_or(HandshakeError::NoClientCertificate)?;
                let peer = PresentedPeer::of(leaf).map_err(|error| HandshakeError::Certificate(error.to_string()))?;
                Ok(Arrived::Guardian(ServerStream::new(stream), peer))
            }
        }
    }
}

impl<IO> std::fmt::Debug for Arriving<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("wants", &self.wants).finish_non_exhaustive()
    }
}

impl<IO> std::fmt::Debug for Arrived<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(_, peer) => f.debug_tuple("Agent").field(peer).finish(),
            Self::Stranger(_) => f.write_str("Stranger"),
            Self::Guardian(_, peer) => f.debug_tuple("Guardian").field(peer).finish(),
        }
    }
}

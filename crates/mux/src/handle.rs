//! The opening side of a session. Held by whoever sends requests; touches the session's shared state.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::close::CloseReason;
use crate::session::{Door, OpenRequest, Session};
use crate::stats::Stats;
use crate::stream::Stream;

/// Opens streams and ends the session. A clone is another handle on the same session.
#[derive(Clone)]
pub struct Handle {
    session: Arc<Session>,
    _door: Arc<Door>,
}

/// Why a stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// As many streams as [`crate::Config::with_max_outbound_streams`] allows are open. Nothing was
    /// sent; the session is fine.
    #[error("the session has as many streams as it may")]
    Limit,
    /// The session has ended.
    #[error("the session has ended")]
    Closed(#[source] CloseReason),
    /// The session finishes what runs and opens nothing new.
    #[error("the session is draining")]
    Draining,
}

impl Handle {
    pub(crate) fn new(session: Arc<Session>, door: Arc<Door>) -> Self {
        Self { session, _door: door }
    }

    #[cfg(test)]
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Opens a stream. No round trip to the peer: the open travels with the first bytes written, or
    /// with the first read, flush or shutdown if that comes first.
    ///
    /// Waits for the driver only, and, when 256 streams are open that the peer has not acknowledged,
    /// for the peer. Safe to cancel.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was sent in any case.
    pub async fn open(&self) -> Result<Stream, OpenError> {
        let place = self.session.reserve()?;
        let (answer, answered) = oneshot::channel();
        self.session.ask(OpenRequest { place, answer });
        match answered.await {
            Ok(opened) => opened,
            Err(_dropped) => Err(OpenError::Closed(self.session.closed().await)),
        }
    }

    /// Cuts the session now: the driver drops the transport without a farewell, and all streams fail
    /// with `ConnectionReset` once they have given out what had arrived. The first reason stands.
    pub fn close(&self, reason: CloseReason) {
        self.session.condemn(reason);
    }

    /// Opens nothing new. Streams that exist, and those that the peer still opens, run to their end;
    /// then the driver says goodbye, closes the transport and ends. The peer is not told before that.
    pub fn drain(&self) {
        self.session.drain(CloseReason::Drained);
    }

    /// Whether streams can be opened: neither ended nor draining.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Waits for the end of the session and says why it ended.
    pub async fn closed(&self) -> CloseReason {
        self.session.closed().await
    }

    /// Waits until the session opens nothing new, because it drains, the peer goes away, the stream ids
    /// are used up, or it has ended: the moment to have another session.
    pub async fn not_open(&self) {
        self.session.not_open().await;
    }

    /// What the session has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.session.stats()
    }

    /// Sends a ping and waits for the peer's answer; gives the round trip time.
    ///
    /// Any implementation of the protocol answers at once, without asking its application: the answer
    /// proves that the peer's process runs and that both directions of the transport work. No time limit
    /// of its own; a caller that gives up leaves nothing behind. Safe to cancel.
    ///
    /// # Errors
    /// Why the session ended, if it did first.
    pub async fn ping(&self) -> Result<Duration, CloseReason> {
        match self.session.ping().await {
            Ok(round_trip) => Ok(round_trip),
            Err(_ended) => Err(self.session.closed().await),
        }
    }

    /// How long ago the last byte arrived from the peer, in milliseconds' precision.
    #[must_use]
    pub fn last_read_age(&self) -> Duration {
        self.session.last_read_age()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

//! The accepting side of a session. Held by whoever serves the peer's requests; touches the session's
//! queue of arrivals.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::lock::lock;
use crate::session::{Door, Session};
use crate::stream::Stream;

/// The peer's streams, in the order in which they were opened. Dropping it resets those that wait and
/// all that come later.
pub struct Incoming {
    session: Arc<Session>,
    _door: Arc<Door>,
}

impl Incoming {
    pub(crate) fn new(session: Arc<Session>, door: Arc<Door>) -> Self {
        Self { session, _door: door }
    }

    /// Waits for the next stream; `None` when the session has ended. Safe to cancel.
    ///
    /// The peer's open was acknowledged when the stream was queued, not when it is accepted.
    pub async fn accept(&mut self) -> Option<Stream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Incoming::accept`], for callers that poll. Only the last waker is kept.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stream>> {
        let mut arrivals = lock(&self.session.arrivals);
        if let Some(stream) = arrivals.queue.pop_front() {
            return Poll::Ready(Some(stream));
        }
        if arrivals.shut {
            return Poll::Ready(None);
        }
        match &mut arrivals.acceptor {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let queue = {
            let mut arrivals = lock(&self.session.arrivals);
            arrivals.shut = true;
            std::mem::take(&mut arrivals.queue)
        };
        self.session.refused_total.fetch_add(queue.len() as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

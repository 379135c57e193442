//! One stream, as its owner sees it. Made by the driver, held by handlers of requests; touches the
//! engine's half of the stream, the ledger and the gate.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_util::{AsyncWrite as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use crate::cell::{Cell, Chunk, Ends};
use crate::lock::lock;
use crate::session::Session;

/// The largest body that the engine puts into one frame, in bytes.
pub(crate) const FRAME_BODY: usize = 16 * 1024;

/// After a chunk of this size more are likely to be there, and looking is worth its price.
const LOOK_AGAIN: usize = 4 * 1024;

/// One stream of a session: bytes in both directions, each direction closed on its own.
///
/// - Reading ends with `Ok(0)` only if the peer finished its side. A reset, a lost session and a stream
///   shed for memory read as [`io::ErrorKind::ConnectionReset`].
/// - `shutdown` finishes the writing side; reading goes on.
/// - Dropping a stream that was not finished on both sides resets it: the peer's reads and writes fail
///   at once.
/// - Both halves may be used from two tasks (`tokio::io::split`).
/// - `flush` does not wait: what was written goes out as fast as the transport takes it.
pub struct Stream {
    cell: Arc<Cell>,
    session: Arc<Session>,
}

impl Stream {
    pub(crate) fn new(cell: Arc<Cell>, session: Arc<Session>) -> Self {
        Self { cell, session }
    }

    /// The stream's number on the wire, unique in its session.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.cell.id
    }

    /// Gives the stream up now. The same as dropping it, said aloud.
    pub fn reset(self) {
        drop(self);
    }

    /// Tells of the stream's end to somebody who neither reads nor writes.
    pub fn watch(&self) -> Watch {
        Watch { cell: Arc::clone(&self.cell) }
    }

    fn lost(&self, ends: &Ends) -> io::Error {
        let why = if ends.shed {
            "stream reset here: over the memory budget"
        } else if self.cell.reset_in() {
            "stream reset by the peer"
        } else {
            "the session of this stream has ended"
        };
        io::Error::new(io::ErrorKind::ConnectionReset, why)
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(coop::poll_proceed(cx));
        let mut ends = lock(&self.cell.ends);
        // Whoever reads first waits for an answer, and the peer cannot answer what it has not seen. A
        // failure here shows again below.
        let _announced = ends.announce(cx);
        let before = buf.remaining();
        let outcome = loop {
            let Ends { engine: Some(engine), chunk, .. } = &mut *ends else {
                break Poll::Ready(Err(self.lost(&ends)));
            };
            if let Some(Chunk { packet, at }) = chunk {
                let rest = packet.as_ref().get(*at..).unwrap_or_default();
                let taken = rest.len().min(buf.remaining());
                let (now, later) = rest.split_at(taken);
                buf.put_slice(now);
                if !later.is_empty() {
                    *at = at.saturating_add(taken);
                    break Poll::Ready(Ok(()));
                }
                *chunk = None;
                if buf.remaining() == 0 || taken < LOOK_AGAIN {
                    break Poll::Ready(Ok(()));
                }
            }
            match Pin::new(engine).poll_next(cx) {
                Poll::Ready(Some(Ok(packet))) => *chunk = Some(Chunk { packet, at: 0 }),
                Poll::Ready(None) if self.cell.fin_in() => break Poll::Ready(Ok(())),
                Poll::Ready(_) => break Poll::Ready(Err(self.lost(&ends))),
                Poll::Pending => break Poll::Pending,
            }
        };
        let read = before.saturating_sub(buf.remaining());
        if read > 0 {
            self.session.ledger.consume(&self.cell, read);
            turn.made_progress();
            return Poll::Ready(Ok(()));
        }
        if outcome.is_pending() {
            remember(&mut ends.reader, cx);
        } else {
            turn.made_progress();
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let turn = ready!(coop::poll_proceed(cx));
        // Counted before the frame can leave, and put right afterwards.
        let claim = buf.len().min(FRAME_BODY);
        let outcome = {
            let mut ends = lock(&self.cell.ends);
            if ends.fin_queued {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if ends.engine.is_none() {
                return Poll::Ready(Err(self.lost(&ends)));
            }
            if !self.session.gate.admits(&self.cell, &mut ends) {
                remember(&mut ends.writer, cx);
                return Poll::Pending;
            }
            self.session.gate.queued(claim);
            let written = match &mut ends.engine {
                Some(engine) => Pin::new(engine).poll_write(cx, buf),
                None => Poll::Pending,
            };
            match written {
                Poll::Ready(Ok(written)) => {
                    ends.announced = true;
                    Poll::Ready(Ok(written))
                }
                Poll::Ready(Err(_closed)) => Poll::Ready(Err(self.lost(&ends))),
                Poll::Pending => {
                    remember(&mut ends.writer, cx);
                    Poll::Pending
                }
            }
        };
        let written = match &outcome {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        if written < claim {
            self.session.gate.left(claim.saturating_sub(written));
        }
        if outcome.is_ready() {
            turn.made_progress();
        }
        outcome
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = lock(&self.cell.ends);
        if ends.engine.is_none() {
            return Poll::Ready(Err(self.lost(&ends)));
        }
        match ends.announce(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_closed)) => Poll::Ready(Err(self.lost(&ends))),
            Poll::Pending => {
                remember(&mut ends.writer, cx);
                Poll::Pending
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = lock(&self.cell.ends);
        if ends.fin_queued {
            return Poll::Ready(Ok(()));
        }
        let finished = match ends.announce(cx) {
            Poll::Ready(Ok(())) => match &mut ends.engine {
                Some(engine) if !engine.is_closed() => Pin::new(engine).poll_close(cx),
                _ => return Poll::Ready(Err(self.lost(&ends))),
            },
            other @ (Poll::Ready(Err(_)) | Poll::Pending) => other,
        };
        match finished {
            Poll::Ready(Ok(())) => {
                ends.fin_queued = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_closed)) => Poll::Ready(Err(self.lost(&ends))),
            Poll::Pending => {
                remember(&mut ends.writer, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let engine = {
            let mut ends = lock(&self.cell.ends);
            ends.chunk = None;
            let engine = ends.engine.take();
            if engine.is_some() {
                self.session.ledger.retire(&self.cell, ends.fin_queued);
            }
            if let Some(watcher) = ends.watcher.take() {
                watcher.wake();
            }
            engine
        };
        // Counted before the engine hears of it: its end wakes the driver, which then sees the count.
        self.session.stream_ended(self.cell.direction);
        drop(engine);
    }
}

/// Resolves when its stream is of no more use: reset by the peer, shed, lost with its session, or dropped here.
///
/// For whoever serves a stream and has, for the moment, nothing to read or write: one that is told only by reads and
/// writes never hears of a peer that left while its bytes waited for room elsewhere. A peer that merely finished its
/// side has not left. Only the last task that asked is woken.
#[derive(Clone)]
#[must_use = "it tells only whoever waits for it"]
pub struct Watch {
    cell: Arc<Cell>,
}

impl Watch {
    /// Ready once the stream was shed: reset here, because its session or the process held too much that nobody read.
    /// For whoever passes the stream on to a reader that is stuck: what is held for that reader can be let go as well.
    pub fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ends = lock(&self.cell.ends);
        if ends.shed {
            return Poll::Ready(());
        }
        remember(&mut ends.watcher, cx);
        Poll::Pending
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut ends = lock(&self.cell.ends);
        // Looked at under the lock under which the waker is taken, so that no end slips through between.
        if ends.engine.is_none() || ends.cut || self.cell.reset_in() {
            return Poll::Ready(());
        }
        remember(&mut ends.watcher, cx);
        Poll::Pending
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("stream", &self.cell.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.cell.id).finish_non_exhaustive()
    }
}

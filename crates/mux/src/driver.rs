//! The one owner of the protocol engine. Polled by a task of the caller; touches the engine, and through
//! it the transport. It never waits for anything but its next turn: all queues that it fills are
//! bounded and it refuses what does not fit.

mod liveness;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::AsyncWrite as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::cell::{Cell, Direction};
use crate::close::CloseReason;
use crate::config::{Config, Role};
use crate::lock::lock;
use crate::session::Session;
use crate::shim::Shim;
use crate::stream::Stream;

use liveness::Liveness;

/// The longest that the farewell of a drained session may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Does a session's work. Resolves, once, to why the session ended; until then it must be polled, and
/// dropping it cuts the session with [`CloseReason::DriverDropped`].
///
/// Needs a tokio runtime with time enabled where it is polled.
#[must_use = "nothing moves unless the driver is polled"]
pub struct Driver<T> {
    engine: Option<yamux::Connection<Shim<T>>>,
    session: Arc<Session>,
    liveness: Liveness,
    farewell: Option<Farewell>,
    farewell_time: Duration,
    ids_left: u32,
}

/// The last act of a session that ends in good order.
struct Farewell {
    reason: CloseReason,
    deadline: Pin<Box<Sleep>>,
}

impl<T> Driver<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(io: T, config: &Config, session: Arc<Session>) -> Self {
        let mode = match config.role {
            Role::Client => yamux::Mode::Client,
            Role::Server => yamux::Mode::Server,
        };
        let shim = Shim::new(io, config, Arc::clone(&session));
        Self {
            engine: Some(yamux::Connection::new(shim, config.engine(), mode)),
            session,
            liveness: Liveness::new(config.read_silence, config.write_stall),
            farewell: None,
            farewell_time: config.write_stall.min(FAREWELL),
            ids_left: config.max_stream_ids,
        }
    }

    /// One turn while the session is up; the reason when it is to end at once.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        // The session may have slept; what is opened and read in this turn belongs to now.
        self.session.ledger.tick(self.session.ms_since_start(Instant::now()));
        if let Some(reason) = self.session.verdict() {
            return Some(reason);
        }
        if let Some(reason) = self.serve_opens(cx) {
            return Some(reason);
        }
        loop {
            match self.engine.as_mut()?.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => self.admit(stream, cx),
                Poll::Ready(Some(Err(error))) => {
                    return Some(self.blame(CloseReason::from_engine(&error)));
                }
                Poll::Ready(None) => return Some(self.blame(CloseReason::PeerClosed)),
                Poll::Pending => break,
            }
        }
        if let Some(reason) = self.session.verdict() {
            return Some(reason);
        }
        // What arrived may have made room.
        if let Some(reason) = self.serve_opens(cx) {
            return Some(reason);
        }
        if !self.session.wire.blocked.load(Ordering::Relaxed) {
            // The engine has written and forgotten whatever was dropped before this turn.
            self.session.reap();
        }
        self.liveness.check(&self.session, cx)
    }

    /// The reason for an end that came through the engine: what the shim found, if it found something.
    fn blame(&self, reason: CloseReason) -> CloseReason {
        self.session.verdict().or_else(|| self.session.drained()).unwrap_or(reason)
    }

    /// Gives streams to those who asked for them, as far as the engine has them to give.
    fn serve_opens(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        while self.session.opens_waiting()
            && let Some(request) = self.session.next_open()
        {
            if request.answer.is_closed() {
                continue;
            }
            if let Err(refusal) = self.session.may_open() {
                // An error here means that the caller gave up, which is as well.
                let _gone = request.answer.send(Err(refusal));
                continue;
            }
            match self.engine.as_mut()?.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    let stream = self.outbound(stream);
                    request.place.fill();
                    if let Err(unwanted) = request.answer.send(Ok(stream)) {
                        drop(unwanted);
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Some(self.blame(CloseReason::from_engine(&error)));
                }
                Poll::Pending => {
                    // Too many that the peer has not acknowledged; some of them perhaps because it
                    // has not been told of them.
                    self.session.put_back(request);
                    self.announce_all(cx);
                    break;
                }
            }
        }
        None
    }

    fn outbound(&mut self, engine: yamux::Stream) -> Stream {
        let session = &self.session;
        let cell = Arc::new(Cell::new(engine.id().val(), Direction::Outbound, session.ledger.now_ms()));
        cell.attach(engine);
        let fresh = session.ledger.enter(Arc::clone(&cell));
        debug_assert!(fresh, "the engine gives no id twice");
        session.opened_total.fetch_add(1, Ordering::Relaxed);
        self.ids_left = self.ids_left.saturating_sub(1);
        if self.ids_left == 0 {
            session.drain(CloseReason::StreamIdsExhausted);
        }
        Stream::new(cell, Arc::clone(session))
    }

    fn announce_all(&self, cx: &mut Context<'_>) {
        for cell in self.session.ledger.cells() {
            if cell.direction == Direction::Outbound {
                cell.announce(cx);
            }
        }
    }

    /// Queues a stream of the peer, or resets it when nobody can take it.
    fn admit(&self, mut engine: yamux::Stream, cx: &mut Context<'_>) {
        let session = &self.session;
        let id = engine.id().val();
        session.take_inbound();
        // An empty write carries the acknowledgement. A Go peer kills a session over a stream that is
        // not acknowledged in time, and holds back opens meanwhile. Cannot block: the queue is empty.
        let _sent = Pin::new(&mut engine).poll_write(cx, &[]);
        let Some(cell) = session.ledger.find(id) else {
            debug_assert!(false, "the shim enters every stream that it lets pass");
            session.stream_ended(Direction::Inbound);
            return;
        };
        cell.attach(engine);
        let stream = Stream::new(cell, Arc::clone(session));
        let (refused, acceptor) = {
            let mut arrivals = lock(&session.arrivals);
            if arrivals.shut || arrivals.queue.len() >= session.accept_backlog {
                (Some(stream), None)
            } else {
                arrivals.queue.push_back(stream);
                (None, arrivals.acceptor.take())
            }
        };
        if let Some(refused) = refused {
            session.count_refused();
            refused.reset();
            return;
        }
        session.accepted_total.fetch_add(1, Ordering::Relaxed);
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let Some(farewell) = &mut self.farewell else {
            return Poll::Pending;
        };
        if let Some(verdict) = self.session.verdict() {
            return Poll::Ready(verdict);
        }
        let said = self.engine.as_mut().is_none_or(|engine| engine.poll_close(cx).is_ready());
        if said || farewell.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(farewell.reason.clone());
        }
        Poll::Pending
    }

    fn finish(&mut self, reason: CloseReason) -> CloseReason {
        // First the engine, and with it the transport: streams see the end before it has a name.
        self.engine = None;
        tracing::debug!(reason = reason.label(), "session ended");
        self.session.finish(reason);
        self.session.close_reason()
    }
}

impl<T> Future for Driver<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    type Output = CloseReason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = self.get_mut();
        this.session.register_driver(cx.waker());
        if this.farewell.is_none() {
            if let Some(reason) = this.turn(cx) {
                return Poll::Ready(this.finish(reason));
            }
            let Some(reason) = this.session.drained() else {
                return Poll::Pending;
            };
            let deadline = Box::pin(tokio::time::sleep(this.farewell_time));
            this.farewell = Some(Farewell { reason, deadline });
        }
        match this.poll_farewell(cx) {
            Poll::Ready(reason) => Poll::Ready(this.finish(reason)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.engine = None;
        self.session.finish(CloseReason::DriverDropped);
    }
}

impl<T> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("stats", &self.session.stats()).finish_non_exhaustive()
    }
}

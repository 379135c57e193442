//! What the driver, the handles and the streams of one session share, and the function that makes a
//! session. Everything here is a counter, a flag or a short lock; nobody waits in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::cell::Direction;
use crate::close::CloseReason;
use crate::config::Config;
use crate::driver::Driver;
use crate::gate::Gate;
use crate::handle::{Handle, OpenError};
use crate::incoming::Incoming;
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::ping::Pings;
use crate::places::{Place, Places};
use crate::stats::Stats;
use crate::stream::Stream;

/// Makes a session over a transport: the opening side, the accepting side, and the driver that must be
/// polled (spawn it) for either to move.
///
/// A `config` that did not pass [`Config::build`] is moved to the nearest legal one. Dropping the
/// driver cuts the session; dropping the last [`Handle`] and the [`Incoming`] drains it.
pub fn session<T>(io: T, config: Config) -> (Handle, Incoming, Driver<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = config.legal();
    let session = Arc::new(Session::new(&config));
    let door = Arc::new(Door(Arc::clone(&session)));
    let handle = Handle::new(Arc::clone(&session), Arc::clone(&door));
    let incoming = Incoming::new(Arc::clone(&session), door);
    (handle, incoming, Driver::new(io, &config, session))
}

const OPEN: u8 = 0;
const DRAINING: u8 = 1;
const CLOSED: u8 = 2;

/// A caller that waits for a stream.
pub(crate) struct OpenRequest {
    pub(crate) place: Place,
    pub(crate) answer: oneshot::Sender<Result<Stream, OpenError>>,
}

/// The peer's streams that wait for `Incoming::accept`.
#[derive(Default)]
pub(crate) struct Arrivals {
    pub(crate) queue: VecDeque<Stream>,
    /// Nobody will ever accept again.
    pub(crate) shut: bool,
    pub(crate) acceptor: Option<Waker>,
}

/// Numbers that only the driver's thread writes, so that plain stores do.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    /// Bytes wait and the transport takes none.
    pub(crate) blocked: AtomicBool,
}

impl Wire {
    pub(crate) fn add(counter: &AtomicU64, bytes: usize) {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(bytes as u64);
        counter.store(sum, Ordering::Relaxed);
    }
}

/// Held by all handles and the incoming side; when the last is gone nothing can be opened or accepted
/// any more, and the session drains.
pub(crate) struct Door(Arc<Session>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.drain(CloseReason::Drained);
    }
}

pub(crate) struct Session {
    pub(crate) outbound: Places,
    pub(crate) inbound: Places,
    pub(crate) accept_backlog: usize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) gate: Gate,
    pub(crate) wire: Wire,
    pub(crate) pings: Pings,
    pub(crate) arrivals: Mutex<Arrivals>,
    pub(crate) opened_total: AtomicU64,
    pub(crate) accepted_total: AtomicU64,
    pub(crate) refused_total: AtomicU64,
    opens: Mutex<VecDeque<OpenRequest>>,
    opens_waiting: AtomicBool,
    driver: AtomicWaker,
    state: AtomicU8,
    /// Why the session is to end: set by whoever wants it to, carried out by the driver.
    verdict: Mutex<Option<CloseReason>>,
    has_verdict: AtomicBool,
    /// What the end will be called once all streams of a draining session are gone.
    drain_reason: OnceLock<CloseReason>,
    closed: OnceLock<CloseReason>,
    changed: Notify,
    epoch: Instant,
    last_read_ms: AtomicU64,
}

impl Session {
    fn new(config: &Config) -> Self {
        Self {
            outbound: Places::new(config.max_outbound_streams),
            inbound: Places::new(config.max_inbound_streams),
            accept_backlog: config.accept_backlog,
            ledger: Ledger::join(config.session_memory, &config.memory),
            gate: Gate::new(config.send_queue),
            wire: Wire::default(),
            pings: Pings::default(),
            arrivals: Mutex::default(),
            opened_total: AtomicU64::new(0),
            accepted_total: AtomicU64::new(0),
            refused_total: AtomicU64::new(0),
            opens: Mutex::default(),
            opens_waiting: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            state: AtomicU8::new(OPEN),
            verdict: Mutex::default(),
            has_verdict: AtomicBool::new(false),
            drain_reason: OnceLock::new(),
            closed: OnceLock::new(),
            changed: Notify::new(),
            epoch: Instant::now(),
            last_read_ms: AtomicU64::new(0),
        }
    }

    // The opening side.

    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Place, OpenError> {
        self.may_open()?;
        Place::take(self).ok_or_else(|| {
            self.count_refused();
            OpenError::Limit
        })
    }

    pub(crate) fn may_open(&self) -> Result<(), OpenError> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            DRAINING => Err(OpenError::Draining),
            _ => Err(OpenError::Closed(self.close_reason())),
        }
    }

    /// Asks the driver for a stream. The request is answered, or dropped when the session ends.
    pub(crate) fn ask(&self, request: OpenRequest) {
        lock(&self.opens).push_back(request);
        self.opens_waiting.store(true, Ordering::Release);
        if self.state.load(Ordering::Acquire) == CLOSED {
            // The driver may have looked for the last time already.
            lock(&self.opens).clear();
        }
        self.driver.wake();
    }

    pub(crate) fn opens_waiting(&self) -> bool {
        self.opens_waiting.load(Ordering::Acquire)
    }

    pub(crate) fn next_open(&self) -> Option<OpenRequest> {
        let mut opens = lock(&self.opens);
        let next = opens.pop_front();
        if next.is_none() {
            self.opens_waiting.store(false, Ordering::Release);
        }
        next
    }

    pub(crate) fn put_back(&self, request: OpenRequest) {
        lock(&self.opens).push_front(request);
    }

    // Ending.

    /// Opens nothing any more; the driver ends with this reason when the last stream is gone.
    pub(crate) fn drain(&self, reason: CloseReason) {
        if self.drain_reason.set(reason).is_ok() {
            let _was = self.state.compare_exchange(OPEN, DRAINING, Ordering::AcqRel, Ordering::Acquire);
            self.changed.notify_waiters();
            self.driver.wake();
        }
    }

    /// Ends the session at the driver's next turn. The first verdict stands.
    pub(crate) fn condemn(&self, reason: CloseReason) {
        lock(&self.verdict).get_or_insert(reason);
        self.has_verdict.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(crate) fn verdict(&self) -> Option<CloseReason> {
        if !self.has_verdict.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.verdict).clone()
    }

    /// The reason to end with if this session drains and nothing is left in it.
    pub(crate) fn drained(&self) -> Option<CloseReason> {
        if self.state.load(Ordering::Acquire) != DRAINING {
            return None;
        }
        let empty = self.outbound.used() == 0 && self.inbound.used() == 0;
        empty.then(|| self.drain_reason.get().cloned().unwrap_or(CloseReason::Drained))
    }

    /// Writes down the end and tells everybody. Only the driver calls this, after it let go of the
    /// engine, so that streams see the end of the session before anybody hears the reason.
    pub(crate) fn finish(&self, reason: CloseReason) {
        if self.closed.set(reason).is_err() {
            return;
        }
        self.state.store(CLOSED, Ordering::Release);
        let opens = std::mem::take(&mut *lock(&self.opens));
        drop(opens);
        let (queue, acceptor) = {
            let mut arrivals = lock(&self.arrivals);
            arrivals.shut = true;
            (std::mem::take(&mut arrivals.queue), arrivals.acceptor.take())
        };
        drop(queue);
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
        self.gate.break_open();
        self.ledger.end();
        self.pings.give_up();
        for cell in self.ledger.cells() {
            let mut ends = lock(&cell.ends);
            ends.cut = true;
            ends.wake_all();
        }
        self.changed.notify_waiters();
    }

    pub(crate) fn close_reason(&self) -> CloseReason {
        self.closed.get().cloned().unwrap_or(CloseReason::DriverDropped)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            let changed = self.changed.notified();
            if let Some(reason) = self.closed.get() {
                return reason.clone();
            }
            changed.await;
        }
    }

    pub(crate) async fn not_open(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_open() {
                return;
            }
            changed.await;
        }
    }

    // Streams.

    /// A stream's owner let it go.
    pub(crate) fn stream_ended(&self, direction: Direction) {
        self.places(direction).end_one();
        self.wake_driver_if_draining();
    }

    pub(crate) fn places(&self, direction: Direction) -> &Places {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    /// Counts a stream of the peer. The limit was checked when its first frame passed the shim.
    pub(crate) fn take_inbound(&self) {
        self.inbound.add();
    }

    pub(crate) fn reap(&self) {
        self.outbound.reap();
        self.inbound.reap();
    }

    pub(crate) fn count_refused(&self) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
    }

    // The driver.

    pub(crate) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Asks for a round trip. The answer fails when the session ends.
    pub(crate) fn ping(&self) -> oneshot::Receiver<Duration> {
        let answered = self.pings.ask();
        if self.state.load(Ordering::Acquire) == CLOSED {
            self.pings.give_up();
        }
        self.driver.wake();
        answered
    }

    pub(crate) fn wake_driver_if_draining(&self) {
        if self.state.load(Ordering::Acquire) == DRAINING {
            self.driver.wake();
        }
    }

    pub(crate) fn ms_since_start(&self, now: Instant) -> u64 {
        let ms = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(ms).unwrap_or(u64::MAX)
    }

    pub(crate) fn read_at(&self, now: Instant) {
        self.last_read_ms.store(self.ms_since_start(now), Ordering::Relaxed);
    }

    pub(crate) fn last_read_age(&self) -> Duration {
        let now = self.ms_since_start(Instant::now());
        Duration::from_millis(now.saturating_sub(self.last_read_ms.load(Ordering::Relaxed)))
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            streams_open_outbound: self.outbound.open(),
            streams_open_inbound: self.inbound.open(),
            opened_total: self.opened_total.load(Ordering::Relaxed),
            accepted_total: self.accepted_total.load(Ordering::Relaxed),
            refused_total: self.refused_total.load(Ordering::Relaxed),
            shed_total: self.ledger.sheds(),
            bytes_read: self.wire.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.wire.bytes_written.load(Ordering::Relaxed),
            buffered: self.ledger.buffered(),
            unsent: self.gate.unsent(),
        }
    }
}

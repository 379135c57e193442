//! One stream's state that its owner, the driver and a shedding session share. Used by `stream`,
//! `ledger`, `gate` and `driver`; touches the engine's half of the stream under its own lock.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use futures_util::AsyncWrite as _;

use crate::ledger::Ledger;
use crate::lock::lock;

const LIVE: u8 = 1;
const FIN_IN: u8 = 2;
const RESET_IN: u8 = 4;
const FIN_OUT: u8 = 8;

/// Which side opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Outbound,
    Inbound,
}

/// Bytes taken from the engine and not yet given to the owner.
pub(crate) struct Chunk {
    pub(crate) packet: yamux::Packet,
    pub(crate) at: usize,
}

/// The part of a stream that only one thread at a time may touch.
#[derive(Default)]
pub(crate) struct Ends {
    /// The engine's half; gone once the stream was dropped or shed.
    pub(crate) engine: Option<yamux::Stream>,
    pub(crate) chunk: Option<Chunk>,
    /// The peer knows of the stream, or will with a frame that is queued. Until then it does not exist
    /// for the peer: the engine opens lazily.
    pub(crate) announced: bool,
    /// Our FIN is queued or sent.
    pub(crate) fin_queued: bool,
    pub(crate) shed: bool,
    /// The session has ended.
    pub(crate) cut: bool,
    /// On the gate's list already.
    pub(crate) gated: bool,
    /// Who to wake if the stream is shed, the gate opens or the session ends. The engine has wakers of
    /// its own, but loses them with its half of the stream.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Who waits for the stream to be shed or given up, whatever else is done with it meanwhile.
    pub(crate) watcher: Option<Waker>,
}

impl Ends {
    /// Tells the peer of a stream that exists only here so far, with an empty data frame.
    pub(crate) fn announce(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.announced
            && let Some(engine) = &mut self.engine
        {
            ready!(Pin::new(engine).poll_write(cx, &[]))?;
            self.announced = true;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take(), self.watcher.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

pub(crate) struct Cell {
    pub(crate) id: u32,
    pub(crate) direction: Direction,
    flags: AtomicU8,
    unread: AtomicUsize,
    /// When the owner last read something, on the ledger's clock.
    read_at: AtomicU64,
    pub(crate) ends: Mutex<Ends>,
}

impl Cell {
    /// A stream that is known by its id only.
    pub(crate) fn new(id: u32, direction: Direction, now_ms: u64) -> Self {
        Self {
            id,
            direction,
            flags: AtomicU8::new(0),
            unread: AtomicUsize::new(0),
            read_at: AtomicU64::new(now_ms),
            ends: Mutex::default(),
        }
    }

    /// Gives the stream its engine half.
    pub(crate) fn attach(&self, engine: yamux::Stream) {
        let mut ends = lock(&self.ends);
        ends.announced = self.direction == Direction::Inbound;
        ends.engine = Some(engine);
        self.mark(LIVE);
    }

    /// Takes the engine's half away and wakes whoever waits. False when it was gone already.
    pub(crate) fn shed(&self, ledger: &Ledger) -> bool {
        let mut ends = lock(&self.ends);
        let Some(engine) = ends.engine.take() else { return false };
        ends.chunk = None;
        ends.shed = true;
        ledger.retire(self, ends.fin_queued);
        drop(engine);
        ends.wake_all();
        true
    }

    /// Tells the peer of a stream that its owner has not used yet.
    pub(crate) fn announce(&self, cx: &mut Context<'_>) {
        // An error shows when the owner uses the stream; pending is impossible on an empty queue.
        let _shown_later = lock(&self.ends).announce(cx);
    }

    fn mark(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
    }

    fn is(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }

    pub(crate) fn is_live(&self) -> bool {
        self.is(LIVE)
    }

    pub(crate) fn mark_fin_in(&self) {
        self.mark(FIN_IN);
    }

    pub(crate) fn fin_in(&self) -> bool {
        self.is(FIN_IN)
    }

    /// The peer reset the stream. Locks the stream's ends, so never to be called with the ledger locked.
    pub(crate) fn reset_by_peer(&self) {
        self.mark(RESET_IN);
        // Reader and writer are woken by the engine, which hears of it next.
        if let Some(watcher) = lock(&self.ends).watcher.take() {
            watcher.wake();
        }
    }

    pub(crate) fn reset_in(&self) -> bool {
        self.is(RESET_IN)
    }

    pub(crate) fn mark_fin_out(&self) {
        self.mark(FIN_OUT);
    }

    pub(crate) fn fin_out(&self) -> bool {
        self.is(FIN_OUT)
    }

    pub(crate) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn read_at(&self) -> u64 {
        self.read_at.load(Ordering::Relaxed)
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes bytes that were read off the account; gives how many. Never more than were on it: an error
    /// here would run through to the process's budget and have every stream shed.
    pub(crate) fn refund(&self, bytes: usize, now_ms: u64) -> usize {
        self.read_at.store(now_ms, Ordering::Relaxed);
        let take = |unread: usize| Some(unread.saturating_sub(bytes));
        let before = self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let refunded = before.unwrap_or_else(|unread| unread).min(bytes);
        debug_assert_eq!(refunded, bytes, "bytes were read that never arrived");
        refunded
    }

    /// Empties the account and says what was in it.
    pub(crate) fn drain(&self) -> usize {
        self.unread.swap(0, Ordering::Relaxed)
    }
}

//! What each stream of a session holds, and how each stream that is given up says farewell.
//!
//! Written by `shim` (what arrives, what leaves), by `Stream` (what is read, what is dropped) and, when
//! the process's budget is exceeded, by other sessions. Lock order: a stream's `Ends`, then the ledger;
//! never the other way round.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::budget::MemoryBudget;
use crate::cell::Cell;
use crate::lock::lock;

/// A stream that nobody has read from for this long is stalled when one must be chosen, and none more so.
const STALLED_MS: u64 = 1_000;

/// How a stream that was dropped before both sides had finished is made known to the peer. The engine
/// alone would end two such streams as if they were complete, or not tell the peer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Our side never finished, so a FIN that the engine sends for the dropped stream is a lie.
    ResetInsteadOfFin,
    /// Our side finished and the FIN is still on its way; a reset follows it, or the peer would wait
    /// for credit for ever.
    ResetAfterFin,
}

#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Ids are sequential; the table takes its tag from the top bits and its bucket from the lower.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type ById<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct State {
    cells: ById<Arc<Cell>>,
    farewells: ById<Farewell>,
    resets: Vec<u32>,
    /// The session has ended, and nobody is left to say farewell to.
    ended: bool,
}

/// The accounts of one session.
pub(crate) struct Ledger {
    state: Mutex<State>,
    has_resets: AtomicBool,
    buffered: AtomicUsize,
    limit: usize,
    sheds: AtomicU64,
    budget: MemoryBudget,
    membership: u64,
    /// Milliseconds since the session began, as of the beginning of the driver's last turn.
    clock: AtomicU64,
}

impl Ledger {
    /// A ledger with a limit of its own, in bytes, that also counts towards a shared budget.
    pub(crate) fn join(limit: usize, budget: &MemoryBudget) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            has_resets: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            limit,
            sheds: AtomicU64::new(0),
            membership: budget.join(Weak::clone(this)),
            budget: budget.clone(),
            clock: AtomicU64::new(0),
        })
    }

    /// Unread bytes held by this session's streams.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    pub(crate) fn sheds(&self) -> u64 {
        self.sheds.load(Ordering::Relaxed)
    }

    pub(crate) fn tick(&self, now_ms: u64) {
        self.clock.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Opens an account; false, and nothing done, if there is one under this id.
    pub(crate) fn enter(&self, cell: Arc<Cell>) -> bool {
        match lock(&self.state).cells.entry(cell.id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(cell);
                true
            }
        }
    }

    pub(crate) fn find(&self, id: u32) -> Option<Arc<Cell>> {
        lock(&self.state).cells.get(&id).cloned()
    }

    /// All streams that exist.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        lock(&self.state).cells.values().cloned().collect()
    }

    /// Takes note of body bytes on their way to a stream, and sheds streams while a budget is exceeded.
    pub(crate) fn arrive(&self, id: u32, bytes: usize) {
        {
            let state = lock(&self.state);
            let Some(cell) = state.cells.get(&id) else {
                // Given up already: the engine throws the bytes away.
                return;
            };
            cell.charge(bytes);
            self.buffered.fetch_add(bytes, Ordering::Relaxed);
        }
        if self.budget.charge(bytes) || self.buffered() > self.limit {
            self.relieve();
        }
    }

    /// Takes note of bytes that a stream's owner has read.
    pub(crate) fn consume(&self, cell: &Cell, bytes: usize) {
        let refunded = cell.refund(bytes, self.now_ms());
        self.release(refunded);
    }

    fn release(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.refund(bytes);
    }

    /// The peer finished its side of a stream.
    pub(crate) fn fin_arrived(&self, id: u32) {
        if let Some(cell) = lock(&self.state).cells.get(&id) {
            cell.mark_fin_in();
        }
    }

    /// The peer reset a stream.
    pub(crate) fn reset_arrived(&self, id: u32) {
        let cell = {
            let mut state = lock(&self.state);
            state.farewells.remove(&id);
            state.cells.get(&id).cloned()
        };
        if let Some(cell) = cell {
            cell.reset_by_peer();
        }
    }

    /// A FIN or reset of ours goes on the wire. Tells what else the peer must hear.
    pub(crate) fn end_leaves(&self, id: u32) -> Option<Farewell> {
        let mut state = lock(&self.state);
        if let Some(cell) = state.cells.get(&id) {
            cell.mark_fin_out();
        }
        state.farewells.remove(&id)
    }

    /// Forgets a stream that its owner dropped or that was shed, and arranges its farewell. Gives false
    /// when that was done before. Call it before the engine's half is dropped, whose frames it judges.
    pub(crate) fn retire(&self, cell: &Cell, fin_queued: bool) -> bool {
        {
            let mut state = lock(&self.state);
            if state.cells.remove(&cell.id).is_none() {
                return false;
            }
            if state.ended || cell.reset_in() || (fin_queued && cell.fin_in()) {
                // Over on both sides: nothing to say.
            } else if !fin_queued {
                state.farewells.insert(cell.id, Farewell::ResetInsteadOfFin);
            } else if cell.fin_out() {
                state.resets.push(cell.id);
                self.has_resets.store(true, Ordering::Release);
            } else {
                state.farewells.insert(cell.id, Farewell::ResetAfterFin);
            }
        }
        self.release(cell.drain());
        true
    }

    /// The session has ended. Streams whose owners still have them stay on the books for what they hold.
    pub(crate) fn end(&self) {
        let mut ownerless = 0;
        {
            let mut state = lock(&self.state);
            state.ended = true;
            state.farewells = ById::default();
            state.resets = Vec::new();
            // The end came between the first frame of a stream and its turn.
            state.cells.retain(|_, cell| {
                if !cell.is_live() {
                    ownerless += cell.drain();
                }
                cell.is_live()
            });
        }
        self.release(ownerless);
    }

    /// The streams whose reset has to be written now.
    pub(crate) fn take_resets(&self) -> Vec<u32> {
        if !self.has_resets.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        self.has_resets.store(false, Ordering::Release);
        std::mem::take(&mut state.resets)
    }

    /// Streams, farewells and resets that are still on the books.
    #[cfg(test)]
    pub(crate) fn leftovers(&self) -> (usize, usize, usize) {
        let state = lock(&self.state);
        (state.cells.len(), state.farewells.len(), state.resets.len())
    }

    /// The process holds so much more than it may that shedding evidently does not help.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.budget.is_far_exceeded()
    }

    /// Sheds until both budgets hold, or nothing is left to shed.
    fn relieve(&self) {
        while self.buffered() > self.limit {
            if !self.shed_one() {
                break;
            }
        }
        while self.budget.is_exceeded() {
            // Not necessarily us: the process's budget is relieved where most is held.
            let shed = match self.budget.heaviest() {
                Some(heaviest) => heaviest.shed_one(),
                None => self.shed_one(),
            };
            if !shed {
                break;
            }
        }
    }

    /// Resets the stream that was not read for longest, and of those alike the one that holds most. Times count as alike
    /// when they are within a factor of two: a reader that is busy just now holds much as well, and is to be spared. So
    /// is one that holds next to nothing.
    fn shed_one(&self) -> bool {
        let now = self.now_ms();
        let victim = {
            let state = lock(&self.state);
            let holders = || state.cells.values().filter(|cell| cell.is_live() && cell.unread() > 0);
            let (count, held) = holders().fold((0, 0_usize), |(count, held), cell| (count + 1, held + cell.unread()));
            let worth_it = held / count.max(1) / 4;
            holders()
                .filter(|cell| cell.unread() >= worth_it)
                .max_by_key(|cell| {
                    let still = now.saturating_sub(cell.read_at());
                    let order = u64::BITS - still.min(STALLED_MS).leading_zeros();
                    (order, cell.unread(), still)
                })
                .cloned()
        };
        let Some(victim) = victim else { return false };
        if victim.shed(self) {
            self.sheds.fetch_add(1, Ordering::Relaxed);
            self.budget.count_shed();
        }
        true
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.budget.leave(self.membership);
    }
}

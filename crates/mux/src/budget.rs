//! The process-wide limit on bytes that arrived and were not read. Shared by the ledgers of all
//! sessions that were configured with it; touches nothing but them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::ledger::Ledger;
use crate::lock::lock;

/// A limit, in bytes, on what all sessions that share it hold in unread stream data. A clone is another
/// handle on the same budget.
///
/// When an arrival exceeds it, the session that holds most loses the stream that has held most for
/// longest without being read: that stream is reset and counted, and all others go on. Nothing refuses
/// bytes up front, so the use may pass the limit by one frame (at most 1 MiB) for each session.
#[derive(Clone)]
pub struct MemoryBudget {
    inner: Arc<Inner>,
}

struct Inner {
    limit: usize,
    used: AtomicUsize,
    sheds: AtomicU64,
    next_key: AtomicU64,
    members: Mutex<HashMap<u64, Weak<Ledger>>>,
}

impl MemoryBudget {
    /// A budget of so many bytes; less than 1 MiB counts as 1 MiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit: bytes.max(1 << 20),
                used: AtomicUsize::new(0),
                sheds: AtomicU64::new(0),
                next_key: AtomicU64::new(0),
                members: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// Unread bytes held now by all sessions.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// Streams reset because of this budget, or of a session's own, since it was made.
    #[must_use]
    pub fn sheds(&self) -> u64 {
        self.inner.sheds.load(Ordering::Relaxed)
    }

    /// Takes a session in; the key is for leaving again.
    pub(crate) fn join(&self, member: Weak<Ledger>) -> u64 {
        let key = self.inner.next_key.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner.members).insert(key, member);
        key
    }

    pub(crate) fn leave(&self, key: u64) {
        lock(&self.inner.members).remove(&key);
    }

    /// Takes note of bytes that arrived; true when the limit is now exceeded.
    pub(crate) fn charge(&self, bytes: usize) -> bool {
        let before = self.inner.used.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) > self.inner.limit
    }

    pub(crate) fn refund(&self, bytes: usize) {
        self.inner.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.inner.limit
    }

    /// Exceeded so far that resetting streams has evidently not helped.
    pub(crate) fn is_far_exceeded(&self) -> bool {
        self.used() / 2 > self.inner.limit
    }

    pub(crate) fn count_shed(&self) {
        self.inner.sheds.fetch_add(1, Ordering::Relaxed);
    }

    /// The session that holds most.
    pub(crate) fn heaviest(&self) -> Option<Arc<Ledger>> {
        // Gathered first: a ledger whose last owner has just gone leaves, and locks, when dropped here.
        let members: Vec<_> = lock(&self.inner.members).values().filter_map(Weak::upgrade).collect();
        members.into_iter().max_by_key(|ledger| ledger.buffered())
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("limit", &self.inner.limit)
            .field("used", &self.used())
            .field("sheds", &self.sheds())
            .finish_non_exhaustive()
    }
}

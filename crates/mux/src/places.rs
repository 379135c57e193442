//! How many streams there may be, one count for each direction. Taken by openers and by the driver, given
//! back by the driver; touches nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::session::Session;

/// How many streams of one direction exist.
pub(crate) struct Places {
    limit: usize,
    used: AtomicUsize,
    /// Dropped by their owners, perhaps still known to the engine, which forgets them only when it can
    /// write. Their places become free after the driver's next unhindered turn.
    ended: AtomicUsize,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), ended: AtomicUsize::new(0) }
    }

    /// Takes a place if one is free.
    pub(crate) fn take(&self) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < self.limit).then_some(used.wrapping_add(1))
            })
            .is_ok()
    }

    /// Takes a place for a stream that exists already.
    pub(crate) fn add(&self) {
        self.used.fetch_add(1, Ordering::AcqRel);
    }

    /// A stream's owner let it go.
    pub(crate) fn end_one(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    /// The streams whose owners still have them.
    pub(crate) fn open(&self) -> usize {
        self.used().saturating_sub(self.ended.load(Ordering::Acquire))
    }

    /// Frees the places of streams that ended.
    pub(crate) fn reap(&self) {
        if self.ended.load(Ordering::Acquire) > 0 {
            let ended = self.ended.swap(0, Ordering::AcqRel);
            self.used.fetch_sub(ended, Ordering::AcqRel);
        }
    }
}

/// A reserved place for an outbound stream; free again when dropped before the stream exists.
pub(crate) struct Place(Option<Arc<Session>>);

impl Place {
    /// Takes a place among the outbound streams, if one is free.
    pub(crate) fn take(session: &Arc<Session>) -> Option<Self> {
        session.outbound.take().then(|| Self(Some(Arc::clone(session))))
    }

    /// The stream exists now and gives the place back when it ends.
    pub(crate) fn fill(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.outbound.used.fetch_sub(1, Ordering::AcqRel);
            session.wake_driver_if_draining();
        }
    }
}

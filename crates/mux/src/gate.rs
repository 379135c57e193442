//! Holds writers back while too many bytes wait for the transport. Asked by `Stream`, opened by `shim`
//! as frames leave; touches the wakers of the streams that wait.
//!
//! The engine queues up to a dozen frames for each stream, which is little for one and much for a
//! thousand: with a peer that takes nothing, this bound is what keeps the sum small.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::cell::{Cell, Ends};
use crate::lock::lock;

pub(crate) struct Gate {
    limit: usize,
    unsent: AtomicUsize,
    crowded: AtomicBool,
    /// The session has ended: nothing leaves any more, and writers must go on to learn it.
    broken: AtomicBool,
    waiting: Mutex<Vec<Arc<Cell>>>,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            unsent: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Whether a writer may go on. If not, its `ends.writer` is woken once half of the room is free, so
    /// the caller must store a waker there before it lets go of `ends`.
    pub(crate) fn admits(&self, cell: &Arc<Cell>, ends: &mut Ends) -> bool {
        if self.unsent.load(Ordering::SeqCst) < self.limit {
            return true;
        }
        if !ends.gated {
            ends.gated = true;
            lock(&self.waiting).push(Arc::clone(cell));
        }
        self.crowded.store(true, Ordering::SeqCst);
        // The room, or the end, may have come between the two looks, and then nobody opens the gate.
        self.broken.load(Ordering::SeqCst) || self.unsent.load(Ordering::SeqCst) < self.limit / 2
    }

    pub(crate) fn queued(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Ordering::SeqCst);
    }

    /// A frame with so many body bytes goes on the wire.
    pub(crate) fn left(&self, bytes: usize) {
        let before = self.unsent.fetch_sub(bytes, Ordering::SeqCst);
        let now = before.saturating_sub(bytes);
        if now < self.limit / 2 && self.crowded.load(Ordering::SeqCst) {
            self.open();
        }
    }

    /// Holds nobody back from now on.
    pub(crate) fn break_open(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.open();
    }

    /// Lets all who wait try again.
    fn open(&self) {
        self.crowded.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for cell in waiting {
            let mut ends = lock(&cell.ends);
            ends.gated = false;
            if let Some(writer) = ends.writer.take() {
                writer.wake();
            }
        }
    }
}

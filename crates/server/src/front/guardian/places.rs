//! How many requests may share connections to Guardians at once, in all sessions together.
//!
//! `channels` takes a place for each. What waits for its reader on a shared connection is bounded by a window of its own and
//! counted by no budget, so there are only as many places as windows fit into the memory budget: all that waits in the
//! process, counted and not, is at most twice that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The places of a process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// One of them; free again when dropped.
#[derive(Debug)]
pub(in crate::front) struct Place(Arc<AtomicUsize>);

impl Places {
    /// As many places as windows fit into so many bytes.
    pub(crate) fn within(budget: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(budget / super::channels::WINDOW as usize)))
    }

    /// A place, if one is free.
    pub(in crate::front) fn take(&self) -> Option<Place> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.ok().map(|_before| Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

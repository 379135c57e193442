//! How many requests one user, or one cluster, may have running at once.
//!
//! Called by `fairness` (users and clusters) and `doors` (addresses). Touches nothing but its own counters.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The counter of one user or cluster. A [`Slot`] is one running request.
#[derive(Debug)]
pub(crate) struct Slots {
    used: AtomicUsize,
    most: usize,
}

/// One running request. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
}

impl Slots {
    /// Room for `most` requests at once.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    /// Takes a slot, or nothing when all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        self.take_of(self.most)
    }

    /// Takes a slot if fewer than `most` are taken.
    pub(crate) fn take_of(self: &Arc<Self>, most: usize) -> Option<Slot> {
        let before = self.used.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that dropping it gives back what was taken too much.
        let slot = Slot { slots: Arc::clone(self) };
        (before < most).then_some(slot)
    }

    /// How many are left.
    pub(crate) fn free(&self) -> usize {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of all users (or clusters) that have a request running or a connection that remembers them.
#[derive(Debug)]
pub(crate) struct SlotsByName {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bounded by what is alive, of which there are at most as many as connections and running requests: the dead are
    /// swept when their number may have reached that of the living.
    by_name: HashMap<String, Weak<Slots>>,
    sweep_at: usize,
}

/// Below this many entries a sweep is not worth its time.
pub(crate) const SWEEP_MIN: usize = 256;

impl SlotsByName {
    /// Counters of `most` slots each.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, inner: Mutex::new(Inner { by_name: HashMap::new(), sweep_at: SWEEP_MIN }) }
    }

    /// The counter of this name; the same one for as long as anybody holds it.
    pub(crate) fn of(&self, name: &str) -> Arc<Slots> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.by_name.get(name).and_then(Weak::upgrade) {
            return known;
        }
        if inner.by_name.len() >= inner.sweep_at {
            inner.by_name.retain(|_, slots| slots.strong_count() > 0);
            inner.sweep_at = inner.by_name.len().saturating_mul(2).max(SWEEP_MIN);
        }
        let slots = Slots::new(self.most);
        inner.by_name.insert(name.to_owned(), Arc::downgrade(&slots));
        slots
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().unwrap().by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_allowed_at_once() {
        let slots = Slots::new(2);
        let first = slots.take().unwrap();
        let _second = slots.take().unwrap();
        assert!(slots.take().is_none());
        assert!(slots.take().is_none(), "a refusal takes nothing");
        drop(first);
        assert!(slots.take().is_some());
    }

    #[test]
    fn names_share_a_counter_while_it_lives_and_leave_nothing_behind() {
        let users = SlotsByName::new(1);
        let alice = users.of("alice");
        let running = users.of("alice").take().unwrap();
        assert!(alice.take().is_none());
        assert!(users.of("bob").take().is_some());
        drop((alice, running));
        for number in 0..10 * SWEEP_MIN {
            drop(users.of(&number.to_string()));
        }
        assert!(users.len() <= SWEEP_MIN, "{}", users.len());
    }
}

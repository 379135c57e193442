//! The sessions that serve now, for what the agent itself asks of the server: renewal, and connections to services of the
//! management cluster.
//!
//! Filled by `session`, asked by `renewal` and by [`crate::services`]. Whoever opens a stream here counts as a request of
//! its session: a session that is left waits for it, and takes it along when it is cut.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use moorline_model::SessionId;
use moorline_mux::{Handle, OpenError, Stream};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// Sessions that serve, oldest first. Bounded by how many the agent keeps, and how many retired ones it lets finish.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Vec<Usable>>);

/// A session over which something can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Usable {
    id: SessionId,
    handle: Handle,
    running: TaskTracker,
    leaving: Arc<AtomicBool>,
}

/// A stream, and what makes its session wait for it.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) counted: TaskTrackerToken,
}

/// A session serves, until this is dropped.
pub(super) struct Serving<'a> {
    live: &'a Live,
    id: SessionId,
    leaving: Arc<AtomicBool>,
}

impl Live {
    /// A session serves, for as long as the guard lives. `running` counts what it waits for before it ends in order.
    pub(super) fn serving(&self, id: SessionId, handle: Handle, running: TaskTracker) -> Serving<'_> {
        let leaving = Arc::new(AtomicBool::new(false));
        self.locked().push(Usable { id, handle, running, leaving: Arc::clone(&leaving) });
        Serving { live: self, id, leaving }
    }

    /// The sessions on which a stream may be opened, in the order in which they should be tried: the newest first, and
    /// those that are being left after all others.
    pub(crate) fn usable(&self) -> Vec<Usable> {
        let mut usable: Vec<_> =
            self.locked().iter().rev().filter(|session| session.handle.is_open()).cloned().collect();
        usable.sort_by_key(|session| session.leaving.load(Ordering::Acquire));
        usable
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Usable>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usable {
    /// Opens a stream. Nothing is sent yet.
    ///
    /// # Errors
    /// The session has ended, is draining, or carries as much as it may.
    pub(crate) async fn open(&self) -> Result<Opened, OpenError> {
        // Counted first: a session that sees nothing running any more ends, and then this fails.
        let counted = self.running.token();
        let stream = self.handle.open().await?;
        Ok(Opened { stream, counted })
    }
}

impl Serving<'_> {
    /// A successor is on its way, or there already: others are asked first.
    pub(super) fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.live.locked().retain(|session| session.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use moorline_mux::{CloseReason, Config, Role, session};

    use super::*;

    fn named(live: &Live) -> Vec<SessionId> {
        live.usable().iter().map(|session| session.id).collect()
    }

    #[tokio::test]
    async fn the_newest_that_stays_comes_first() {
        let live = Live::default();
        let ids = [1, 2, 3].map(|number| SessionId::from_bytes([number; 16]));
        let mut ends = Vec::new();
        let mut serving = Vec::new();
        for id in ids {
            let (ours, theirs) = tokio::io::duplex(1024);
            let (handle, incoming, driver) = session(ours, Config::new(Role::Client));
            serving.push(live.serving(id, handle.clone(), TaskTracker::new()));
            ends.push((handle, incoming, driver, theirs));
        }
        assert_eq!(named(&live), [ids[2], ids[1], ids[0]]);
        serving[2].leaves();
        assert_eq!(named(&live), [ids[1], ids[0], ids[2]], "only if no other is left");
        ends[1].0.drain();
        assert_eq!(named(&live), [ids[0], ids[2]], "draining");
        ends[0].0.close(CloseReason::Local("test"));
        drop(serving.remove(0));
        assert_eq!(named(&live), [ids[2]]);
        drop(serving);
        assert!(named(&live).is_empty());
    }
}

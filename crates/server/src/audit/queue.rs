//! The bounded way from the requests to one writer, and what happens when it is full: by its [`Mode`], events are dropped
//! and counted, or requests wait and are refused.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, OwnedPermit, error::TrySendError},
        oneshot,
    },
    time::Instant,
};

use super::{entry::Entry, metrics::SinkMetrics};

/// How long a request waits for its event to be written, in [`Mode::Blocking`]; then it is refused.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that may wait for one writer, however few events they are: callers choose how long their URIs are.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Between two log lines about the same trouble.
pub(super) const QUIET: Duration = Duration::from_secs(60);

/// What happens when a sink is slower than the requests, or does not take events at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests go on. Events that find no room are dropped and counted.
    #[default]
    Batch,
    /// A request goes on when its first event is written, and is refused when that takes too long.
    Blocking,
}

/// How a queue is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueConfig {
    /// What happens when it is full.
    pub(crate) mode: Mode,
    /// Events that may wait.
    pub(crate) buffer: usize,
    /// Events that are written together.
    pub(crate) batch: usize,
    /// How long the first of them waits for others.
    pub(crate) wait: Duration,
}

/// An event was not written in time, so the request that it is of must not go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the audit sink {sink:?} did not take the event of the request")]
pub(crate) struct Unrecorded {
    sink: &'static str,
}

#[cfg(test)]
impl Unrecorded {
    pub(crate) fn of(sink: &'static str) -> Self {
        Self { sink }
    }
}

/// The requests' end.
#[derive(Debug)]
pub(super) struct Queue {
    mode: Mode,
    entries: mpsc::Sender<Queued>,
    /// Held by the one request that is taking its two places: were several to take one each of the last, all would wait
    /// for the second in vain.
    turn: Semaphore,
    bytes: Arc<AtomicUsize>,
    metrics: SinkMetrics,
    trouble: Throttle,
}

/// The writer's end.
pub(crate) struct Taker {
    pub(super) entries: mpsc::Receiver<Queued>,
    pub(super) config: QueueConfig,
    pub(super) metrics: SinkMetrics,
}

/// An event that waits for the writer.
pub(super) struct Queued {
    pub(super) entry: Entry,
    /// Told whether it was written.
    pub(super) told: Option<oneshot::Sender<bool>>,
    weight: usize,
    bytes: Arc<AtomicUsize>,
}

/// Room for the last event of a request.
pub(super) struct Place {
    permit: OwnedPermit<Queued>,
    bytes: Arc<AtomicUsize>,
}

/// Both ends of a queue.
pub(super) fn queue(config: QueueConfig, metrics: SinkMetrics) -> (Queue, Taker) {
    let (sender, entries) = mpsc::channel(config.buffer);
    let trouble = Throttle::default();
    let queue = Queue {
        mode: config.mode,
        entries: sender,
        turn: Semaphore::new(1),
        bytes: Arc::default(),
        metrics: metrics.clone(),
        trouble,
    };
    (queue, Taker { entries, config, metrics })
}

impl Queue {
    /// Whether requests wait for their first event to be written.
    pub(super) fn is_waited_for(&self) -> bool {
        self.mode == Mode::Blocking
    }

    /// Hands an event on, or drops and counts it.
    pub(super) fn offer(&self, entry: Entry) {
        let queued = Queued::new(entry, &self.bytes, None);
        let full = self.bytes.load(Ordering::Relaxed) > MAX_BYTES;
        match if full { Err(TrySendError::Full(queued)) } else { self.entries.try_send(queued) } {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.dropped(),
        }
    }

    /// Hands an event on and waits until it is written. Gives room for the last one of the same request.
    ///
    /// # Errors
    /// It was not written within [`PATIENCE`]. It may be, later.
    pub(super) async fn admit(&self, entry: Entry) -> Result<Place, Unrecorded> {
        let unrecorded = Unrecorded { sink: self.metrics.sink };
        let admitted = tokio::time::timeout(PATIENCE, async {
            let (permit, room) = {
                let _turn = self.turn.acquire().await.ok()?;
                (self.entries.clone().reserve_owned().await.ok()?, self.entries.reserve().await.ok()?)
            };
            let (told, written) = oneshot::channel();
            room.send(Queued::new(entry, &self.bytes, Some(told)));
            let place = Place { permit, bytes: Arc::clone(&self.bytes) };
            written.await.unwrap_or(false).then_some(place)
        });
        match admitted.await {
            Ok(Some(place)) => Ok(place),
            Ok(None) => Err(unrecorded),
            Err(_elapsed) => {
                self.metrics.late.inc();
                Err(unrecorded)
            }
        }
    }

    fn dropped(&self) {
        self.metrics.dropped.inc();
        if self.trouble.speaks() {
            let (sink, so_far) = (self.metrics.sink, self.metrics.dropped.get());
            tracing::warn!(sink, so_far, "audit events are dropped: they come faster than the sink takes them");
        }
    }
}

impl Place {
    /// Hands the event on; there is room for it.
    pub(super) fn take(self, entry: Entry) {
        self.permit.send(Queued::new(entry, &self.bytes, None));
    }
}

impl Queued {
    fn new(entry: Entry, bytes: &Arc<AtomicUsize>, told: Option<oneshot::Sender<bool>>) -> Self {
        let weight = entry.weight();
        bytes.fetch_add(weight, Ordering::Relaxed);
        Self { entry, told, weight, bytes: Arc::clone(bytes) }
    }

    /// Tells the request that waits for it, if one does.
    pub(super) fn tell(&mut self, written: bool) {
        if let Some(told) = self.told.take() {
            // An error means that the request has given up.
            told.send(written).unwrap_or_default();
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

/// Lets one of many equal log lines through.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Whether it is time for a line.
    pub(super) fn speaks(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let speaks = last.is_none_or(|last| last.elapsed() >= QUIET);
        if speaks {
            *last = Some(Instant::now());
        }
        speaks
    }
}

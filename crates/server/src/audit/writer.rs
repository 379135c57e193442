//! The writer of one sink: gathers events, writes them together, tries again, and is the last to leave.
//!
//! One task for each sink. It ends when every request has ended after the process was cancelled, and everything that was
//! handed on is written, or its time is up.

use std::{pin::Pin, sync::Arc, time::Duration};

use moorline_process::Phases;
use tokio::time::Instant;

use super::{
    Audit,
    metrics::SinkMetrics,
    queue::{Queued, Taker, Throttle},
};

/// Bytes that are written together at most, or one event if that is larger: what a webhook should take in one request.
const MAX_LINES: usize = 4 * 1024 * 1024;

/// Events that are made into lines before other tasks get a turn.
const TURN: usize = 32;

/// How long the last requests may take to end when the process is cancelled, and the sink then to take what is left. Both
/// together are less than a shutdown gives its tasks.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// Between two tries by then.
const HURRIED: Duration = Duration::from_millis(100);

/// Where events go.
pub(super) trait Sink: Send + 'static {
    /// How often the same events are tried; for ever where there is no such number.
    fn tries(&self) -> Option<u32>;

    /// How long to wait after the try of this number, which begins at 1.
    fn pause(&self, tried: u32) -> Duration;

    /// Writes whole lines, all of them or none. Gives them back for the next try.
    fn write(&mut self, lines: Vec<u8>) -> impl Future<Output = (Vec<u8>, Result<(), String>)> + Send;
}

/// Writes until the end of the process.
pub(super) async fn run(audit: Arc<Audit>, taker: Taker, sink: impl Sink, phases: Phases) {
    let ended = async move {
        phases.cancelled().await;
        drop(tokio::time::timeout(LAST_REQUESTS, phases.idle()).await);
    };
    let mut leave = Leave { ended: Box::pin(ended), deadline: None };
    let mut writer = Writer { audit, taker, sink, trouble: Throttle::default() };
    let mut batch = Vec::new();
    loop {
        if leave.has_begun() {
            // Closed, so it gives what is there and then nothing, save where a request still holds a place.
            writer.taker.entries.close();
            let rest = writer.taker.entries.recv_many(&mut batch, writer.taker.config.batch);
            tokio::select! {
                _number = rest => {}
                () = leave.is_over() => {}
            }
            if batch.is_empty() {
                return;
            }
        } else {
            let more = tokio::select! {
                more = writer.gather(&mut batch) => more,
                () = leave.begins() => true,
            };
            if !more {
                return;
            }
        }
        if !writer.write(&mut batch, &mut leave).await {
            writer.gives_up(batch.len());
            return;
        }
    }
}

/// When it is time to go.
struct Leave {
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    deadline: Option<Instant>,
}

impl Leave {
    fn has_begun(&self) -> bool {
        self.deadline.is_some()
    }

    /// Resolves when nothing new will come, once.
    async fn begins(&mut self) {
        if self.deadline.is_some() {
            return std::future::pending().await;
        }
        self.ended.as_mut().await;
        self.deadline = Some(Instant::now() + LAST_EVENTS);
    }

    /// Resolves when there is no time left.
    async fn is_over(&mut self) {
        if self.deadline.is_none() {
            self.begins().await;
        }
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

struct Writer<S> {
    audit: Arc<Audit>,
    taker: Taker,
    sink: S,
    trouble: Throttle,
}

impl<S: Sink> Writer<S> {
    /// Waits for events and, unless a request waits for one of them, for more. False when no more will come. May be
    /// dropped: what was gathered is in `batch`.
    async fn gather(&mut self, batch: &mut Vec<Queued>) -> bool {
        let config = self.taker.config;
        if self.taker.entries.recv_many(batch, config.batch).await == 0 {
            return false;
        }
        let deadline = Instant::now() + config.wait;
        while batch.len() < config.batch && batch.iter().all(|queued| queued.told.is_none()) {
            let room = config.batch - batch.len();
            match tokio::time::timeout_at(deadline, self.taker.entries.recv_many(batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_more) => {}
            }
        }
        true
    }

    /// Writes a batch to its end; false when there is no time left, and some of it is.
    async fn write(&mut self, batch: &mut Vec<Queued>, leave: &mut Leave) -> bool {
        while !batch.is_empty() {
            let (lines, of) = self.lines(batch).await;
            let events = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            match self.deliver(lines, batch.get_mut(..of).unwrap_or_default(), leave).await {
                Delivered::Yes => self.taker.metrics.written.inc_by(events),
                Delivered::No => self.taker.metrics.dropped.inc_by(events),
                Delivered::TooLate => return false,
            };
            batch.drain(..of);
        }
        true
    }

    /// The lines of as many events as go together, and how many of the batch they are.
    async fn lines(&self, batch: &[Queued]) -> (Vec<u8>, usize) {
        let policy = self.audit.policy.load_full();
        let mut lines = Vec::new();
        for (index, queued) in batch.iter().enumerate() {
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let before = lines.len();
            queued.entry.write(&policy, &self.audit.group, &mut lines);
            if lines.len() > MAX_LINES && before > 0 {
                lines.truncate(before);
                return (lines, index);
            }
        }
        (lines, batch.len())
    }

    /// Tries until the sink has them, or as often as it may be tried. Requests that wait for one of the events are told
    /// after the first try.
    async fn deliver(&mut self, mut lines: Vec<u8>, events: &mut [Queued], leave: &mut Leave) -> Delivered {
        let mut tried = 0;
        while !lines.is_empty() {
            let (back, outcome) = tokio::select! {
                written = self.sink.write(lines) => written,
                () = leave.is_over() => return Delivered::TooLate,
            };
            lines = back;
            tried += 1;
            events.iter_mut().for_each(|queued| queued.tell(outcome.is_ok()));
            let Err(error) = outcome else { return Delivered::Yes };
            self.failed(&error);
            if self.sink.tries().is_some_and(|most| tried >= most) {
                return Delivered::No;
            }
            let pause = if leave.has_begun() { HURRIED } else { self.sink.pause(tried) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = leave.begins() => {}
            }
        }
        events.iter_mut().for_each(|queued| queued.tell(true));
        Delivered::Yes
    }

    fn failed(&self, error: &str) {
        self.taker.metrics.errors.inc();
        if self.trouble.speaks() {
            let SinkMetrics { sink, .. } = self.taker.metrics;
            tracing::warn!(sink, error, "audit events cannot be written");
        }
    }

    fn gives_up(&self, of_batch: usize) {
        let left = of_batch + self.taker.entries.len();
        self.taker.metrics.dropped.inc_by(left as u64);
        let SinkMetrics { sink, .. } = self.taker.metrics;
        tracing::warn!(sink, left, "audit events are lost: the sink did not take them before the end");
    }
}

/// What became of lines.
enum Delivered {
    Yes,
    /// Tried as often as it may be.
    No,
    TooLate,
}

//! Whether the peer still lives: it must be heard of, and it must take what we send. Asked by the
//! driver in each of its turns; touches tokio's clock.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::close::CloseReason;
use crate::session::Session;

/// The two deadlines of a session and the one timer behind them.
///
/// The timer is moved only when a deadline comes earlier or the timer has fired, so a busy session pays
/// for it a few times in a deadline's length and not for each byte.
pub(super) struct Liveness {
    silence: Option<Duration>,
    stall: Duration,
    last_read: Option<Instant>,
    read: u64,
    stalled_since: Option<Instant>,
    written: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Liveness {
    pub(super) fn new(silence: Option<Duration>, stall: Duration) -> Self {
        Self { silence, stall, last_read: None, read: 0, stalled_since: None, written: 0, timer: None }
    }

    /// Compares with the last turn. Call it after the engine's turn, so that bytes which were waiting
    /// when this process was stopped and resumed count before any deadline does.
    pub(super) fn check(&mut self, session: &Session, cx: &mut Context<'_>) -> Option<CloseReason> {
        let now = Instant::now();
        let wire = &session.wire;

        let read = wire.bytes_read.load(Ordering::Relaxed);
        if read != self.read || self.last_read.is_none() {
            self.read = read;
            self.last_read = Some(now);
            session.read_at(now);
        }
        let written = wire.bytes_written.load(Ordering::Relaxed);
        if !wire.blocked.load(Ordering::Relaxed) {
            self.stalled_since = None;
        } else if written != self.written || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.written = written;

        let silent_at = self.silence.zip(self.last_read).and_then(|(d, t)| t.checked_add(d));
        let stalled_at = self.stalled_since.and_then(|since| since.checked_add(self.stall));
        if silent_at.is_some_and(|deadline| deadline <= now) {
            return Some(CloseReason::Silent);
        }
        if stalled_at.is_some_and(|deadline| deadline <= now) {
            return Some(CloseReason::WriteStalled);
        }
        let next = [silent_at, stalled_at].into_iter().flatten().min()?;
        self.arm(next, cx);
        None
    }

    fn arm(&mut self, deadline: Instant, cx: &mut Context<'_>) {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.is_elapsed() || timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        // A timer that is earlier than it need be fires once for nothing and is set anew then.
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

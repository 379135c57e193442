//! Pings that callers ask for. Asked by `Handle`, carried by `shim`; pure bookkeeping.
//!
//! They share the wire with the engine's own, which counts from 0; ours have the top bit set, and their
//! answers never reach the engine, for which an unexpected one is a violation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lock::lock;

const OURS: u32 = 1 << 31;

struct Asked {
    value: u32,
    /// When it was handed to the transport, or not yet.
    sent: Option<Instant>,
    answer: oneshot::Sender<Duration>,
}

#[derive(Default)]
struct State {
    next: u32,
    asked: Vec<Asked>,
}

#[derive(Default)]
pub(crate) struct Pings {
    state: Mutex<State>,
    unsent: AtomicBool,
}

impl Pings {
    /// A new ping, which the driver sends at its next turn. The receiver fails when the session ends.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Duration> {
        let (answer, answered) = oneshot::channel();
        let mut state = lock(&self.state);
        // Callers that gave up leave nothing behind.
        state.asked.retain(|asked| !asked.answer.is_closed());
        let value = OURS | state.next;
        state.next = state.next.wrapping_add(1) & !OURS;
        state.asked.push(Asked { value, sent: None, answer });
        self.unsent.store(true, Ordering::Release);
        answered
    }

    /// The values to put on the wire now.
    pub(crate) fn take_unsent(&self) -> Vec<u32> {
        if !self.unsent.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        self.unsent.store(false, Ordering::Release);
        let now = Instant::now();
        let unsent = state.asked.iter_mut().filter(|asked| asked.sent.is_none());
        unsent
            .map(|asked| {
                asked.sent = Some(now);
                asked.value
            })
            .collect()
    }

    /// Takes an answer of the peer; false if it is not to one of ours.
    pub(crate) fn answered(&self, value: u32) -> bool {
        if value & OURS == 0 {
            return false;
        }
        let mut state = lock(&self.state);
        let Some(at) = state.asked.iter().position(|asked| asked.value == value) else {
            // Its caller gave up, or the peer makes it up. The first is common and both are harmless.
            return true;
        };
        let asked = state.asked.swap_remove(at);
        if let Some(sent) = asked.sent {
            // Nobody to tell if the caller has just given up.
            let _gone = asked.answer.send(sent.elapsed());
        }
        true
    }

    /// The session has ended: everybody who waits fails.
    pub(crate) fn give_up(&self) {
        lock(&self.state).asked.clear();
    }
}

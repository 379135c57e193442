//! How many sessions serve, over which way, and what came of the last attempt to get one: what readiness, metrics and the
//! condition of the connection resource follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moorline_process::Latch;
use tokio::sync::watch;

use crate::{metrics::Metrics, standing::Reason};

/// How the agent stands with the server that it is to reach now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The number of the way that this is about.
    pub(crate) route: u64,
    /// The server at its end, HOST:PORT.
    pub(crate) server: String,
    /// What came of it; none while the first attempt runs.
    pub(crate) outcome: Option<Outcome>,
    /// Whether a session over an earlier way still serves.
    pub(crate) earlier_serves: bool,
}

/// What came of the attempts to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// In a word.
    pub(crate) reason: Reason,
    /// In more words; empty for [`Reason::Connected`]. Nothing secret.
    pub(crate) text: String,
    /// What to look at.
    pub(crate) remedy: &'static str,
}

/// What all keepers of sessions tell.
pub(super) struct Connected {
    latch: Latch,
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    /// Sessions that serve, over whatever way.
    serving: usize,
    /// The way that is to be gone.
    route: u64,
    server: String,
    /// Sessions that serve over it.
    on_route: usize,
    /// The last failure over it since a session began.
    failure: Option<Outcome>,
}

/// A session that serves. Dropped without a word it was lost.
pub(super) struct Serving<'a> {
    connected: &'a Connected,
    route: u64,
    end: Option<Outcome>,
}

impl Connected {
    pub(super) fn new(latch: Latch, metrics: Arc<Metrics>) -> Self {
        Self { latch, state: Mutex::default(), standing: watch::Sender::default(), metrics }
    }

    /// Sees every change.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Nobody has said yet where the server is.
    pub(super) fn waits_for_an_address(&self) {
        let text = "the connection resource does not say yet where the management cluster is";
        self.latch.unready(format!("{}: {text}", Reason::NotConfigured));
        self.metrics.stands(Some(Reason::NotConfigured));
    }

    /// This way is to be gone from now on.
    pub(super) fn heads_for(&self, route: u64, server: String) {
        let mut state = self.locked();
        if route > state.route {
            *state = State { serving: state.serving, route, server, on_route: 0, failure: None };
            self.tell(&state);
        }
    }

    /// No session came of an attempt.
    pub(super) fn failed(&self, route: u64, outcome: Outcome) {
        let mut state = self.locked();
        if route == state.route {
            state.failure = Some(outcome);
            self.tell(&state);
        }
    }

    /// A session serves, until the guard is dropped.
    pub(super) fn session(&self, route: u64) -> Serving<'_> {
        let mut state = self.locked();
        state.serving += 1;
        if route == state.route {
            state.on_route += 1;
            state.failure = None;
        }
        self.tell(&state);
        drop(state);
        Serving { connected: self, route, end: None }
    }

    /// Called under the lock, so that what is told last is how it is.
    fn tell(&self, state: &State) {
        let outcome = if state.on_route > 0 { Some(Outcome::connected()) } else { state.failure.clone() };
        if state.serving > 0 {
            self.latch.ready();
        } else if let Some(Outcome { reason, text, .. }) = &outcome {
            self.latch.unready(format!("{reason}: {text}"));
        }
        self.metrics.stands(outcome.as_ref().map(|outcome| outcome.reason));
        let standing = Standing {
            route: state.route,
            server: state.server.clone(),
            outcome,
            earlier_serves: state.serving > state.on_route,
        };
        self.standing.send_if_modified(|told| {
            let news = *told != standing;
            *told = standing;
            news
        });
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    fn connected() -> Self {
        Self { reason: Reason::Connected, text: String::new(), remedy: "" }
    }
}

impl Serving<'_> {
    /// It ends, for this reason.
    pub(super) fn ended(mut self, outcome: Outcome) {
        self.end = Some(outcome);
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut state = self.connected.locked();
        state.serving = state.serving.saturating_sub(1);
        if self.route == state.route {
            state.on_route = state.on_route.saturating_sub(1);
            if state.on_route == 0 && state.failure.is_none() {
                state.failure = Some(self.end.take().unwrap_or_else(lost));
            }
        } else if state.serving == 0 && state.failure.is_none() {
            self.connected.latch.unready("no session with the server");
        }
        self.connected.tell(&state);
    }
}

fn lost() -> Outcome {
    Outcome { reason: Reason::SessionLost, text: "no session with the server".to_owned(), remedy: "" }
}

#[cfg(test)]
mod tests {
    use moorline_process::{Readiness, Registry};

    use super::*;

    fn connected() -> (Readiness, Connected) {
        let readiness = Readiness::new();
        let metrics = Arc::new(Metrics::new(&Registry::new("test", "0")));
        let connected = Connected::new(readiness.check("tunnel"), metrics);
        (readiness, connected)
    }

    fn refused() -> Outcome {
        Outcome { reason: Reason::ConnectionRefused, text: "nobody there".to_owned(), remedy: "look" }
    }

    fn reason(connected: &Connected) -> Option<Reason> {
        connected.standing().borrow().outcome.as_ref().map(|outcome| outcome.reason)
    }

    #[test]
    fn the_last_word_is_about_the_way_of_now() {
        let (readiness, connected) = connected();
        connected.heads_for(1, "old:1".to_owned());
        assert_eq!(reason(&connected), None);
        connected.failed(1, refused());
        assert_eq!(reason(&connected), Some(Reason::ConnectionRefused));
        assert_eq!(readiness.states()[0].unready.as_deref(), Some("ConnectionRefused: nobody there"));
        let old = connected.session(1);
        assert_eq!(reason(&connected), Some(Reason::Connected));
        connected.heads_for(2, "new:2".to_owned());
        assert_eq!(reason(&connected), None, "not known yet");
        assert!(readiness.is_ready(), "the session over the old way serves");
        connected.failed(2, refused());
        connected.failed(1, lost());
        let standing = connected.standing().borrow().clone();
        assert_eq!((standing.route, standing.server.as_str(), standing.earlier_serves), (2, "new:2", true));
        assert_eq!(reason(&connected), Some(Reason::ConnectionRefused));
        let new = connected.session(2);
        old.ended(lost());
        assert_eq!(reason(&connected), Some(Reason::Connected));
        new.ended(Outcome { reason: Reason::Revoked, text: "revoked".to_owned(), remedy: "join anew" });
        assert_eq!(reason(&connected), Some(Reason::Revoked));
        assert!(!readiness.is_ready());
    }

    #[test]
    fn one_of_several_sessions_is_enough() {
        let (readiness, connected) = connected();
        connected.heads_for(1, "hub:1".to_owned());
        let (one, two) = (connected.session(1), connected.session(1));
        drop(one);
        connected.failed(1, refused());
        assert_eq!((reason(&connected), readiness.is_ready()), (Some(Reason::Connected), true));
        drop(two);
        assert_eq!(reason(&connected), Some(Reason::ConnectionRefused), "the last attempt says more than a loss");
    }
}

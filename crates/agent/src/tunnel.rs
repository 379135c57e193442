//! The tunnel: keeps the configured number of sessions with the server alive, for as long as the process serves.
//!
//! [`Tunnel::keep`] is spawned by `app` once for each session. It dials, lets the session run in a task of its own, and
//! dials again when the session ends or is about to: after a go-away the next session comes first, and the old one is
//! retired only when its successor serves.

mod backoff;
mod control;
mod dial;
mod liveness;
mod proxy;
mod session;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moorline_mtls::{KeyPair, Roots};
use moorline_mux::MemoryBudget;
use moorline_process::{Latch, Phase, Phases, Tasks};
use moorline_wire::CloseReason;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use backoff::{Backoff, NETWORK, REFUSAL};
pub(crate) use dial::Dialer;
pub(crate) use proxy::authority;
pub(crate) use proxy::{Proxy, ProxyVariables};
use session::{EstablishError, Left, Session};

use crate::{
    health::Health,
    identity::Identity,
    metrics::Metrics,
    serve::{Chain, Service},
};

/// The most sessions that an agent keeps: enough to spread over the server's replicas, few enough for its tables.
pub(crate) const MAX_SESSIONS: u8 = 4;

/// How the server is reached and how often.
#[derive(Debug)]
pub(crate) struct Config {
    /// The way to the server.
    pub(crate) dialer: Dialer,
    /// The agent's certificate and the tunnel's authorities, as they are now.
    pub(crate) identity: Arc<Identity>,
    /// How many sessions to keep, 1 to [`MAX_SESSIONS`].
    pub(crate) sessions: u8,
}

/// What all sessions share.
pub(crate) struct Tunnel {
    config: Config,
    service: Arc<Service>,
    health: watch::Receiver<Health>,
    connected: Connected,
    memory: MemoryBudget,
    tasks: Tasks,
    phases: Phases,
    metrics: Arc<Metrics>,
}

/// How many sessions serve now, and the readiness check that follows from it.
struct Connected {
    latch: Latch,
    sessions: Mutex<usize>,
}

/// The receive windows and buffers of all sessions together, in bytes. Bounds what slow readers of the kube-apiserver
/// can make the agent hold.
const MEMORY: usize = 128 * 1024 * 1024;

/// How often it is looked whether there are new certificates while a dial waits.
const LOOK: Duration = Duration::from_secs(2);

/// What is shown to the server, and whom it is believed by.
pub(crate) type Files = (Arc<KeyPair>, Arc<Roots>);

impl Config {
    /// What the next dial is made with.
    pub(crate) fn files(&self) -> Files {
        (self.identity.keys().current(), self.identity.roots().current())
    }

    /// Waits, but not for longer than it takes until the files are others than `before`: whoever was refused, and is
    /// repaired, is not to wait minutes for it.
    pub(crate) async fn wait(&self, wait: Duration, before: &Files) {
        let until = Instant::now() + wait;
        loop {
            tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
            let (keys, roots) = self.files();
            let new = !Arc::ptr_eq(&keys, &before.0) || !Arc::ptr_eq(&roots, &before.1);
            if new || Instant::now() >= until {
                return;
            }
        }
    }
}

impl Tunnel {
    pub(crate) fn new(
        config: Config,
        service: Arc<Service>,
        health: watch::Receiver<Health>,
        latch: Latch,
        (tasks, phases, metrics): (Tasks, Phases, Arc<Metrics>),
    ) -> Self {
        let connected = Connected { latch, sessions: Mutex::new(0) };
        let memory = MemoryBudget::new(MEMORY);
        Self { config, service, health, connected, memory, tasks, phases, metrics }
    }

    /// How many sessions to keep.
    pub(crate) fn sessions(&self) -> u8 {
        self.config.sessions
    }

    /// The server as the operator wrote it.
    pub(crate) fn server(&self) -> String {
        self.config.dialer.target()
    }

    /// Keeps one session until the process leaves.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        let mut predecessor: Option<CancellationToken> = None;
        loop {
            let files = self.config.files();
            let Some(established) = self.while_serving(Session::establish(&self)).await else { return };
            let wait = match established {
                Ok(session) => {
                    if let Some(predecessor) = predecessor.take() {
                        predecessor.cancel();
                    }
                    let retire = CancellationToken::new();
                    let left = self.serve(session, retire.clone()).await;
                    predecessor = Some(retire);
                    self.after_session(&left, &mut backoff)
                }
                Err(error) => self.after_failure(&error, &mut backoff),
            };
            if self.while_serving(self.config.wait(wait, &files)).await.is_none() {
                return;
            }
        }
    }

    /// Lets a session run in its own task and waits until it needs a successor.
    async fn serve(self: &Arc<Self>, session: Session, retire: CancellationToken) -> Left {
        let (leaving, left) = oneshot::channel();
        let tunnel = Arc::clone(self);
        self.tasks.spawn("session", async move { session.run(&tunnel, retire, leaving).await });
        // The sender is dropped unused only if the session's task panicked.
        left.await.unwrap_or(Left::Ended { age: Duration::ZERO, reason: None })
    }

    fn after_session(&self, left: &Left, backoff: &mut Backoff) -> Duration {
        let random = &mut rand::rng();
        match left {
            Left::GoingAway { age, after } => {
                backoff.session_lived(*age);
                match after {
                    None => backoff.next(NETWORK, random),
                    Some(after) => backoff.asked(*after, random),
                }
            }
            Left::Ended { age, reason } => {
                backoff.session_lived(*age);
                let final_word = reason.as_ref().is_some_and(|reason| !reason.retryable());
                backoff.next(if final_word { REFUSAL } else { NETWORK }, random)
            }
        }
    }

    fn after_failure(&self, error: &EstablishError, backoff: &mut Backoff) -> Duration {
        let random = &mut rand::rng();
        let wait = match error.asked() {
            Some(asked) => backoff.asked(asked, random),
            None => backoff.next(if error.retryable() { NETWORK } else { REFUSAL }, random),
        };
        self.metrics.dialled(error.step());
        let reason = Chain(error).to_string();
        tracing::warn!(
            server = self.config.dialer.target(),
            step = error.step(),
            remedy = error.remedy(),
            retry_in = ?wait,
            "no session with the server: {reason}"
        );
        self.connected.failed(reason);
        wait
    }

    /// Waits for something as long as the process serves.
    async fn while_serving<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.phases.reached(Phase::GoAway) => None,
        }
    }
}

impl Connected {
    /// A session serves, until the guard is dropped.
    fn session(&self) -> Serving<'_> {
        *self.locked() += 1;
        self.latch.ready();
        Serving(self)
    }

    fn failed(&self, reason: String) {
        if *self.locked() == 0 {
            self.latch.unready(reason);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, usize> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Serving<'a>(&'a Connected);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut sessions = self.0.locked();
        *sessions = sessions.saturating_sub(1);
        if *sessions == 0 {
            self.0.latch.unready("no session with the server");
        }
    }
}

impl Left {
    fn ended(age: Duration, reason: Option<CloseReason>) -> Self {
        Self::Ended { age, reason }
    }
}

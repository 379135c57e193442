//! The tunnel: keeps the configured number of sessions with the server alive, for as long as the process serves.
//!
//! [`Tunnel::keep`] is spawned by `app` once for each session. It dials, lets the session run in a task of its own, and
//! dials again when the session ends or is about to: after a go-away the next session comes first, and the old one is
//! retired only when its successor serves.

mod backoff;
mod connected;
mod control;
mod dial;
mod live;
mod liveness;
mod proxy;
mod renewal;
mod route;
mod session;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use moorline_mtls::{KeyPair, Roots};
use moorline_mux::MemoryBudget;
use moorline_process::{Latch, Phase, Phases, Tasks};
use moorline_wire::CloseReason;
use rand::RngExt as _;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use backoff::{Backoff, NETWORK, REFUSAL};
use connected::Connected;
pub(crate) use connected::{Outcome, Standing};
pub(crate) use control::HelloError;
pub(crate) use dial::{DialError, SERVER_NAME, TLS_TIMEOUT, reach, tls_remedy};
pub(crate) use live::{Live, Opened, Usable};
pub(crate) use proxy::{ConnectError as ProxyError, Proxy, ProxyVariables, authority};
use renewal::Renewal;
pub(crate) use route::{Address, Route, Router, Routes, Trust};
pub(crate) use session::EstablishError;
use session::{Left, Retire, Session};

use crate::{
    health::Health,
    identity::Identity,
    metrics::Metrics,
    serve::{Chain, Service},
};

/// The most sessions that an agent keeps: enough to spread over the server's replicas, few enough for its tables.
pub(crate) const MAX_SESSIONS: u8 = 2;

/// How the server is reached and how often.
#[derive(Debug)]
pub(crate) struct Config {
    /// The way to the server, as it is now.
    pub(crate) routes: Routes,
    /// The agent's certificate and the tunnel's authorities, as they are now.
    pub(crate) identity: Arc<Identity>,
    /// How many sessions to keep, 1 to [`MAX_SESSIONS`].
    pub(crate) sessions: u8,
    /// How many connections to services the agent may carry at once.
    pub(crate) service_connections: usize,
}

/// What all sessions share.
pub(crate) struct Tunnel {
    config: Config,
    service: Arc<Service>,
    health: watch::Receiver<Health>,
    connected: Connected,
    live: Arc<Live>,
    renewal: Renewal,
    memory: MemoryBudget,
    tasks: Tasks,
    phases: Phases,
    metrics: Arc<Metrics>,
}

/// The receive windows and buffers of all sessions together, in bytes. Bounds what slow readers of the kube-apiserver
/// can make the agent hold.
const MEMORY: usize = 128 * 1024 * 1024;

/// Sessions that were left for one with a new certificate and that still carry requests; older ones are cut.
const MAX_RETIRED: usize = 2;

/// The longest time from a new certificate to the dial with it.
const AFTER_RENEWAL: Duration = Duration::from_millis(250);

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
        let connected = Connected::new(latch, Arc::clone(&metrics));
        if config.routes.borrow().is_none() {
            connected.waits_for_an_address();
        }
        let memory = MemoryBudget::new(MEMORY);
        let live = Arc::new(Live::default());
        let renewal = Renewal::new(Arc::clone(&live));
        Self { config, service, health, connected, live, renewal, memory, tasks, phases, metrics }
    }

    /// How many sessions to keep.
    pub(crate) fn sessions(&self) -> u8 {
        self.config.sessions
    }

    /// The server as it was written, if it is known yet.
    pub(crate) fn server(&self) -> Option<String> {
        self.config.routes.borrow().as_ref().map(|route| route.dialer.target())
    }

    /// How the agent stands with the server that it is to reach, as it changes.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.connected.standing()
    }

    /// The sessions that serve, as they come and go.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Renews the agent's certificate when it is time, for ever.
    pub(crate) async fn renew(&self) {
        self.renewal.run(&self.config.identity, &self.metrics).await;
    }

    /// Keeps one session until the process leaves.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        let mut predecessors: VecDeque<Retire> = VecDeque::new();
        loop {
            let Some(route) = self.while_serving(self.route()).await else { return };
            let files = self.config.files();
            let attempt = async {
                tokio::select! {
                    established = Session::establish(&self, &route) => Some(established),
                    () = self.moved(&route) => None,
                }
            };
            let Some(established) = self.while_serving(attempt).await else { return };
            let wait = match established {
                // The address is another one already.
                None => Duration::ZERO,
                Some(Ok(session)) => {
                    if let Some(predecessor) = predecessors.back() {
                        predecessor.when_idle.cancel();
                    }
                    predecessors.retain(|retired| !retired.over.is_cancelled());
                    while predecessors.len() > MAX_RETIRED
                        && let Some(oldest) = predecessors.pop_front()
                    {
                        oldest.now.cancel();
                    }
                    let retire = Retire::default();
                    let left = self.serve(session, &route, &files, retire.clone()).await;
                    predecessors.push_back(retire);
                    self.after_session(&left, &mut backoff)
                }
                Some(Err(error)) => self.after_failure(&route, &error, &mut backoff).await,
            };
            let rest = async {
                tokio::select! {
                    () = self.config.wait(wait, &files) => false,
                    () = self.moved(&route) => true,
                }
            };
            match self.while_serving(rest).await {
                None => return,
                // What went wrong at the other address says nothing about this one.
                Some(true) => backoff = Backoff::new(),
                Some(false) => {}
            }
        }
    }

    /// The way to the server, once it is known.
    async fn route(&self) -> Arc<Route> {
        let mut routes = self.config.routes.clone();
        let known = routes.wait_for(Option::is_some).await.ok().and_then(|route| route.clone());
        let Some(route) = known else { return std::future::pending().await };
        self.connected.heads_for(route.number, route.dialer.target());
        route
    }

    /// Returns once another way than this is to be gone.
    async fn moved(&self, from: &Route) {
        let mut routes = self.config.routes.clone();
        let newer = |route: &Option<Arc<Route>>| route.as_ref().is_some_and(|route| route.number > from.number);
        if routes.wait_for(newer).await.is_err() {
            std::future::pending().await
        }
    }

    /// Lets a session run in its own task and waits until it needs a successor.
    async fn serve(self: &Arc<Self>, session: Session, route: &Route, files: &Files, retire: Retire) -> Left {
        let (leaving, left) = oneshot::channel();
        let (tunnel, began) = (Arc::clone(self), Instant::now());
        self.tasks.spawn("session", async move { session.run(&tunnel, retire, leaving).await });
        tokio::select! {
            // The sender is dropped unused only if the session's task panicked.
            left = left => left.unwrap_or(Left::Ended { age: Duration::ZERO, reason: None }),
            () = self.moved(route) => Left::Moved,
            () = self.other_certificate(files) => Left::Renewed { age: began.elapsed() },
        }
    }

    /// Waits until the agent has another certificate than this session was begun with.
    async fn other_certificate(&self, (keys, _): &Files) {
        let mut changes = self.config.identity.changes();
        while self.config.identity.keys().current().fingerprint() == keys.fingerprint() {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn after_session(&self, left: &Left, backoff: &mut Backoff) -> Duration {
        let random = &mut rand::rng();
        match left {
            Left::Moved => Duration::ZERO,
            Left::Renewed { age } => {
                backoff.session_lived(*age);
                random.random_range(Duration::ZERO..=AFTER_RENEWAL)
            }
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

    async fn after_failure(&self, route: &Route, error: &EstablishError, backoff: &mut Backoff) -> Duration {
        if error.certificate_is_refused() {
            // Somebody may have put another in its place; or else the server, where it still knows us by the one before,
            // is asked for a new one.
            self.config.identity.refresh().await;
            if self.renewal.can_ask() {
                self.renewal.order(Duration::ZERO);
            }
        }
        let random = &mut rand::rng();
        let wait = match error.asked() {
            Some(asked) => backoff.asked(asked, random),
            None => backoff.next(if error.retryable() { NETWORK } else { REFUSAL }, random),
        };
        self.metrics.dialled(error.step());
        let outcome = Outcome { reason: error.into(), text: Chain(error).to_string(), remedy: error.remedy() };
        tracing::warn!(
            server = route.dialer.target(),
            step = error.step(),
            reason = %outcome.reason,
            remedy = outcome.remedy,
            retry_in = ?wait,
            "no session with the server: {}", outcome.text
        );
        self.connected.failed(route.number, outcome);
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

impl Left {
    fn ended(age: Duration, reason: Option<CloseReason>) -> Self {
        Self::Ended { age, reason }
    }
}

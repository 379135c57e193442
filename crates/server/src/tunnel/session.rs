//! One session: what an agent's connection is to the rest of the server.
//!
//! Made by `admit` after a good hello, held by the registry, watched by its own control task (`control`). Everything
//! here is a counter, a flag or a short lock.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use moorline_model::{ClusterName, Dialect, Fingerprint, SessionId, Timestamp};
use moorline_mux::Handle;
use moorline_wire::{capability, probe};
use tokio::time::Instant;

use super::{check::Carriage, orders::Orders};
use crate::{
    clock,
    front::{guardian::channels::Channels, line::Line},
    registry::Routed,
};

/// What is known of a session when it begins.
pub(crate) struct Introduction {
    /// Its id in both logs: the agent chose it, unless another session has it.
    pub(crate) id: SessionId,
    /// Whose it is.
    pub(crate) cluster: ClusterName,
    /// Where it comes from.
    pub(crate) remote: SocketAddr,
    /// The certificate that brought it in.
    pub(crate) fingerprint: Fingerprint,
    /// The last second of that certificate.
    pub(crate) certificate_ends: Timestamp,
    /// When the hello was answered.
    pub(crate) since: Timestamp,
    /// What the agent says it is.
    pub(crate) agent_version: String,
    /// What the agent says of its kube-apiserver.
    pub(crate) kubernetes_version: Option<String>,
    /// The uid of the cluster's `kube-system` namespace, as the agent says.
    pub(crate) cluster_uid: Option<String>,
    /// What the agent can do.
    pub(crate) abilities: Abilities,
    /// Which authorities it believes about servers, where it says so.
    pub(crate) trusts: Vec<Fingerprint>,
}

/// What an agent can do beyond the version of the protocol, as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// It renews its certificate when it is told to.
    pub(crate) renew: bool,
    /// It believes other authorities when it is told to.
    pub(crate) roots: bool,
    /// It answers probes on streams of their own.
    pub(crate) probe: bool,
}

impl Abilities {
    /// Read from the words of a hello.
    pub(crate) fn of(words: &[String]) -> Self {
        let says = |word| words.iter().any(|said| said == word);
        Self { renew: says(capability::RENEW), roots: says(capability::ROOTS), probe: says(probe::CAPABILITY) }
    }
}

/// How the agent fares with its kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// Nothing was heard yet.
    Untold,
    /// The last probe went well.
    Well,
    /// It did not, for this reason.
    Failing(String),
}

/// One session of a cluster.
pub(crate) struct Session {
    about: Introduction,
    handle: Handle,
    line: Line,
    outstanding: Arc<AtomicUsize>,
    orders: Orders,
    began: Instant,
    /// Milliseconds after `began` at which the last heartbeat was answered.
    answered_at: AtomicU64,
    /// Microseconds of the last round trip; 0 before the first.
    round_trip: AtomicU64,
    /// Being probed, and not answered yet: used only where there is nothing better.
    suspect: AtomicBool,
    /// Did not answer the last probe: used only where there is nothing better.
    avoided: AtomicBool,
    carriage: Mutex<Checked>,
    /// The agent said that it goes away: what runs may end, nothing new begins.
    leaving: AtomicBool,
    /// Its agent got its next certificate over it.
    renewed: AtomicBool,
    trusts: Mutex<Vec<Fingerprint>>,
    told: Mutex<Told>,
}

/// What the last probe found, and when requests got through last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// How it fared.
    pub(crate) carriage: Carriage,
    /// When an answer came last.
    pub(crate) answered: Option<Timestamp>,
}

/// What the agent said last.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// About its kube-apiserver.
    pub(crate) upstream: Upstream,
    /// The version of its kube-apiserver.
    pub(crate) kubernetes_version: Option<String>,
    /// The uid of its `kube-system` namespace.
    pub(crate) cluster_uid: Option<String>,
}

/// One running request of a session.
#[derive(Debug)]
pub(crate) struct Outstanding {
    counter: Arc<AtomicUsize>,
}

impl Session {
    /// A session that nobody knows of yet.
    pub(crate) fn new(mut about: Introduction, handle: Handle, line: Line) -> Self {
        let told = Told {
            upstream: Upstream::Untold,
            kubernetes_version: about.kubernetes_version.take().map(bounded),
            cluster_uid: about.cluster_uid.take().map(bounded),
        };
        about.agent_version = bounded(about.agent_version);
        let trusts = Mutex::new(std::mem::take(&mut about.trusts));
        let carriage = if about.abilities.probe { Carriage::Awaited } else { Carriage::Unasked };
        Self {
            about,
            handle,
            line,
            outstanding: Arc::default(),
            orders: Orders::default(),
            began: Instant::now(),
            answered_at: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            avoided: AtomicBool::new(false),
            carriage: Mutex::new(Checked { carriage, answered: None }),
            leaving: AtomicBool::new(false),
            renewed: AtomicBool::new(false),
            trusts,
            told: Mutex::new(told),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> SessionId {
        self.about.id
    }

    /// What was known when it began.
    pub(crate) fn about(&self) -> &Introduction {
        &self.about
    }

    /// What carries its requests, for whoever was routed here.
    pub(crate) fn line(&self, _proof: &Routed) -> &Line {
        &self.line
    }

    /// The channels of a session of Guardian's, for the probe.
    pub(super) fn channels(&self) -> Option<&Arc<Channels>> {
        match &self.line {
            Line::Guardian(channels) => Some(channels),
            Line::Moorline(_) => None,
        }
    }

    /// What its agent speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        match &self.line {
            Line::Moorline(_) => Dialect::Moorline,
            Line::Guardian(_) => Dialect::Guardian,
        }
    }

    /// What its control task is to do.
    pub(crate) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Whether new requests may be sent on it.
    pub(crate) fn is_usable(&self) -> bool {
        self.handle.is_open() && !self.leaving.load(Ordering::Relaxed)
    }

    /// Whether it is being probed and has not answered yet.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed) || self.avoided.load(Ordering::Relaxed)
    }

    /// Starts or ends the time in which other sessions are preferred since no request got through this one.
    pub(super) fn set_avoided(&self, avoided: bool) {
        self.avoided.store(avoided, Ordering::Relaxed);
    }

    /// Notes what a probe found; gives what the one before did.
    pub(super) fn carriage(&self, now: Carriage) -> Carriage {
        let mut checked = self.carriage.lock().unwrap_or_else(PoisonError::into_inner);
        if now == Carriage::Carries {
            checked.answered = Some(clock::now());
        }
        std::mem::replace(&mut checked.carriage, now)
    }

    /// What the last probe found.
    pub(crate) fn checked(&self) -> Checked {
        *self.carriage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts or ends the time in which other sessions are preferred.
    pub(crate) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    /// Takes it out of use; what runs goes on.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Its agent got its next certificate over it.
    pub(crate) fn renewed(&self) {
        self.renewed.store(true, Ordering::Relaxed);
    }

    /// Whether its agent got its next certificate over it.
    pub(crate) fn has_renewed(&self) -> bool {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Which authorities its agent believes about servers, as it said last; none where it does not say.
    pub(crate) fn trusts(&self) -> Vec<Fingerprint> {
        self.trusts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its agent believes these now.
    pub(crate) fn trusts_now(&self, roots: Vec<Fingerprint>) {
        *self.trusts.lock().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    /// How many requests run on it.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Counts a request in.
    pub(crate) fn begin(&self) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding { counter: Arc::clone(&self.outstanding) }
    }

    /// A heartbeat was answered after this long.
    pub(crate) fn answered(&self, round_trip: Duration) {
        self.answered_at.store(millis(self.began.elapsed()), Ordering::Relaxed);
        self.round_trip.store(u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// How long ago the last heartbeat was answered, or the session began.
    pub(crate) fn answer_age(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.answered_at.load(Ordering::Relaxed)))
    }

    /// How long ago it began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The last round trip of a heartbeat.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// What the agent said last.
    pub(crate) fn told(&self) -> Told {
        self.locked().clone()
    }

    /// The agent said something; says whether it was news.
    pub(crate) fn tell(&self, upstream: Upstream, kubernetes_version: Option<String>, uid: Option<String>) -> bool {
        let upstream = match upstream {
            Upstream::Failing(reason) => Upstream::Failing(bounded(reason)),
            Upstream::Well | Upstream::Untold => upstream,
        };
        let mut told = self.locked();
        let news = told.upstream != upstream;
        told.upstream = upstream;
        told.kubernetes_version = kubernetes_version.map(bounded).or_else(|| told.kubernetes_version.take());
        told.cluster_uid = uid.map(bounded).or_else(|| told.cluster_uid.take());
        news
    }

    /// The multiplexer's handle, for the control task and for cutting the session.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn locked(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.about.id)
            .field("cluster", &self.about.cluster)
            .finish_non_exhaustive()
    }
}

/// The fingerprints among what an agent said, as many as there may be.
pub(super) fn fingerprints(words: &[String]) -> Vec<Fingerprint> {
    words.iter().take(moorline_wire::limits::AUTHORITIES).filter_map(|word| word.parse().ok()).collect()
}

/// What an agent says is kept for as long as its session lives, so not at any length.
pub(super) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(moorline_wire::limits::TEXT));
    text.shrink_to_fit();
    text
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

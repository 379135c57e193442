//! One cluster: its record, its sessions, and how it stands.
//!
//! Sessions come by `attach` and go by `detach`; a request picks one without a lock. Whether the cluster counts as
//! connected is decided here, from what the sessions prove and what the agents say, and nowhere else.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use moorline_api::{ClusterEvent, InvolvedObject};
use moorline_model::{ClusterName, ClusterRecord, ClusterUid, Fingerprint, SessionId, Timestamp};
use moorline_wire::CloseReason;
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    clock,
    events::Ring,
    tunnel::{
        check::Carriage,
        orders::Order,
        session::{Outstanding, Session, Told, Upstream},
    },
};

/// How many times its usual number of sessions a cluster may have while they change from one certificate to the next.
const MAX_RENEWED: usize = 4;

/// One cluster.
pub(crate) struct Cluster {
    name: ClusterName,
    /// Replaced by the registry only, together with its index.
    record: ArcSwap<ClusterRecord>,
    /// Oldest first. Written under the lock of `life`, read by every request.
    sessions: ArcSwap<Vec<Arc<Session>>>,
    life: Mutex<Life>,
    ring: Ring,
}

struct Life {
    standing: Standing,
    /// The newest certificate, in the order of the record, that a session came with since this server started.
    proven: Option<Fingerprint>,
    /// The last renewal, and whose.
    renewal: Option<(Instant, SessionId)>,
    kubernetes_version: Option<String>,
    agent_version: Option<String>,
}

/// How a cluster stands, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Connected or not.
    pub(crate) connection: Connection,
    /// For people.
    pub(crate) message: String,
    /// Since when the connection is what it is.
    pub(crate) since: Timestamp,
    /// When a request got through last, from here to the kube-apiserver and back; none where no agent answers probes.
    pub(crate) probed: Option<Timestamp>,
    /// When an agent was last heard of; none since this server started.
    pub(crate) last_seen: Option<Timestamp>,
}

/// Whether requests reach a cluster's kube-apiserver. The name is the reason in the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// A session answers, and its agent reached the kube-apiserver.
    Connected,
    /// A session answers; its agent has not said how it fares yet.
    Probing,
    /// A session answers, and its agent cannot reach the kube-apiserver.
    UpstreamFailing,
    /// A session answers heartbeats, and no request gets through it.
    NotCarrying,
    /// No session since this server started.
    NeverConnected,
    /// The last session ended.
    Disconnected,
}

impl Connection {
    /// The reason in a Kubernetes condition.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::Probing => "Probing",
            Self::UpstreamFailing => "KubeAPIServerUnreachable",
            Self::NotCarrying => "TunnelNotCarrying",
            Self::NeverConnected => "NeverConnected",
            Self::Disconnected => "Disconnected",
        }
    }
}

/// Why a session is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AttachError {
    /// The certificate stands for no cluster any more, or for another one.
    #[error("no cluster has this certificate any more: the cluster was deleted, or its certificate replaced")]
    Disowned,
    /// The cluster has as many sessions as it may, and all of them answer.
    #[error("the cluster has {0} sessions already, and all of them answer")]
    Full(usize),
}

/// What a session's arrival changed.
pub(crate) struct Attached {
    /// The sessions that were there, which must prove themselves.
    pub(crate) older: Vec<Arc<Session>>,
    /// One that did not answer any more and made room; to be cut.
    pub(crate) displaced: Option<Arc<Session>>,
}

impl Cluster {
    pub(crate) fn new(record: ClusterRecord) -> Self {
        let standing = Standing {
            connection: Connection::NeverConnected,
            message: "no agent has connected since this server started".to_owned(),
            since: clock::now(),
            probed: None,
            last_seen: None,
        };
        let life = Life { standing, proven: None, renewal: None, kubernetes_version: None, agent_version: None };
        Self {
            name: record.name.clone(),
            record: ArcSwap::from_pointee(record),
            sessions: ArcSwap::default(),
            life: Mutex::new(life),
            ring: Ring::default(),
        }
    }

    /// What the store says of it.
    pub(crate) fn record(&self) -> Arc<ClusterRecord> {
        self.record.load_full()
    }

    /// The store says something new of it. Only the registry, which keeps its index in step, calls this.
    pub(super) fn renew(&self, record: ClusterRecord) {
        self.record.store(Arc::new(record));
    }

    /// Its name.
    pub(crate) fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Tells it from an earlier one of the same name.
    pub(crate) fn uid(&self) -> ClusterUid {
        self.record.load().uid
    }

    /// What happened to it lately, for [`crate::events::Events`].
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// What happened to it lately, oldest first.
    pub(crate) fn events(&self) -> Vec<ClusterEvent> {
        self.ring.list(&InvolvedObject::cluster(self.name.clone(), self.uid()))
    }

    /// Its sessions, oldest first.
    pub(crate) fn sessions(&self) -> Guard<Arc<Vec<Arc<Session>>>> {
        self.sessions.load()
    }

    /// The session for the next request: of those that answer, the one with fewest requests, of equals the newest.
    /// While the older ones are being probed, the newest.
    pub(super) fn pick(&self) -> Option<(Arc<Session>, Outstanding)> {
        let sessions = self.sessions.load();
        let newest_first = || sessions.iter().rev().filter(|session| session.is_usable());
        let session = newest_first()
            .filter(|session| !session.is_suspect())
            .min_by_key(|session| session.outstanding())
            .or_else(|| newest_first().next())?;
        Some((Arc::clone(session), session.begin()))
    }

    /// Takes a session in, as the newest. Only the registry says whose it is, so only it calls this.
    ///
    /// # Errors
    /// [`AttachError`].
    pub(super) fn attach(
        &self,
        session: &Arc<Session>,
        most: usize,
        overdue: Duration,
    ) -> Result<Attached, AttachError> {
        let mut life = self.locked();
        let mut sessions = self.sessions.load().to_vec();
        let mut displaced = None;
        // Sessions of an older certificate are being left for one of a newer: they do not keep it out.
        let alike = |other: &&Arc<Session>| other.about().fingerprint == session.about().fingerprint;
        if sessions.iter().filter(alike).count() >= most || sessions.len() >= most.saturating_mul(MAX_RENEWED) {
            let silent = sessions.iter().position(|session| session.answer_age() > overdue || !session.is_usable());
            let Some(silent) = silent else { return Err(AttachError::Full(sessions.len())) };
            displaced = Some(sessions.remove(silent));
        }
        let older = sessions.clone();
        sessions.push(Arc::clone(session));
        self.sessions.store(Arc::new(sessions));
        life.agent_version = Some(session.about().agent_version.clone());
        let order =
            |fingerprint| self.record().fingerprints.iter().position(|one| Some(one.fingerprint) == fingerprint);
        let shown = Some(session.about().fingerprint);
        if order(shown) >= order(life.proven) {
            life.proven = shown;
        }
        self.reassess(&mut life, None);
        Ok(Attached { older, displaced })
    }

    /// The newest certificate that a session came with since this server started.
    pub(crate) fn proven(&self) -> Option<Fingerprint> {
        self.locked().proven
    }

    /// The certificates that have sessions.
    pub(crate) fn in_use(&self) -> Vec<Fingerprint> {
        self.sessions.load().iter().map(|session| session.about().fingerprint).collect()
    }

    /// The certificates that have sessions, or had the newest one since this server started.
    pub(crate) fn seen(&self) -> Vec<Fingerprint> {
        self.in_use().into_iter().chain(self.proven()).collect()
    }

    /// Lets a session's agent renew now, unless a renewal of another session is younger than `rest`, or one of its own
    /// younger than `again`.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn take_turn(
        &self,
        session: SessionId,
        (rest, again): (Duration, Duration),
        now: Instant,
    ) -> Result<(), Duration> {
        let mut life = self.locked();
        if let Some((last, whose)) = life.renewal {
            let wait = if whose == session { again } else { rest };
            let left = wait.saturating_sub(now.saturating_duration_since(last));
            if !left.is_zero() {
                return Err(left);
            }
        }
        life.renewal = Some((now, session));
        Ok(())
    }

    /// Takes a session out; says how many are left. `why` is for people.
    pub(crate) fn detach(&self, session: &Arc<Session>, why: &str) -> usize {
        let mut life = self.locked();
        let mut sessions = self.sessions.load().to_vec();
        sessions.retain(|other| !Arc::ptr_eq(other, session));
        let left = sessions.len();
        self.sessions.store(Arc::new(sessions));
        self.reassess(&mut life, Some(why));
        left
    }

    /// Cuts the sessions whose certificate no longer stands for it, with all that runs on them.
    pub(super) fn cut_disowned(&self, record: &ClusterRecord) {
        for session in self.sessions.load_full().iter() {
            // A certificate stands for a cluster in one dialect, as at the door.
            if record.dialect_of(&session.about().fingerprint) != Some(session.dialect()) {
                session.leave();
                session.orders().give(Order::Cut(CloseReason::Revoked));
            }
        }
    }

    /// Deleted, and taken out of the registry, so that no session may come any more: those that are there are cut with
    /// all that runs on them.
    pub(crate) fn retire(&self) {
        for session in self.sessions.load_full().iter() {
            session.leave();
            session.orders().give(Order::Cut(CloseReason::ClusterDeleted));
        }
    }

    /// A session's agent said something, or a session began to leave: looks anew at how the cluster stands.
    pub(crate) fn refresh(&self) {
        let mut life = self.locked();
        self.reassess(&mut life, None);
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let mut standing = self.locked().standing.clone();
        let freshest = self.sessions.load().iter().map(|session| session.answer_age()).min();
        if let Some(age) = freshest {
            standing.last_seen = Some(clock::now().saturating_sub(age));
        }
        standing
    }

    /// The versions of the agent and of Kubernetes that were heard of last.
    pub(crate) fn versions(&self) -> (Option<String>, Option<String>) {
        let life = self.locked();
        (life.agent_version.clone(), life.kubernetes_version.clone())
    }

    /// Since when, and why, no request can be sent.
    pub(super) fn why_not_connected(&self) -> (Option<Timestamp>, String) {
        let standing = self.standing();
        match standing.connection {
            Connection::NeverConnected => (None, standing.message),
            Connection::Disconnected => (Some(standing.since), standing.message),
            Connection::Connected | Connection::Probing | Connection::UpstreamFailing | Connection::NotCarrying => {
                (None, "its agent is going away and opens nothing new".to_owned())
            }
        }
    }

    fn reassess(&self, life: &mut Life, ended: Option<&str>) {
        let sessions = self.sessions.load();
        let told: Vec<_> = sessions.iter().map(|session| session.told()).collect();
        if let Some(version) = told.iter().rev().find_map(|told| told.kubernetes_version.clone()) {
            life.kubernetes_version = Some(version);
        }
        let fares: Vec<_> = sessions.iter().map(|session| session.checked().carriage).zip(&told).map(fares).collect();
        let best = fares.iter().rev().min_by_key(|(connection, _)| rank(*connection));
        let (connection, message) = match (best, ended) {
            (Some((connection, message)), _) => (*connection, message.clone()),
            (None, Some(why)) => (Connection::Disconnected, format!("the last session of its agent ended: {why}")),
            (None, None) => return,
        };
        let now = clock::now();
        let same = life.standing.connection == connection;
        let since = if same { life.standing.since } else { now };
        let probed = sessions.iter().filter_map(|session| session.checked().answered).max().or(life.standing.probed);
        life.standing = Standing { since, probed, last_seen: Some(now), connection, message };
    }

    fn locked(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a cluster stands as far as one of its sessions can tell.
fn fares((carriage, told): (Carriage, &Told)) -> (Connection, String) {
    let words = |connection, message: &str| (connection, message.to_owned());
    match (carriage, &told.upstream) {
        (Carriage::Stuck, _) => words(Connection::NotCarrying, "the agent answers heartbeats, and no requests"),
        (Carriage::Awaited, _) => {
            words(Connection::Probing, "no request has gone through the tunnel to the kube-apiserver and back yet")
        }
        (_, Upstream::Failing(why)) => {
            (Connection::UpstreamFailing, format!("the agent cannot reach its kube-apiserver: {why}"))
        }
        (Carriage::Carries, Upstream::Well) => {
            words(Connection::Connected, "a request went through the tunnel to the kube-apiserver and back")
        }
        (Carriage::Unasked, Upstream::Well) => words(Connection::Connected, "the agent reaches its kube-apiserver"),
        (Carriage::Carries | Carriage::Unasked, Upstream::Untold) => {
            words(Connection::Probing, "the agent has not said yet whether it reaches its kube-apiserver")
        }
    }
}

/// The best of several sessions counts.
const fn rank(connection: Connection) -> u8 {
    match connection {
        Connection::Connected => 0,
        Connection::UpstreamFailing => 1,
        Connection::Probing => 2,
        Connection::NotCarrying => 3,
        Connection::NeverConnected | Connection::Disconnected => 4,
    }
}

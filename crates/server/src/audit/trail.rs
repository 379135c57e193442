//! The trail of one request: what is learnt of it, and the events that it hands on.
//!
//! Held by the request's account from its arrival to its very end. Handing on never waits, save where the request itself
//! is to wait until its receipt is written ([`Trail::receipt`]).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::uri::PathAndQuery;
use moorline_access::{Action, RequestAttributes};
use moorline_audit::Stage;
use moorline_model::{ClusterName, Identity, Reason, SessionId};
use moorline_wire::JOIN_PATH;

use super::{
    Audit,
    entry::{self, Ended, Entry},
    facts::{Decision, Facts, Head, Notes},
    queue::{Place, Unrecorded},
};

/// Bytes kept of what a user was told.
const MAX_MESSAGE: usize = 1024;

/// What services of the management cluster are called in events and in rules about them.
const SERVICES: &str = "managementservices";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its response was passed on to the last byte.
    Complete,
    /// The tunnel broke in the middle of the response, or this server cut it at its end.
    Lost,
    /// The user hung up.
    HungUp,
    /// The user's right, or their credential, ended while it ran.
    Forbidden,
}

impl End {
    /// In logs and events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Lost => "lost",
            Self::HungUp => "hung-up",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Why this server answered by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A word of our own, as in the metrics; empty if there is none.
    pub(crate) cause: &'static str,
    /// What programs are told.
    pub(crate) reason: Reason,
    /// For people. Holds nothing of a credential.
    pub(crate) message: String,
}

/// The trail of one request.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    facts: Arc<Facts>,
    refusal: Option<Box<Refusal>>,
    notes: Option<Notes>,
    /// For the event at the end, in queues that lose none.
    places: Vec<Option<Place>>,
    received: bool,
}

impl Trail {
    /// Begins the trail of a request that has just arrived.
    pub(crate) fn open(audit: &Arc<Audit>, head: &Head<'_>) -> Self {
        let facts = Arc::new(Facts::new(head));
        Self { audit: Arc::clone(audit), facts, refusal: None, notes: None, places: Vec::new(), received: false }
    }

    /// To which cluster it goes, which gets this path.
    pub(crate) fn heads_for(&mut self, cluster: &ClusterName, path: &PathAndQuery) {
        self.facts().heads_for(cluster, path);
    }

    /// Who sends it.
    pub(crate) fn is_of(&mut self, user: Arc<Identity>) {
        self.facts().user = Some(user);
    }

    /// A rule allows it, and as whom it goes on where that is somebody else.
    pub(crate) fn allowed(&mut self, rule: &str, impersonated: Option<Arc<Identity>>) {
        let facts = self.facts();
        facts.decision = Some(Decision::Allow(rule.into()));
        facts.impersonated = impersonated;
    }

    /// It is not allowed.
    pub(crate) fn forbidden(&mut self, why: &str) {
        self.facts().decision = Some(Decision::Forbid(why.into()));
    }

    /// By which session it goes.
    pub(crate) fn goes_by(&mut self, session: SessionId) {
        self.facts().session = Some(session);
    }

    /// What our own API notes, until the end: what it does goes on, whatever becomes of the caller.
    pub(crate) fn follows(&mut self, notes: Notes) {
        self.notes = Some(notes);
    }

    fn learns(&mut self) {
        let Some(noted) = self.notes.take().map(|notes| notes.take()) else { return };
        let group = self.audit.group.clone();
        let facts = self.facts();
        facts.decision = noted.decision.or(facts.decision.take());
        if let Some(whom) = noted.impersonated {
            facts.impersonated = Some(Arc::new(whom));
        }
        if let Some(name) = noted.name {
            let mut about = entry::about(facts, &group).into_owned();
            about.name.get_or_insert(name);
            facts.about = Some(Box::new(about));
        }
    }

    /// It asks for the first certificate of this cluster's agent.
    pub(crate) fn joins(&mut self, cluster: &ClusterName) {
        let group = self.audit.group.clone();
        let facts = self.facts();
        facts.about = Some(Box::new(RequestAttributes {
            verb: "create".to_owned(),
            api_group: group,
            api_version: "v1alpha1".to_owned(),
            resource: Action::RESOURCE.to_owned(),
            subresource: Some("join".to_owned()),
            name: Some(cluster.as_str().to_owned()),
            path: JOIN_PATH.to_owned(),
            is_resource: true,
            namespace: None,
        }));
    }

    /// It is of a program in this cluster, for this service of the management cluster: a connection, or a request.
    pub(crate) fn visits(&mut self, cluster: &ClusterName, service: &str) {
        let group = self.audit.group.clone();
        let facts = self.facts();
        facts.cluster = Some((cluster.clone(), 0));
        facts.about = Some(Box::new(RequestAttributes {
            verb: facts.method.as_str().to_ascii_lowercase(),
            api_group: group,
            api_version: "v1alpha1".to_owned(),
            resource: SERVICES.to_owned(),
            subresource: None,
            name: Some(service.to_owned()),
            path: facts.uri().split('?').next().unwrap_or_default().to_owned(),
            is_resource: true,
            namespace: None,
        }));
    }

    /// Under which id the kube-apiserver has it in its own audit log.
    pub(crate) fn is_there(&mut self, audit_id: &str) {
        self.facts().is_there(audit_id);
    }

    /// This server answered by itself.
    pub(crate) fn refused(&mut self, mut refusal: Refusal) {
        let message = &mut refusal.message;
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        self.refusal = Some(Box::new(refusal));
    }

    /// Hands on the event of its receipt, once. Waits until it is written where a sink is to be waited for. `long` where
    /// it may run long: of others the policy most often wants no such event, and they are not asked about.
    ///
    /// # Errors
    /// It was not written in time, and the request is not to go on.
    pub(crate) async fn receipt(&mut self, long: bool) -> Result<(), Unrecorded> {
        let waits = self.audit.queues.iter().any(super::Queue::is_waited_for);
        if self.received || !(waits || long || self.audit.policy.load().has_early()) {
            return Ok(());
        }
        self.received = true;
        if waits && !self.is_noted() {
            return Ok(());
        }
        let entry = self.entry(Stage::RequestReceived, 0, None);
        for queue in &self.audit.queues {
            if queue.is_waited_for() {
                self.places.push(Some(queue.admit(Entry { awaited: true, ..entry.clone() }).await?));
            } else {
                queue.offer(entry.clone());
                self.places.push(None);
            }
        }
        Ok(())
    }

    /// Hands on the event of the response's head, of requests that run long.
    pub(crate) fn started(&self, code: u16) {
        let entry = self.entry(Stage::ResponseStarted, code, None);
        for queue in &self.audit.queues {
            queue.offer(entry.clone());
        }
    }

    /// Hands on the event of its end.
    pub(crate) fn ended(mut self, how: End, code: u16, bytes: Bytes, took: Duration) {
        self.learns();
        // Whoever is cut has not hung up.
        let how = if how == End::HungUp && self.audit.cuts() { End::Lost } else { how };
        let ended = Ended { how, sent: bytes.sent, received: bytes.received, took };
        let entry = self.entry(Stage::ResponseComplete, code, Some(ended));
        let mut places = self.places.into_iter();
        for queue in &self.audit.queues {
            match places.next().flatten() {
                Some(place) => place.take(entry.clone()),
                None => queue.offer(entry.clone()),
            }
        }
    }

    fn entry(&self, stage: Stage, code: u16, ended: Option<Ended>) -> Entry {
        let facts = Arc::clone(&self.facts);
        // Not before the request came, whatever somebody does to the clock.
        let at = SystemTime::now().max(facts.received);
        let refusal = if code == 0 { None } else { self.refusal.clone() };
        Entry { facts, stage, awaited: false, at, code, refusal, ended }
    }

    fn is_noted(&self) -> bool {
        let about = entry::about(&self.facts, &self.audit.group);
        entry::ruling(&self.facts, &about, &self.audit.policy.load()).is_noted()
    }

    /// Only copied where an event that is under way shares them.
    fn facts(&mut self) -> &mut Facts {
        Arc::make_mut(&mut self.facts)
    }
}

/// Bytes of bodies, or of an upgraded connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bytes {
    /// To the user.
    pub(crate) sent: u64,
    /// From the user.
    pub(crate) received: u64,
}

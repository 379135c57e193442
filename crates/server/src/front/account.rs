//! What is held and noted for one request from its arrival to its very end, wherever that end is.
//!
//! Made by `serve`, carried by the response's body or by the splice of an upgrade. Dropping it is the end: a request
//! whose user hangs up is dropped wherever it stands, and this is how we hear of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, uri::PathAndQuery};
use moorline_access::Permit;
use moorline_model::{ClusterName, Identity, SessionId};
use moorline_process::Work;
use tokio::time::Instant;

pub(super) use crate::audit::End;
use crate::{
    audit::{Bytes, Notes, Refusal, Trail, Unrecorded},
    registry,
};

use super::{body::Progress, fairness::Taken, metrics::Metrics};

/// On what a kube-apiserver answers: the id of the request in its own audit log.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The account of one request.
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    started: Instant,
    end: End,
    sent: u64,
    code: u16,
    line: Option<Box<Line>>,
    trail: Option<Trail>,
    long: bool,
    uploaded: Option<Arc<Progress>>,
    received: u64,
    _work: Work,
    _busy: Busy,
    held: Option<(Taken, registry::Routed)>,
}

/// Counts a request in on its connection, so that a connection on which a watch is silent is not taken for idle.
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// Counts one more until it is dropped.
    pub(super) fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(running))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the log line of a request says. Only made where it would be written.
struct Line {
    request_id: HeaderValue,
    method: Method,
    path: String,
    user: String,
    as_user: String,
    cluster: String,
}

impl Account {
    /// Opens the account of a request that has just arrived.
    pub(super) fn open(metrics: &Arc<Metrics>, work: Work, busy: Busy) -> Self {
        metrics.running.inc();
        Self {
            metrics: Arc::clone(metrics),
            started: Instant::now(),
            end: End::HungUp,
            sent: 0,
            code: 0,
            line: None,
            trail: None,
            long: false,
            uploaded: None,
            received: 0,
            _work: work,
            _busy: busy,
            held: None,
        }
    }

    /// Keeps what the request takes up until it ends: its user's and its cluster's room, its place on the session.
    pub(super) fn hold(&mut self, taken: Taken, routed: registry::Routed) {
        self.held = Some((taken, routed));
    }

    /// Leaves a trail from now on.
    pub(super) fn leaves(&mut self, trail: Trail) {
        self.trail = Some(trail);
    }

    /// Notes to which cluster it goes, by which path there, and whether it may run long.
    pub(super) fn heads_for(&mut self, cluster: &ClusterName, path: &PathAndQuery, long: bool) {
        self.long = long;
        if let Some(trail) = &mut self.trail {
            trail.heads_for(cluster, path);
        }
    }

    /// Whether it may run long.
    pub(super) fn runs_long(&self) -> bool {
        self.long
    }

    /// Notes who sends it.
    pub(super) fn is_of(&mut self, user: &Identity, faces: &Faces) {
        if let Some(trail) = &mut self.trail {
            trail.is_of(faces.user.of(user));
        }
    }

    /// Notes by which rule it goes on, and as whom.
    pub(super) fn allowed(&mut self, permit: &Permit, faces: &Faces) {
        if let Some(trail) = &mut self.trail {
            let acts = !std::ptr::eq(permit.authenticated(), permit.identity());
            trail.allowed(permit.rule(), acts.then(|| faces.impersonated.of(permit.identity())));
        }
    }

    /// Notes by which session it goes.
    pub(super) fn goes_by(&mut self, session: SessionId) {
        if let Some(trail) = &mut self.trail {
            trail.goes_by(session);
        }
    }

    /// Notes what our own API notes, until the end.
    pub(super) fn follows(&mut self, notes: &Notes) {
        if let Some(trail) = &mut self.trail {
            trail.follows(notes.clone());
        }
    }

    /// Notes under which id the kube-apiserver wrote it down, if it said so.
    pub(super) fn is_there(&mut self, response: &HeaderMap) {
        let id = response.get(AUDIT_ID).and_then(|id| id.to_str().ok());
        if let (Some(trail), Some(id)) = (&mut self.trail, id) {
            trail.is_there(id);
        }
    }

    /// Hands on the audit event of its receipt, and waits until it is written where that is asked for.
    ///
    /// # Errors
    /// It was not written in time: the request must not go on.
    pub(super) async fn receipt(&mut self, long: bool) -> Result<(), Unrecorded> {
        match &mut self.trail {
            Some(trail) => trail.receipt(long).await,
            None => Ok(()),
        }
    }

    /// Keeps sight of the request's body.
    pub(super) fn uploads(&mut self, progress: Option<Arc<Progress>>) {
        self.uploaded = progress;
    }

    /// Counts bytes that the user sent on an upgraded connection.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// Notes what the log line will say, if anybody reads it.
    pub(super) fn describe(&mut self, request_id: &HeaderValue, method: &Method, path: &str, who: Who<'_>) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.line = Some(Box::new(Line {
                request_id: request_id.clone(),
                method: method.clone(),
                path: path.to_owned(),
                user: who.user.to_owned(),
                as_user: who.as_user.to_owned(),
                cluster: who.cluster.to_owned(),
            }));
        }
    }

    /// Notes the status code that the user gets.
    pub(super) fn answered(&mut self, code: u16) {
        self.code = code;
        self.metrics.answered(code);
        if let (true, Some(trail)) = (self.long, &self.trail) {
            trail.started(code);
        }
    }

    /// Notes that this server answered by itself, and why. Before [`Account::answered`].
    pub(super) fn failed(&mut self, refusal: impl FnOnce() -> Refusal, cause: &'static str) {
        self.metrics.failed(cause);
        self.refused(refusal);
    }

    /// The same of our own API, which counts by itself.
    pub(super) fn refused(&mut self, refusal: impl FnOnce() -> Refusal) {
        if let Some(trail) = &mut self.trail {
            trail.refused(refusal());
        }
    }

    /// Notes that no rule allows it.
    pub(super) fn forbidden(&mut self, why: &str) {
        if let Some(trail) = &mut self.trail {
            trail.forbidden(why);
        }
    }

    /// How long the request has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts bytes of the response.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Says how the request ended; without it, the user hung up.
    pub(super) fn ends(&mut self, end: End) {
        self.end = end;
    }
}

/// Whom a connection served last, so that the trails of all requests of one user share what is known of them.
#[derive(Default)]
pub(super) struct Faces {
    user: Face,
    impersonated: Face,
}

#[derive(Default)]
struct Face(Mutex<Option<Arc<Identity>>>);

impl Face {
    fn of(&self, identity: &Identity) -> Arc<Identity> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| known.as_ref() == identity) {
            return Arc::clone(known);
        }
        Arc::clone(last.insert(Arc::new(identity.clone())))
    }
}

/// Who sends a request where.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    /// The authenticated user.
    pub(super) user: &'a str,
    /// As whom the request goes on: the same, or who is impersonated.
    pub(super) as_user: &'a str,
    /// To which cluster.
    pub(super) cluster: &'a str,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.running.dec();
        match self.end {
            End::Complete => {}
            End::Lost => {
                self.metrics.bodies_lost.inc();
            }
            End::Forbidden => {
                self.metrics.forbidden.inc();
            }
            End::HungUp => {
                self.metrics.hung_up.inc();
            }
        }
        let took = self.started.elapsed();
        if let Some(trail) = self.trail.take() {
            let uploaded = self.uploaded.as_ref().map_or(0, |progress| progress.bytes());
            let received = self.received.saturating_add(uploaded);
            trail.ended(self.end, self.code, Bytes { sent: self.sent, received }, took);
        }
        if let Some(line) = &self.line {
            tracing::debug!(
                request_id = line.request_id.to_str().unwrap_or_default(),
                user = line.user,
                as_user = line.as_user,
                cluster = line.cluster,
                session = self.held.as_ref().map(|(_, routed)| tracing::field::display(routed.session_id())),
                method = %line.method,
                path = line.path,
                code = self.code,
                bytes = self.sent,
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                end = self.end.as_str(),
                "request"
            );
        }
    }
}

//! What is noted of one connection, or of one request where they can be told apart, from its beginning to its very end.
//!
//! Made when it is known which service is meant; dropping it is the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Uri};
use moorline_process::Work;
use moorline_wire::services::{self, ServiceName};
use tokio::time::Instant;

use super::{origin::Origin, refused::Refused};
use crate::{
    audit::{Bytes, End, Head, Refusal, Trail},
    front::body::Progress,
};

/// One connection or request.
pub(super) struct Visit {
    origin: Arc<Origin>,
    service: ServiceName,
    trail: Option<Trail>,
    began: Instant,
    code: u16,
    carried: Arc<Carried>,
    uploaded: Option<Arc<Progress>>,
    long: bool,
    end: End,
    _work: Work,
}

/// Bytes so far.
#[derive(Debug, Default)]
pub(super) struct Carried {
    up: AtomicU64,
    down: AtomicU64,
}

impl Carried {
    /// So many came from the program.
    pub(super) fn up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many went to it.
    pub(super) fn down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Visit {
    /// A connection to a service, of whose content nothing is known.
    pub(super) fn connection(origin: &Arc<Origin>, service: &ServiceName) -> Self {
        let uri = Uri::try_from(services::path(service)).unwrap_or_default();
        Self::open(origin, service, (&Method::CONNECT, &uri, &HeaderMap::new()), true)
    }

    /// A request to a service.
    pub(super) fn request<B>(origin: &Arc<Origin>, service: &ServiceName, request: &http::Request<B>) -> Self {
        Self::open(origin, service, (request.method(), request.uri(), request.headers()), false)
    }

    fn open(
        origin: &Arc<Origin>,
        service: &ServiceName,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        long: bool,
    ) -> Self {
        let state = origin.state();
        let trail = state.audit.as_ref().map(|audit| {
            let id = crate::front::request_id();
            let mut trail = Trail::open(audit, &Head { id: &id, method, uri, headers, peer: origin.peer() });
            trail.visits(origin.cluster().name(), service.as_str());
            trail.is_of(Arc::clone(origin.user()));
            trail.goes_by(origin.session());
            trail
        });
        state.services.metrics.open.inc();
        Self {
            origin: Arc::clone(origin),
            service: service.clone(),
            trail,
            began: Instant::now(),
            code: 0,
            carried: Arc::default(),
            uploaded: None,
            long,
            end: End::HungUp,
            _work: state.phases.work(),
        }
    }

    /// Waits until it is written that it begins, where that is asked for.
    ///
    /// # Errors
    /// It was not written in time: it must not go on.
    pub(super) async fn receipt(&mut self) -> Result<(), Refused> {
        match &mut self.trail {
            Some(trail) => trail.receipt(self.long).await.map_err(Refused::Unrecorded),
            None => Ok(()),
        }
    }

    /// The service was reached, and this is the answer.
    pub(super) fn answered(&mut self, code: u16) {
        self.code = code;
        if let (true, Some(trail)) = (self.long, &self.trail) {
            trail.started(code);
        }
    }

    /// It does not go on.
    pub(super) fn refused(&mut self, refused: &Refused) {
        let status = refused.status();
        self.code = status.code;
        self.end = End::Complete;
        if let Some(trail) = &mut self.trail {
            if matches!(refused, Refused::Forbidden(_)) {
                trail.forbidden("the service is not for this cluster");
            }
            trail.refused(Refusal { cause: refused.label(), reason: status.reason, message: refused.to_string() });
        }
        count(&self.origin, refused);
    }

    /// Keeps sight of a request's body.
    pub(super) fn uploads(&mut self, progress: &Arc<Progress>) {
        self.uploaded = Some(Arc::clone(progress));
    }

    /// What is counted while it runs, so that it is known however it ends.
    pub(super) fn carried(&self) -> &Arc<Carried> {
        &self.carried
    }

    /// Says how it ended; without it, the program hung up.
    pub(super) fn ends(&mut self, end: End) {
        self.end = end;
    }
}

/// Notes that a program names no service that it may reach. One that there is is written down; names that there are not
/// would be a way to fill the log.
pub(super) fn not_found(origin: &Arc<Origin>, refused: &Refused) {
    if let Refused::Forbidden(name) = refused {
        Visit::connection(origin, name).refused(refused);
    } else {
        count(origin, refused);
    }
}

/// Counts and tells what does not even name a service, or is refused otherwise.
pub(super) fn count(origin: &Origin, refused: &Refused) {
    origin.services().metrics.refused(refused.label());
    tracing::debug!(
        cluster = %origin.cluster().name(),
        session = %origin.session(),
        reason = refused.label(),
        "a program does not reach a service: {refused}"
    );
}

impl Drop for Visit {
    fn drop(&mut self) {
        let metrics = &self.origin.services().metrics;
        metrics.open.dec();
        let uploaded = self.uploaded.as_ref().map_or(0, |progress| progress.bytes());
        let (up, down) =
            (self.carried.up.load(Ordering::Relaxed) + uploaded, self.carried.down.load(Ordering::Relaxed));
        metrics.carried(up, down);
        let took = self.began.elapsed();
        if self.end == End::HungUp && self.origin.by_name(&self.service).is_err() {
            // It was cut, though nobody was left to say so.
            self.end = End::Forbidden;
        }
        if let Some(trail) = self.trail.take() {
            trail.ended(self.end, self.code, Bytes { sent: down, received: up }, took);
        }
        tracing::debug!(
            cluster = %self.origin.cluster().name(),
            session = %self.origin.session(),
            service = %self.service,
            code = self.code,
            up,
            down,
            duration_ms = millis(took),
            end = self.end.as_str(),
            "visit of a service"
        );
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

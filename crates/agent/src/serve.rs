//! What happens to a stream that the server opens: the steps of a request's way, each a type that only the step before
//! can make.
//!
//! `accept` reads HTTP from the stream, [`identify`] finds who asks, [`impersonate`] makes the request theirs, [`upstream`]
//! asks the kube-apiserver, [`upgrade`] splices switched connections, [`respond`] words every answer that is not the
//! kube-apiserver's own. Called by `tunnel::session` for each stream. A request runs in its stream's task; when the
//! stream is reset the task drops everything it holds, the connection to the kube-apiserver included.

mod accept;
mod identify;
mod impersonate;
mod respond;
mod upgrade;
pub(crate) mod upstream;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use moorline_impersonation::Narrowing;
use moorline_model::RequestId;
use moorline_mux::Pace;
use moorline_process::{Phase, Phases, Work};
use moorline_wire::probe;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

pub(crate) use accept::stream;
use identify::Arrived;
use respond::Refusal;
pub(crate) use respond::{AnswerBody, Chain};
use upgrade::Splice;
use upstream::{Answer, Upstream};

use crate::{kubernetes::Readiness, metrics::Metrics};

/// How long a stream may wait for its next request. The server closes kept streams after 60 s, so that a request and
/// this closing do not cross.
pub(crate) const IDLE: Duration = Duration::from_secs(90);

/// What the agent makes of the requests that come to it.
#[derive(Debug)]
pub(crate) struct Config {
    /// Whom the server may not act as here, whatever it decided.
    pub(crate) narrowing: Narrowing,
    /// How many requests run at once, over all sessions; one more is refused. Each has its own connection to the
    /// kube-apiserver, so this bounds those as well.
    pub(crate) max_requests: usize,
}

/// Answers requests. Shared by all streams of all sessions.
#[derive(Debug)]
pub(crate) struct Service {
    upstream: Arc<Upstream>,
    readiness: Readiness,
    narrowing: Narrowing,
    slots: Arc<Semaphore>,
    phases: Phases,
    metrics: Arc<Metrics>,
}

/// Held for as long as a request runs, to the last byte of its answer: its slot, and the shutdown that waits for it.
struct Running {
    _slot: OwnedSemaphorePermit,
    _work: Work,
    _counted: crate::metrics::Running,
}

/// What the requests of one stream share with the stream's task.
#[derive(Default)]
struct Line {
    /// Where a request leaves the other connection of its upgrade.
    splice: Mutex<Option<Splice>>,
    pace: Arc<Pace>,
}

impl Service {
    /// Dials nothing yet.
    pub(crate) fn new(
        config: Config,
        (upstream, readiness): (Arc<Upstream>, Readiness),
        phases: Phases,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstream,
            readiness,
            narrowing: config.narrowing,
            slots: Arc::new(Semaphore::new(config.max_requests)),
            phases,
            metrics,
        }
    }

    /// The life of a request, in the order of its steps.
    async fn answer(&self, request: Request<Incoming>, line: &Line) -> Response<AnswerBody> {
        if probe::is_probe(&request) {
            return self.probed().await;
        }
        let began = Instant::now();
        let arrived = Arrived::new(request);
        let id = arrived.request_id();
        match self.pass(arrived, line).await {
            Ok(response) => {
                let status = response.status();
                self.metrics.answered(status, began.elapsed());
                tracing::debug!(request_id = %Shown(id), status = status.as_u16(), "answered by the kube-apiserver");
                response
            }
            Err(refusal) => {
                self.metrics.refused(refusal.failure());
                refusal.log(&Shown(id));
                refusal.into_response()
            }
        }
    }

    async fn pass(&self, arrived: Arrived, line: &Line) -> Result<Response<AnswerBody>, Refusal> {
        if self.phases.current() >= Phase::Draining {
            return Err(Refusal::ShuttingDown);
        }
        let identified = arrived.identify()?;
        let mut impersonated = identified.impersonate(&self.narrowing)?;
        let running = self.admit()?;
        let switching = impersonated.take_upgrade();
        match self.upstream.forward(impersonated).await? {
            Answer::Response(response) => Ok(respond::from_upstream(response, running, &line.pace)),
            Answer::Switched(response, theirs) => {
                let Some(ours) = switching else { return Err(Refusal::UnaskedSwitch) };
                line.leave(Splice::new(ours, theirs, running));
                Ok(respond::switched(response))
            }
        }
    }

    /// The server asks whether its requests get through. It chooses nothing: what is asked of the kube-apiserver is ours,
    /// and of the answer it learns whether it was one.
    async fn probed(&self) -> Response<AnswerBody> {
        if self.phases.current() >= Phase::Draining {
            return Refusal::ShuttingDown.into_response();
        }
        let running = match self.admit() {
            Ok(running) => running,
            Err(refusal) => return refusal.into_response(),
        };
        let asked = self.readiness.ask().await;
        drop(running);
        respond::to_probe(asked.err().map(|error| Chain(&error).to_string()))
    }

    fn admit(&self) -> Result<Running, Refusal> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_full| Refusal::Overloaded)?;
        Ok(Running { _slot: slot, _work: self.phases.work(), _counted: self.metrics.running() })
    }
}

impl Line {
    fn leave(&self, splice: Splice) {
        *self.splice.lock().unwrap_or_else(PoisonError::into_inner) = Some(splice);
    }

    fn take(&self) -> Option<Splice> {
        self.splice.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request id in a log line, or a dash.
struct Shown(Option<RequestId>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(id) => id.fmt(f),
            None => f.write_str("-"),
        }
    }
}

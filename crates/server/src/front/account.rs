//! What is held and noted for one request from its arrival to its very end, wherever that end is.
//!
//! Made by `serve`, carried by the response's body or by the splice of an upgrade. Dropping it is the end: a request
//! whose user hangs up is dropped wherever it stands, and this is how we hear of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method};
use moorline_process::Work;
use tokio::time::Instant;

use crate::registry;

use super::{fairness::Taken, metrics::Metrics};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its response was passed on to the last byte.
    Complete,
    /// The tunnel broke in the middle of the response.
    Lost,
    /// The user hung up.
    HungUp,
    /// The user's right, or their credential, ended while it ran.
    Forbidden,
}

/// The account of one request.
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    started: Instant,
    end: End,
    sent: u64,
    code: u16,
    line: Option<Box<Line>>,
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
            _work: work,
            _busy: busy,
            held: None,
        }
    }

    /// Keeps what the request takes up until it ends: its user's and its cluster's room, its place on the session.
    pub(super) fn hold(&mut self, taken: Taken, routed: registry::Routed) {
        self.held = Some((taken, routed));
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
    }

    /// Notes that this server answered by itself, and why.
    pub(super) fn failed(&self, cause: &'static str) {
        self.metrics.failed(cause);
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
        let end = match self.end {
            End::Complete => "complete",
            End::Lost => {
                self.metrics.bodies_lost.inc();
                "lost"
            }
            End::Forbidden => {
                self.metrics.forbidden.inc();
                "forbidden"
            }
            End::HungUp => {
                self.metrics.hung_up.inc();
                "hung-up"
            }
        };
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
                duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                end,
                "request"
            );
        }
    }
}

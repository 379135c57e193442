//! Every metric of the agent: name, labels, help. Counted where the decision is made, by the component that makes it.
//!
//! Labels come from small fixed sets only, and from the agent's own configuration: no user, no path, no address.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use moorline_process::{Registry, metrics::prometheus_client};
use moorline_wire::Failure;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

use crate::{serve::upstream::ConnectError, standing::Reason};

type Labels = [(&'static str, &'static str); 1];
type ServiceLabels = [(&'static str, String); 1];
type OutcomeLabels = [(&'static str, String); 2];

/// From 1 ms, which a kube-apiserver next door takes, to its request timeout.
const LATENCY: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// The metrics. Shared by all components.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By class of status, `1xx` to `5xx`, resolved once.
    answered: [Counter; 5],
    refused: Family<Labels, Counter>,
    running: Gauge,
    latency: Histogram,
    connects: Family<Labels, Counter>,
    connect_latency: Histogram,
    probe_ok: Gauge,
    dials: Family<Labels, Counter>,
    sessions: Gauge,
    session_ends: Family<Labels, Counter>,
    streams: Counter,
    round_trip: Histogram,
    certificate_expiry: Gauge,
    token_reloads: Family<Labels, Counter>,
    connection_ok: Gauge,
    conditions: Family<Labels, Counter>,
    identity_kept: Gauge,
    standing: Family<Labels, Gauge>,
    stands: Mutex<Option<Reason>>,
    renewals: Family<Labels, Counter>,
    service_running: Family<ServiceLabels, Gauge>,
    service_connections: Family<OutcomeLabels, Counter>,
    service_bytes: Family<OutcomeLabels, Counter>,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry) -> Self {
        let answered: Family<Labels, Counter> = registry.register(
            "agent_requests_answered",
            "Requests answered by the kube-apiserver, by class of status",
            Family::default(),
        );
        let class = |class| answered.get_or_create_owned(&[("class", class)]);
        Self {
            answered: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            refused: registry.register(
                "agent_requests_refused",
                "Requests answered by the agent itself, by reason",
                Family::default(),
            ),
            running: registry.register("agent_requests_running", "Requests being served", Gauge::default()),
            latency: registry.register(
                "agent_response_head_seconds",
                "From the request's head to the head of the kube-apiserver's answer",
                Histogram::new(LATENCY),
            ),
            connects: registry.register(
                "agent_upstream_connects",
                "New connections to the kube-apiserver, by result",
                Family::default(),
            ),
            connect_latency: registry.register(
                "agent_upstream_connect_seconds",
                "Time to a new connection to the kube-apiserver",
                Histogram::new(LATENCY),
            ),
            probe_ok: registry.register(
                "agent_upstream_ok",
                "1 when the last probe of the kube-apiserver went well",
                Gauge::default(),
            ),
            dials: registry.register(
                "agent_dials",
                "Attempts to get a session, by the step that failed, or ok",
                Family::default(),
            ),
            sessions: registry.register("agent_sessions", "Sessions that the server has welcomed", Gauge::default()),
            session_ends: registry.register("agent_session_ends", "Sessions ended, by reason", Family::default()),
            streams: registry.register("agent_streams", "Streams that the server opened", Counter::default()),
            round_trip: registry.register(
                "agent_heartbeat_seconds",
                "From a heartbeat to its answer",
                Histogram::new(LATENCY),
            ),
            certificate_expiry: registry.register(
                "agent_certificate_expiry_timestamp_seconds",
                "When the agent's certificate ends",
                Gauge::default(),
            ),
            renewals: registry.register(
                "agent_certificate_renewals",
                "Attempts to get a new certificate, by result",
                Family::default(),
            ),
            service_running: registry.register(
                "agent_service_running",
                "Connections of programs of this cluster to services of the management cluster, by service",
                Family::default(),
            ),
            service_connections: registry.register(
                "agent_service_connections",
                "Connections to services of the management cluster that have ended, by service and what came of them",
                Family::default(),
            ),
            service_bytes: registry.register(
                "agent_service_bytes",
                "Bytes carried by connections to services that have ended: up to the service, and down from it",
                Family::default(),
            ),
            token_reloads: registry.register(
                "agent_token_reloads",
                "Times that the token file was read again, by result",
                Family::default(),
            ),
            connection_ok: registry.register(
                "agent_connection_resource_ok",
                "1 when the connection resource was read the last time, if one is followed",
                Gauge::default(),
            ),
            conditions: registry.register(
                "agent_condition_writes",
                "Writes of the connection resource's condition, by result",
                Family::default(),
            ),
            identity_kept: registry.register(
                "agent_identity_secret_ok",
                "1 when the identity Secret could be read or written the last time, if there is one",
                Gauge::default(),
            ),
            standing: registry.register(
                "agent_standing",
                "1 for the reason why the management cluster can be reached (Connected) or cannot",
                Family::default(),
            ),
            stands: Mutex::default(),
        }
    }

    pub(crate) fn answered(&self, status: StatusCode, after: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.answered.get(class) {
            counter.inc();
        }
        self.latency.observe(after.as_secs_f64());
    }

    pub(crate) fn refused(&self, failure: Failure) {
        self.refused.get_or_create(&[("reason", failure.as_str())]).inc();
    }

    pub(crate) fn running(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    pub(crate) fn upstream_connected<T>(&self, result: &Result<T, ConnectError>, after: Duration) {
        let label = result.as_ref().err().map_or("ok", ConnectError::label);
        self.connects.get_or_create(&[("result", label)]).inc();
        self.connect_latency.observe(after.as_secs_f64());
    }

    pub(crate) fn probed(&self, ok: bool) {
        self.probe_ok.set(i64::from(ok));
    }

    pub(crate) fn dialled(&self, step: &'static str) {
        self.dials.get_or_create(&[("result", step)]).inc();
    }

    pub(crate) fn session(&self) -> Running {
        self.sessions.inc();
        Running(self.sessions.clone())
    }

    pub(crate) fn session_ended(&self, reason: &'static str) {
        self.session_ends.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn stream(&self) {
        self.streams.inc();
    }

    pub(crate) fn round_trip(&self, took: Duration) {
        self.round_trip.observe(took.as_secs_f64());
    }

    pub(crate) fn certificate_ends(&self, unix_seconds: i64) {
        self.certificate_expiry.set(unix_seconds);
    }

    pub(crate) fn connection_read(&self, ok: bool) {
        self.connection_ok.set(i64::from(ok));
    }

    pub(crate) fn condition_written(&self, result: &'static str) {
        self.conditions.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn identity_kept(&self, ok: bool) {
        self.identity_kept.set(i64::from(ok));
    }

    pub(crate) fn stands(&self, reason: Option<Reason>) {
        let mut before = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == reason {
            return;
        }
        for (reason, value) in [(before.take(), 0), (reason, 1)] {
            if let Some(reason) = reason {
                self.standing.get_or_create(&[("reason", reason.as_str())]).set(value);
            }
        }
        *before = reason;
    }

    pub(crate) fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create(&[("result", result)]).inc();
    }

    /// Those of one service.
    pub(crate) fn of_service(&self, name: &str) -> ServiceMetrics {
        ServiceMetrics {
            name: name.to_owned(),
            running: self.service_running.get_or_create_owned(&[("service", name.to_owned())]),
            connections: self.service_connections.clone(),
            bytes: ["up", "down"].map(|direction| {
                let labels = [("service", name.to_owned()), ("direction", direction.to_owned())];
                self.service_bytes.get_or_create_owned(&labels)
            }),
        }
    }

    pub(crate) fn token_reloaded(&self, result: &'static str) {
        self.token_reloads.get_or_create(&[("result", result)]).inc();
    }
}

/// The metrics of one service that is offered here.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    name: String,
    running: Gauge,
    connections: Family<OutcomeLabels, Counter>,
    /// Up and down.
    bytes: [Counter; 2],
}

impl ServiceMetrics {
    pub(crate) fn running(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// A connection to the service has ended, after so many bytes up and down.
    pub(crate) fn carried(&self, result: &'static str, bytes: [u64; 2]) {
        for (counter, bytes) in self.bytes.iter().zip(bytes) {
            counter.inc_by(bytes);
        }
        self.ended(result);
    }

    /// The connection of a caller has ended.
    pub(crate) fn ended(&self, result: &'static str) {
        let labels = [("service", self.name.clone()), ("result", result.to_owned())];
        self.connections.get_or_create(&labels).inc();
    }
}

/// Counted in a gauge for as long as it exists.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

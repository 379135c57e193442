//! The gateway's metrics, each handle resolved once, so that counting on the way of a request is one atomic addition.
//!
//! Made by `Front::new`, fed by every step. Labels are words of our own: no user, no path, no cluster.

use moorline_process::{
    Registry,
    metrics::prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

type Labels = [(&'static str, &'static str); 1];

/// Every metric of the gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Connections that are open.
    pub(super) connections: Gauge,
    refused: Family<Labels, Counter>,
    handshakes: Family<Labels, Counter>,
    /// Requests that run, watches and upgraded connections included.
    pub(super) running: Gauge,
    answers: [Counter; 6],
    causes: Family<Labels, Counter>,
    /// Seconds from the arrival of a request to the head of the kube-apiserver's answer.
    pub(super) head_seconds: Histogram,
    /// Requests whose user was told by a bearer token.
    pub(super) by_token: Counter,
    /// Requests whose user was told by a client certificate.
    pub(super) by_certificate: Counter,
    /// Requests without any credential, where they are let in as nobody.
    pub(super) anonymous: Counter,
    /// Requests that may reach their cluster.
    pub(super) allowed: Counter,
    /// Requests that may not.
    pub(super) denied: Counter,
    /// Requests that found an idle stream.
    pub(super) pool_hits: Counter,
    /// Idle streams that turned out to be gone when a request was about to use them.
    pub(super) pool_stale: Counter,
    /// Streams opened to be kept for further requests.
    pub(super) opened_pooled: Counter,
    /// Streams opened for a single request.
    pub(super) opened_own: Counter,
    /// Upgraded connections that are open.
    pub(super) upgraded: Gauge,
    /// Answers cut because the tunnel broke in the middle.
    pub(super) bodies_lost: Counter,
    /// Requests that were ended while they ran, since they were not permitted any more.
    pub(super) forbidden: Counter,
    /// Requests whose user hung up first.
    pub(super) hung_up: Counter,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry) -> Self {
        let answers: Family<Labels, Counter> =
            registry.register("gateway_responses", "Responses to users, by class of status code", Family::default());
        let class = |class| answers.get_or_create_owned(&[("class", class)]);
        let authenticated: Family<Labels, Counter> =
            registry.register("gateway_authenticated", "Requests with a known user, by method", Family::default());
        let decisions: Family<Labels, Counter> =
            registry.register("gateway_decisions", "Whether a request may reach its cluster", Family::default());
        let opened: Family<Labels, Counter> =
            registry.register("gateway_streams_opened", "Streams opened for requests, by use", Family::default());
        Self {
            connections: registry.register(
                "gateway_connections",
                "Connections of users that are open",
                Gauge::default(),
            ),
            refused: registry.register(
                "gateway_connections_refused",
                "Connections hung up before the handshake, by reason",
                Family::default(),
            ),
            handshakes: registry.register(
                "gateway_handshakes_failed",
                "TLS handshakes of users that failed, by reason",
                Family::default(),
            ),
            running: registry.register("gateway_requests_running", "Requests that run", Gauge::default()),
            answers: [class("other"), class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")],
            causes: registry.register(
                "gateway_failures",
                "Requests that this server answered itself with a failure, by cause",
                Family::default(),
            ),
            head_seconds: registry.register(
                "gateway_response_head_seconds",
                "Time to the head of the response of a cluster",
                Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0]),
            ),
            by_token: authenticated.get_or_create_owned(&[("method", "token")]),
            by_certificate: authenticated.get_or_create_owned(&[("method", "certificate")]),
            anonymous: authenticated.get_or_create_owned(&[("method", "none")]),
            allowed: decisions.get_or_create_owned(&[("decision", "allow")]),
            denied: decisions.get_or_create_owned(&[("decision", "deny")]),
            pool_hits: registry.register("gateway_pool_hits", "Requests sent on an idle stream", Counter::default()),
            pool_stale: registry.register(
                "gateway_pool_stale",
                "Idle streams that were gone when a request was about to use them",
                Counter::default(),
            ),
            opened_pooled: opened.get_or_create_owned(&[("use", "pooled")]),
            opened_own: opened.get_or_create_owned(&[("use", "own")]),
            upgraded: registry.register("gateway_upgraded", "Upgraded connections that are open", Gauge::default()),
            bodies_lost: registry.register(
                "gateway_bodies_lost",
                "Responses cut because the tunnel broke in the middle",
                Counter::default(),
            ),
            forbidden: registry.register(
                "gateway_ended_forbidden",
                "Running requests ended because their user may not go on",
                Counter::default(),
            ),
            hung_up: registry.register("gateway_hung_up", "Requests whose user hung up first", Counter::default()),
        }
    }

    /// Counts a response by its status code.
    pub(super) fn answered(&self, code: u16) {
        let class = usize::from(code / 100);
        if let Some(counter) = self.answers.get(class).or(self.answers.first()) {
            counter.inc();
        }
    }

    /// Counts a failure of our own.
    pub(super) fn failed(&self, cause: &'static str) {
        self.causes.get_or_create_owned(&[("cause", cause)]).inc();
    }

    /// Counts a connection that was hung up on before its handshake.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&[("reason", reason)]).inc();
    }

    /// Counts a failed handshake.
    pub(super) fn handshake_failed(&self, reason: &'static str) {
        self.handshakes.get_or_create_owned(&[("reason", reason)]).inc();
    }
}

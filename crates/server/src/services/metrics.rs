//! Counters of what programs in managed clusters ask of management services. Labels are words of our own.

use moorline_process::{
    Registry,
    metrics::prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

type Labels = [(&'static str, &'static str); 1];

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Connections to services that are open.
    pub(super) open: Gauge,
    entered: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    requests: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
    /// From the first look at the address of a service to a connection that can be used, in seconds.
    pub(super) dial_seconds: Histogram,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            open: registry.register("service_streams", "Streams that lead to management services", Gauge::default()),
            entered: registry.register(
                "service_connections",
                "Streams that were let in to a management service, by how they named it",
                Family::default(),
            ),
            refused: registry.register(
                "service_refused",
                "Streams and requests for management services that were refused, by reason",
                Family::default(),
            ),
            requests: registry.register(
                "service_requests",
                "Requests that were passed on to management services, by class of the answer",
                Family::default(),
            ),
            bytes: registry.register(
                "service_bytes",
                "Bytes carried for management services, by direction: up is from the managed cluster",
                Family::default(),
            ),
            dial_seconds: registry.register(
                "service_dial_seconds",
                "Time from the look-up of a management service's address to a usable connection",
                Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            ),
        }
    }

    /// A stream leads to a service now; it named it by this.
    pub(super) fn entered(&self, by: &'static str) {
        self.entered.get_or_create_owned(&[("by", by)]).inc();
    }

    /// A stream or a request was refused.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&[("reason", reason)]).inc();
    }

    /// A service answered.
    pub(super) fn answered(&self, class: &'static str) {
        self.requests.get_or_create_owned(&[("class", class)]).inc();
    }

    /// So many bytes went each way.
    pub(super) fn carried(&self, up: u64, down: u64) {
        self.bytes.get_or_create_owned(&[("direction", "up")]).inc_by(up);
        self.bytes.get_or_create_owned(&[("direction", "down")]).inc_by(down);
    }
}

//! What becomes of audit events, counted by sink.

use moorline_process::{
    Registry,
    metrics::prometheus_client::metrics::{counter::Counter, family::Family},
};

type Labels = [(&'static str, &'static str); 1];

/// Of all sinks.
#[derive(Debug)]
pub(super) struct Metrics {
    written: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    late: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
}

/// Of one sink, each handle resolved once.
#[derive(Clone, Debug)]
pub(super) struct SinkMetrics {
    /// Its name.
    pub(super) sink: &'static str,
    /// Events that it took.
    pub(super) written: Counter,
    /// Events that it will never get.
    pub(super) dropped: Counter,
    /// Requests that were refused, since their event was not written in time.
    pub(super) late: Counter,
    /// Times that it failed.
    pub(super) errors: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let family = |name: &str, help: &str| registry.register(name, help, Family::default());
        Self {
            written: family("audit_events", "Audit events that a sink took"),
            dropped: family("audit_events_dropped", "Audit events that a sink will never get"),
            late: family("audit_refused", "Requests refused because a sink did not take their event in time"),
            errors: family("audit_errors", "Failed writes to a sink"),
        }
    }

    pub(super) fn of(&self, sink: &'static str) -> SinkMetrics {
        let labels = [("sink", sink)];
        SinkMetrics {
            sink,
            written: self.written.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
            late: self.late.get_or_create_owned(&labels),
            errors: self.errors.get_or_create_owned(&labels),
        }
    }
}

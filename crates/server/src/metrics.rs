//! Counters and gauges of the tunnel, the sessions and the control API, each told where it is decided. The gateway
//! has its own in `front::metrics`.
//!
//! Labels are words of our own, never a name, path or address.

use std::sync::atomic::AtomicU64;

use moorline_mux::MemoryBudget;
use moorline_process::{
    Registry,
    metrics::prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeMetric},
        metrics::{
            counter::{ConstCounter, Counter},
            family::Family,
            gauge::{ConstGauge, Gauge},
            histogram::Histogram,
        },
    },
};

type Labels = [(&'static str, &'static str); 1];

/// Everything but the gateway's.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Handshakes (TLS and hello) in progress.
    pub(crate) handshakes: Gauge,
    /// Seconds from accept to welcome.
    pub(crate) admission_seconds: Histogram,
    refused: Family<Labels, Counter>,
    joins: Family<Labels, Counter>,
    /// Sessions that are up.
    pub(crate) sessions: Gauge,
    /// Sessions that were welcomed.
    pub(crate) welcomed: Counter,
    ended: Family<Labels, Counter>,
    /// Heartbeats that no answer came to in time.
    pub(crate) heartbeats_missed: Counter,
    /// Round trips of heartbeats, in seconds.
    pub(crate) heartbeat_seconds: Histogram,
    /// Probes through sessions that no answer came to.
    pub(crate) checks_failed: Counter,
    /// From the beginning of such a probe to its answer, in seconds.
    pub(crate) check_seconds: Histogram,
    /// Clusters in the store.
    pub(crate) clusters: Gauge,
    control: Family<Labels, Counter>,
    notified: Family<Labels, Counter>,
    reloads: Family<Labels, Counter>,
    expiry: Family<Labels, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry, memory: &MemoryBudget) -> Self {
        registry.configure(|inner| inner.register_collector(Box::new(Memory(memory.clone()))));
        Self {
            handshakes: registry.register("tunnel_handshakes", "Handshakes of agents in progress", Gauge::default()),
            admission_seconds: registry.register(
                "tunnel_admission_seconds",
                "Time from the arrival of an agent's connection to its welcome",
                Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            ),
            refused: registry.register(
                "tunnel_refused",
                "Connections of agents that were refused, by reason",
                Family::default(),
            ),
            joins: registry.register("joins", "Tries to join, by outcome", Family::default()),
            sessions: registry.register("tunnel_sessions", "Sessions that are up", Gauge::default()),
            welcomed: registry.register("tunnel_sessions_welcomed", "Sessions that began", Counter::default()),
            ended: registry.register("tunnel_sessions_ended", "Sessions that ended, by reason", Family::default()),
            heartbeats_missed: registry.register(
                "tunnel_heartbeats_missed",
                "Heartbeats that were still unanswered when the next was due",
                Counter::default(),
            ),
            heartbeat_seconds: registry.register(
                "tunnel_heartbeat_seconds",
                "Round trips of heartbeats",
                Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            ),
            checks_failed: registry.register(
                "tunnel_checks_failed",
                "Probes through sessions to which no answer came",
                Counter::default(),
            ),
            check_seconds: registry.register(
                "tunnel_check_seconds",
                "Time of a probe through a session to the kube-apiserver and back",
                Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            ),
            clusters: registry.register("clusters", "Clusters in the store", Gauge::default()),
            control: registry.register(
                "control_requests",
                "Requests to the management API, by outcome",
                Family::default(),
            ),
            notified: registry.register(
                "event_webhook_events",
                "Events of clusters for the webhook, by what became of them",
                Family::default(),
            ),
            reloads: registry.register("reloads", "Changed files that were read again, by outcome", Family::default()),
            expiry: registry.register(
                "certificate_expiry_timestamp_seconds",
                "When a certificate of this server ends, by which",
                Family::default(),
            ),
        }
    }

    /// A connection of an agent was refused.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create_owned(&[("reason", reason)]).inc();
    }

    /// Somebody tried to join.
    pub(crate) fn join(&self, outcome: &'static str) {
        self.joins.get_or_create_owned(&[("outcome", outcome)]).inc();
    }

    /// A session ended.
    pub(crate) fn end(&self, reason: &'static str) {
        self.ended.get_or_create_owned(&[("reason", reason)]).inc();
    }

    /// A request to the management API was answered.
    pub(crate) fn controlled(&self, outcome: &'static str) {
        self.control.get_or_create_owned(&[("outcome", outcome)]).inc();
    }

    /// So many events were told to the webhook, dropped, or missed.
    pub(crate) fn notified(&self, outcome: &'static str, events: u64) {
        self.notified.get_or_create_owned(&[("outcome", outcome)]).inc_by(events);
    }

    /// A file had changed.
    pub(crate) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create_owned(&[("outcome", outcome)]).inc();
    }

    /// A certificate of ours ends then.
    pub(crate) fn expires(&self, certificate: &'static str, not_after: moorline_model::Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        let seconds = not_after.unix_seconds() as f64;
        self.expiry.get_or_create_owned(&[("certificate", certificate)]).set(seconds);
    }
}

/// What the sessions hold in unread bytes, asked when somebody looks.
#[derive(Debug)]
struct Memory(MemoryBudget);

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let used = ConstGauge::new(i64::try_from(self.0.used()).unwrap_or(i64::MAX));
        let limit = ConstGauge::new(i64::try_from(self.0.limit()).unwrap_or(i64::MAX));
        let sheds = ConstCounter::new(self.0.sheds());
        used.encode(encoder.encode_descriptor(
            "tunnel_unread_bytes",
            "Bytes that arrived on streams and were not read",
            None,
            used.metric_type(),
        )?)?;
        limit.encode(encoder.encode_descriptor(
            "tunnel_unread_limit_bytes",
            "How many there may be",
            None,
            limit.metric_type(),
        )?)?;
        sheds.encode(encoder.encode_descriptor(
            "tunnel_streams_shed",
            "Streams reset because there were more",
            None,
            sheds.metric_type(),
        )?)
    }
}

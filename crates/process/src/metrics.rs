//! The metrics of this process: one registry, handed to every component, rendered as OpenMetrics text.
//!
//! Components register their metrics while they are built; the admin door renders them. Metrics with labels should
//! resolve their per-label handle once (`get_or_create` takes a lock), not for each event.

use std::sync::{Arc, Mutex, PoisonError};

pub use prometheus_client;
use prometheus_client::{
    encoding::text,
    metrics::info::Info,
    registry::{Metric, Registry as Inner},
};

/// Every metric name begins with this.
pub const PREFIX: &str = "moorline";

/// The content type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process. Cheap to clone; clones share the metrics.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

impl Registry {
    /// A registry that already tells what is running: `moorline_build_info{program, version} 1`.
    #[must_use]
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let mut inner = Inner::with_prefix(PREFIX);
        inner.register("build", "What is running", Info::new([("program", program), ("version", version)]));
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Adds a metric as `moorline_<name>` and gives back a handle to it.
    ///
    /// Counters get the suffix `_total` when rendered, so leave it out of `name`.
    #[must_use = "the handle is what feeds the metric"]
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        // prometheus-client ends the help text with a full stop of its own.
        self.locked().register(name, help.trim_end_matches('.'), metric.clone());
        metric
    }

    /// Lets a component register several metrics, or a collector, at once. Do not block in `with`.
    pub fn configure<R>(&self, with: impl FnOnce(&mut Inner) -> R) -> R {
        with(&mut self.locked())
    }

    /// All metrics as OpenMetrics text, see [`CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if text::encode(&mut text, &self.locked()).is_err() {
            // A metric that cannot be rendered must not take the whole page with it unseen.
            tracing::error!("a metric cannot be rendered; the metrics page is incomplete");
        }
        text
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn renders_open_metrics_with_prefix_and_build() {
        let registry = Registry::new("moorline-test", "1.2.3");
        let refused: Counter = registry.register("handshakes_refused", "Handshakes refused.", Counter::default());
        refused.inc_by(3);
        let text = registry.clone().render();
        assert!(text.contains("moorline_build_info{program=\"moorline-test\",version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.contains("# HELP moorline_handshakes_refused Handshakes refused.\n"), "{text}");
        assert!(text.contains("moorline_handshakes_refused_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}

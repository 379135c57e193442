//! The audit trail: who did what, on which cluster, as whom; one event for each request at least, whatever became of it.
//!
//! `front` opens a [`Trail`] for each request and tells it what it learns; a trail that ends hands its event to the
//! [`Queue`] of each sink without waiting. Everything that costs time (which rule applies, what is secret, JSON, the disk)
//! is done by one writer for each sink, which runs beside the data path.
//!
//! | file | what |
//! | --- | --- |
//! | `facts` | what is noted of a request, in a few allocations |
//! | `trail` | how it is noted, and when it is handed on |
//! | `entry` | the event that becomes of it |
//! | `queue` | the bounded way to a writer, and what happens when it is full |
//! | `writer` | batches, tries, and the last events at the end |
//! | `log`, `rotation` | a file, or standard output |
//! | `webhook` | an endpoint that events are posted to |
//! | `metrics` | counters |

mod entry;
mod facts;
mod log;
mod metrics;
mod queue;
mod rotation;
mod trail;
mod webhook;
mod writer;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use moorline_audit::Policy;
use moorline_process::{Phase, Phases, Registry, Tasks};

use crate::config::{AuditConfig, Problems};

pub(crate) use facts::{Head, Notes};
pub(crate) use log::LogConfig;
pub(crate) use queue::{Mode, QueueConfig, Unrecorded};
pub(crate) use rotation::Rotation;
pub(crate) use trail::{Bytes, End, Refusal, Trail};
pub(crate) use webhook::{WebhookConfig, WebhookSink};

use log::Log;
use metrics::{Metrics, SinkMetrics};
use queue::{Queue, Taker};

/// Where all trails lead. Shared by everybody.
#[derive(Debug)]
pub(crate) struct Audit {
    policy: ArcSwap<Policy>,
    queues: Vec<Queue>,
    /// The API group of our own objects.
    group: String,
    /// How far the process is on its way out, once there are writers.
    phases: OnceLock<Phases>,
}

/// The sinks before anybody writes to them.
pub(crate) struct Sinks {
    log: Option<(Taker, Log)>,
    webhook: Option<(Taker, WebhookSink)>,
}

impl Audit {
    /// The trail's end for a server, and its sinks; none where nothing is to be written. Blocks on the disk.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(crate) fn open(
        config: &AuditConfig,
        webhook: Option<WebhookSink>,
        policy: Policy,
        group: &str,
        registry: &Registry,
    ) -> Result<Option<(Arc<Self>, Sinks)>, Problems> {
        let mut audit = Self {
            policy: ArcSwap::from_pointee(policy),
            queues: Vec::new(),
            group: group.to_owned(),
            phases: OnceLock::new(),
        };
        let metrics = Metrics::new(registry);
        let log = match &config.log {
            Some(log) => Some((audit.queue(log.queue, metrics.of("log")), Log::open(log)?)),
            None => None,
        };
        let webhook = webhook.zip(config.webhook.as_ref());
        let webhook = webhook.map(|(sink, config)| (audit.queue(config.queue, metrics.of("webhook")), sink));
        if audit.queues.is_empty() {
            return Ok(None);
        }
        audit.warn_of_bodies();
        Ok(Some((Arc::new(audit), Sinks { log, webhook })))
    }

    fn queue(&mut self, config: QueueConfig, metrics: SinkMetrics) -> Taker {
        let (queue, taker) = queue::queue(config, metrics);
        self.queues.push(queue);
        taker
    }

    /// The policy where none is named.
    #[expect(clippy::expect_used, reason = "it is part of the program, and a test reads it")]
    pub(crate) fn default_policy() -> Policy {
        Policy::parse(Policy::DEFAULT).expect("the built-in policy can be read")
    }

    /// Puts another policy into force, for everything that is written from now on.
    pub(crate) fn replace(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.warn_of_bodies();
    }

    /// Whether the process cuts what still runs.
    fn cuts(&self) -> bool {
        self.phases.get().is_some_and(|phases| phases.current() >= Phase::Cancelled)
    }

    fn warn_of_bodies(&self) {
        if self.policy.load().asks_for_bodies() {
            tracing::warn!(
                "the audit policy asks for bodies, which pass through here unread: those rules write metadata"
            );
        }
    }
}

impl Sinks {
    /// Starts the writers. They end when the last request has, after the process was cancelled.
    pub(crate) fn start(self, audit: &Arc<Audit>, tasks: &Tasks, phases: &Phases) {
        audit.phases.get_or_init(|| phases.clone());
        if let Some((taker, log)) = self.log {
            tasks.spawn("audit-log", writer::run(Arc::clone(audit), taker, log.sink(tasks.clone()), phases.clone()));
        }
        if let Some((taker, webhook)) = self.webhook {
            tasks.spawn("audit-webhook", writer::run(Arc::clone(audit), taker, webhook, phases.clone()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

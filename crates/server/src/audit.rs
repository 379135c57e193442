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
//! | `metrics` | counters |

mod entry;
mod facts;
mod log;
mod metrics;
mod queue;
mod rotation;
mod trail;
mod writer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use moorline_audit::Policy;
use moorline_process::{Phases, Registry, Tasks};

use crate::config::{AuditConfig, Problems};

pub(crate) use facts::{Head, Notes};
pub(crate) use log::LogConfig;
pub(crate) use queue::{Mode, QueueConfig, Unrecorded};
pub(crate) use rotation::Rotation;
pub(crate) use trail::{Bytes, End, Refusal, Trail};

use log::Log;
use metrics::Metrics;
use queue::Queue;

/// Where all trails lead. Shared by everybody.
#[derive(Debug)]
pub(crate) struct Audit {
    policy: ArcSwap<Policy>,
    queues: Vec<Queue>,
    /// The API group of our own objects.
    group: String,
}

/// The sinks before anybody writes to them.
pub(crate) struct Sinks {
    log: Option<(queue::Taker, Log)>,
}

impl Audit {
    /// The trail's end for a server, and its sinks; none where nothing is to be written. Blocks on the disk.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(crate) fn open(
        config: &AuditConfig,
        policy: Policy,
        group: &str,
        registry: &Registry,
    ) -> Result<Option<(Arc<Self>, Sinks)>, Problems> {
        let Some(log) = &config.log else { return Ok(None) };
        let metrics = Metrics::new(registry);
        let (queue, taker) = queue::queue(log.queue, metrics.of("log"));
        let log = Log::open(log)?;
        let audit = Self { policy: ArcSwap::from_pointee(policy), queues: vec![queue], group: group.to_owned() };
        audit.warn_of_bodies();
        Ok(Some((Arc::new(audit), Sinks { log: Some((taker, log)) })))
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
        if let Some((taker, log)) = self.log {
            tasks.spawn("audit-log", writer::run(Arc::clone(audit), taker, log.sink(tasks.clone()), phases.clone()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

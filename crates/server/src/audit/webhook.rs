//! The sink that is a webhook: batches are posted as an `EventList` of `audit.k8s.io/v1`.

use std::{path::PathBuf, time::Duration};

use moorline_audit::EventList;
use moorline_kube::Webhook;

use super::{queue::QueueConfig, writer::Sink};
use crate::config::{Problem, Problems};

/// For one post, to its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a batch is posted before it is given up, and how much longer each pause is than the one before: as
/// kube-apiserver does.
const TRIES: u32 = 5;
const LONGER: f64 = 1.5;

/// Where events are posted, and how.
#[derive(Clone, Debug)]
pub(crate) struct WebhookConfig {
    /// The kubeconfig that names the endpoint.
    pub(crate) kubeconfig: PathBuf,
    /// After the first failure.
    pub(crate) backoff: Duration,
    /// The way there.
    pub(crate) queue: QueueConfig,
}

/// The webhook as a sink.
pub(crate) struct WebhookSink {
    webhook: Webhook,
    backoff: Duration,
}

impl WebhookSink {
    /// Opens the way to it. Nothing is dialled: a webhook that is down does not keep the server from starting.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub(crate) async fn open(config: &WebhookConfig) -> Result<Self, Problems> {
        let opened = Webhook::from_kubeconfig(&config.kubeconfig, TIMEOUT).await;
        let webhook = opened.map_err(|error| Problem {
            at: format!("--audit-webhook-config-file {}", config.kubeconfig.display()),
            what: error.to_string(),
            remedy: "name a kubeconfig whose current context is the webhook, over TLS".to_owned(),
        })?;
        Ok(Self { webhook, backoff: config.backoff })
    }
}

impl Sink for WebhookSink {
    fn tries(&self) -> Option<u32> {
        Some(TRIES)
    }

    fn pause(&self, tried: u32) -> Duration {
        let times = i32::try_from(tried.saturating_sub(1)).unwrap_or(i32::MAX);
        self.backoff.mul_f64(LONGER.powi(times.min(i32::try_from(TRIES).unwrap_or(0))))
    }

    async fn write(&mut self, lines: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        let posted = self.webhook.post(EventList::of_lines(&lines)).await;
        (lines, posted.map_err(|error| error.to_string()))
    }
}

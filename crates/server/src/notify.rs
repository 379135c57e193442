//! Tells a webhook what happens to clusters: each event as JSON, several together where several are there.
//!
//! Started by the composition root with a reader of the feed; touches nothing but its webhook. Nothing waits for it: what
//! it cannot pass on in time is counted and gone. That a cluster connected or disconnected is told when it has lasted for
//! a while (`settle`), so that an agent that restarts, or a link that comes and goes, is not told each time.

mod settle;

use std::{path::PathBuf, sync::Arc, time::Duration};

use moorline_api::{ClusterEvent, ClusterEventList, InvolvedObject};
use moorline_kube::Webhook;
use tokio::time::Instant;

use crate::{
    config::{Problem, Problems},
    events::{Event, Fed, Feed},
    state::State,
};
use settle::Settling;

/// For one post, to its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the same events are posted before they are given up: the pauses are 1, 2, 4 and 8 seconds.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Events in one post at most, and how long the first of them waits for others.
const BATCH: usize = 100;
const WAIT: Duration = Duration::from_millis(200);

/// Where events are posted, and what is told late.
#[derive(Clone, Debug)]
pub(crate) struct NotifyConfig {
    /// The kubeconfig that names the endpoint.
    pub(crate) kubeconfig: PathBuf,
    /// How long a cluster must have been connected, or not, before that is told.
    pub(crate) settle: Duration,
}

/// The webhook that is told.
pub(crate) struct Notifier {
    webhook: Webhook,
    settle: Duration,
}

impl Notifier {
    /// Opens the way to it. Nothing is dialled: a webhook that is down does not keep the server from starting.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub(crate) async fn open(config: &NotifyConfig) -> Result<Self, Problems> {
        let opened = Webhook::from_kubeconfig(&config.kubeconfig, TIMEOUT).await;
        let webhook = opened.map_err(|error| Problem {
            at: format!("--event-webhook-config-file {}", config.kubeconfig.display()),
            what: error.to_string(),
            remedy: "name a kubeconfig whose current context is the webhook, over TLS".to_owned(),
        })?;
        Ok(Self { webhook, settle: config.settle })
    }

    /// Passes on what the feed brings, until there is no more. To be spawned by the caller.
    pub(crate) async fn run(self, state: Arc<State>, mut feed: Feed) {
        let mut settling = Settling::new(self.settle);
        let mut batch: Vec<Arc<Event>> = Vec::new();
        let mut full_at = None;
        loop {
            let until = [settling.next_due(), full_at].into_iter().flatten().min();
            let fed = tokio::select! {
                fed = feed.next() => Some(fed),
                () = at(until) => None,
            };
            let now = Instant::now();
            match fed {
                Some(None) => return,
                Some(Some(Fed::Event(event))) => batch.extend(settling.take(event, now)),
                Some(Some(Fed::Missed(missed))) => {
                    state.metrics.notified("missed", missed);
                    tracing::warn!(
                        missed,
                        "events of clusters are not told: they come faster than the webhook takes them"
                    );
                }
                None => {}
            }
            batch.extend(settling.due(now));
            full_at = (!batch.is_empty()).then(|| full_at.unwrap_or(now + WAIT));
            if batch.len() >= BATCH || full_at.is_some_and(|at| now >= at) {
                // A fleet that settles at once is more than one post should hold.
                for events in std::mem::take(&mut batch).chunks(BATCH) {
                    self.post(&state, events).await;
                }
                full_at = None;
            }
        }
    }

    async fn post(&self, state: &State, events: &[Arc<Event>]) {
        let count = events.len() as u64;
        let list = ClusterEventList::new(events.iter().map(|event| shape(event)).collect());
        let Ok(json) = serde_json::to_vec(&list) else { return state.metrics.notified("dropped", count) };
        let mut pause = FIRST_PAUSE;
        for tried in 1..=TRIES {
            match self.webhook.post(json.clone()).await {
                Ok(()) => return state.metrics.notified("told", count),
                Err(error) if tried == TRIES => {
                    tracing::warn!(%error, count, "events of clusters are not told: the webhook did not take them");
                }
                Err(error) => {
                    tracing::debug!(%error, tried, "the webhook did not take events of clusters");
                    // So that the servers of a fleet do not come together.
                    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    pause *= 2;
                }
            }
        }
        state.metrics.notified("dropped", count);
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn shape(event: &Event) -> ClusterEvent {
    ClusterEvent {
        kind: event.happening.kind(),
        reason: event.happening.reason().to_owned(),
        message: event.message.clone(),
        involved_object: InvolvedObject::cluster(event.cluster.clone(), event.uid),
        count: 1,
        first_timestamp: event.at,
        last_timestamp: event.at,
    }
}

//! Passes on what happens to clusters as Kubernetes Events on their objects.
//!
//! Run by the composition root beside `follow`. It reads the feed of [`crate::events`], which waits for nobody: where a
//! kube-apiserver is slow or away, the oldest are lost, and how many is logged.

use std::{sync::Arc, time::Duration};

use moorline_api::EventType;
use moorline_kube::{ClusterObjects, Notice, ObjectError};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    events::{Event, Fed, Feed},
    state::State,
};

/// Between two events: twenty a second at most, whatever a thousand agents do at once.
const PACE: Duration = Duration::from_millis(50);

/// How long nothing is told after the kube-apiserver could not be asked.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells until no more will come.
pub(crate) async fn tell(state: Arc<State>, objects: ClusterObjects, mut feed: Feed) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    while let Some(fed) = feed.next().await {
        let event = match fed {
            Fed::Event(event) => event,
            Fed::Missed(missed) => {
                tracing::warn!(missed, "events were not told to the management cluster: it is slow or away");
                continue;
            }
        };
        let Some(uid) = state.clusters.object(&event.cluster) else { continue };
        pace.tick().await;
        match objects.tell(&event.cluster, &uid, &notice(&event)).await {
            Ok(()) | Err(ObjectError::Gone) => away = false,
            Err(error @ ObjectError::Refused(_)) => tracing::warn!(%error, "an event cannot be told"),
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "events cannot be told to the management cluster");
                }
                away = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn notice(event: &Event) -> Notice {
    Notice {
        warning: event.happening.kind() == EventType::Warning,
        reason: event.happening.reason().to_owned(),
        note: event.message.clone(),
    }
}

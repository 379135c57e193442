//! What happens to clusters: kept for a while with each cluster, and fed to whoever passes it on.
//!
//! Emitted where it is decided (`tunnel`, `clusters`, `enrolment`); read by the management API, and from the feed by the
//! webhook and by Kubernetes' own events. Nobody is waited for: who reads the feed too slowly misses the oldest, and the
//! same thing said again and again is told once a minute. Nothing in an event is secret, and what an agent said in it is
//! short and harmless to a terminal.

mod happening;
mod ring;

use std::sync::Arc;

use moorline_model::{ClusterName, ClusterUid, Timestamp};
use tokio::sync::broadcast;

pub(crate) use happening::Happening;
pub(crate) use ring::Ring;

use crate::{clock, registry::Cluster};

/// Events that may wait for the slowest reader of the feed. Some hundred bytes each.
const FEED: usize = 1024;

/// The feed of what happens to all clusters. Clones are the same feed.
#[derive(Clone)]
pub(crate) struct Events {
    feed: broadcast::Sender<Arc<Event>>,
}

/// Something that happened to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// To which.
    pub(crate) cluster: ClusterName,
    /// Tells it from an earlier one of the same name.
    pub(crate) uid: ClusterUid,
    /// When.
    pub(crate) at: Timestamp,
    /// What.
    pub(crate) happening: Happening,
    /// What, for people: one line, bounded, without control characters.
    pub(crate) message: String,
}

/// One reader of the feed.
pub(crate) struct Feed(broadcast::Receiver<Arc<Event>>);

/// What a reader of the feed gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// The next event.
    Event(Arc<Event>),
    /// This reader was too slow: so many are gone.
    Missed(u64),
}

impl Events {
    /// Something happened to a cluster. Never waits.
    pub(crate) fn emit(&self, cluster: &Cluster, happening: Happening) {
        let now = clock::now();
        let message = happening::bounded(&happening.to_string());
        let news = cluster.ring().keep(&happening, &message, now);
        if news && self.feed.receiver_count() > 0 {
            let event = Event { cluster: cluster.name().clone(), uid: cluster.uid(), at: now, happening, message };
            // An error means that the last reader left just now.
            self.feed.send(Arc::new(event)).unwrap_or_default();
        }
    }

    /// Everything from now on.
    pub(crate) fn feed(&self) -> Feed {
        Feed(self.feed.subscribe())
    }
}

impl Default for Events {
    /// A feed that nobody reads yet.
    fn default() -> Self {
        Self { feed: broadcast::Sender::new(FEED) }
    }
}

impl Feed {
    /// The next event; none when no more will come. May be dropped: nothing is lost by it.
    pub(crate) async fn next(&mut self) -> Option<Fed> {
        match self.0.recv().await {
            Ok(event) => Some(Fed::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Fed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::ClusterRecord;

    use super::*;

    fn east() -> Cluster {
        Cluster::new(ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([1; 16]), clock::now()))
    }

    #[tokio::test]
    async fn who_reads_too_slowly_misses_the_oldest_and_is_told() {
        let (events, cluster) = (Events::default(), east());
        events.emit(&cluster, Happening::Registered);
        let mut feed = events.feed();
        for number in 0..FEED + 3 {
            events.emit(&cluster, Happening::UpstreamFailing { why: number.to_string() });
        }
        assert_eq!(feed.next().await, Some(Fed::Missed(3)));
        let Some(Fed::Event(event)) = feed.next().await else { panic!("an event") };
        assert_eq!(event.message, "the agent cannot reach its kube-apiserver: 3");
        assert_eq!(cluster.ring().len(), ring::KEPT);
        drop(events);
        while feed.next().await.is_some() {}
    }

    #[tokio::test]
    async fn the_same_again_and_again_is_fed_once() {
        let (events, cluster) = (Events::default(), east());
        let mut feed = events.feed();
        for _ in 0..100 {
            events.emit(&cluster, Happening::UpstreamFailing { why: "refused".to_owned() });
        }
        drop(events);
        assert!(matches!(feed.next().await, Some(Fed::Event(_))));
        assert_eq!(feed.next().await, None);
    }
}

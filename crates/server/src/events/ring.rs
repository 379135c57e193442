//! The newest events of one cluster. What is said again in the same words is counted, not kept twice.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_api::{ClusterEvent, EventType, InvolvedObject};
use moorline_model::Timestamp;

use super::Happening;

/// Events kept for a cluster: some days of a healthy one, and a bound on what a restless one costs.
pub(super) const KEPT: usize = 64;

/// For so long the same words are no news.
const QUIET: Duration = Duration::from_secs(60);

/// The newest events of one cluster, in memory only: they go with the process, or with the cluster.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    kind: EventType,
    reason: &'static str,
    message: Box<str>,
    count: u32,
    first: Timestamp,
    last: Timestamp,
    told: Timestamp,
}

impl Ring {
    /// Takes an event in; says whether it is news, or just what was said a moment ago.
    pub(super) fn keep(&self, happening: &Happening, message: &str, now: Timestamp) -> bool {
        let reason = happening.reason();
        let mut kept = self.locked();
        let same = kept.iter().position(|old| old.reason == reason && *old.message == *message);
        let Some(mut again) = same.and_then(|index| kept.remove(index)) else {
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            let (kind, message) = (happening.kind(), message.into());
            kept.push_back(Kept { kind, reason, message, count: 1, first: now, last: now, told: now });
            return true;
        };
        let news = now.since(again.told) >= QUIET;
        again.count = again.count.saturating_add(1);
        again.last = now;
        if news {
            again.told = now;
        }
        kept.push_back(again);
        news
    }

    /// All that is kept, oldest first.
    pub(crate) fn list(&self, of: &InvolvedObject) -> Vec<ClusterEvent> {
        let kept = self.locked();
        let event = |kept: &Kept| ClusterEvent {
            kind: kept.kind,
            reason: kept.reason.to_owned(),
            message: kept.message.to_string(),
            involved_object: of.clone(),
            count: kept.count,
            first_timestamp: kept.first,
            last_timestamp: kept.last,
        };
        kept.iter().map(event).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::ClusterUid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn the_newest_are_kept_and_the_same_is_counted() {
        let ring = Ring::default();
        let failing = |why: &str| Happening::UpstreamFailing { why: why.to_owned() };
        let keep = |happening: &Happening, second| ring.keep(happening, &happening.to_string(), at(second));
        assert!(keep(&Happening::Registered, 0));
        assert!(keep(&failing("a"), 1));
        assert!(keep(&Happening::UpstreamWell, 2));
        assert!(!keep(&failing("a"), 3), "said two seconds ago");
        assert!(keep(&failing("a"), 62), "worth saying again");
        let list = ring.list(&InvolvedObject::cluster("east".parse().unwrap(), ClusterUid::from_bytes([1; 16])));
        let seen: Vec<_> = list.iter().map(|event| (event.reason.as_str(), event.count)).collect();
        assert_eq!(seen, [("Registered", 1), ("KubeAPIServerReachable", 1), ("KubeAPIServerUnreachable", 3)]);
        assert_eq!((list[2].first_timestamp, list[2].last_timestamp), (at(1), at(62)));
        for number in 0..1000 {
            assert!(keep(&failing(&number.to_string()), 100));
        }
        assert_eq!(ring.len(), KEPT);
    }
}

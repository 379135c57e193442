//! Which changes of a connection are worth telling. Pure: the caller brings the time.
//!
//! That the first session of a cluster began, or the last one ended, waits until it has lasted. If the opposite comes
//! meanwhile there is nothing to tell; if it goes on to and fro, how things stand is told all the same after a while, so
//! that a link that never settles does not look like one that never changed. Other events pass at once, those of further
//! sessions not at all.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moorline_model::ClusterUid;
use tokio::time::Instant;

use crate::events::{Event, Happening};

/// After so many times the settling time a restless connection is told as it stands.
const PATIENCE: u32 = 6;

/// Clusters that may wait at once. Beyond, they are told at once, as if there were no settling.
const MOST: usize = 20_000;

/// Changes that have not settled yet.
pub(super) struct Settling {
    settle: Duration,
    waiting: HashMap<ClusterUid, Waiting>,
}

struct Waiting {
    /// What was told, or how things stood when this server started.
    told: bool,
    event: Arc<Event>,
    due: Instant,
    latest: Instant,
    changes: u32,
}

impl Settling {
    pub(super) fn new(settle: Duration) -> Self {
        Self { settle, waiting: HashMap::new() }
    }

    /// Takes an event; gives back what is to be told at once.
    pub(super) fn take(&mut self, event: Arc<Event>, now: Instant) -> Option<Arc<Event>> {
        let connected = match &event.happening {
            Happening::Connected { sessions: 1, .. } => true,
            Happening::Disconnected { left: 0, .. } => false,
            Happening::Connected { .. } | Happening::Disconnected { .. } => return None,
            Happening::Deleted => {
                self.waiting.remove(&event.uid);
                return Some(event);
            }
            Happening::Registered
            | Happening::Enrolled { .. }
            | Happening::Refused { .. }
            | Happening::UpstreamFailing { .. }
            | Happening::UpstreamWell
            | Happening::NotCarrying { .. }
            | Happening::Carrying { .. }
            | Happening::Renewed { .. }
            | Happening::Migrated { .. }
            | Happening::AuthoritiesTaken
            | Happening::Revoked => return Some(event),
        };
        if self.settle.is_zero() || (self.waiting.len() >= MOST && !self.waiting.contains_key(&event.uid)) {
            return Some(event);
        }
        let uid = event.uid;
        let (due, latest) = (now + self.settle, now + self.settle * PATIENCE);
        let fresh = Waiting { told: !connected, event: Arc::clone(&event), due, latest, changes: 0 };
        let waiting = self.waiting.entry(uid).or_insert(fresh);
        waiting.event = event;
        waiting.due = due.min(waiting.latest);
        waiting.changes = waiting.changes.saturating_add(1);
        None
    }

    /// What has lasted long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<Event>> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due = self.waiting.extract_if(|_, waiting| waiting.due <= now);
        due.filter_map(|(_, waiting)| waiting.settled()).collect()
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }
}

impl Waiting {
    /// What is to be told, if anything: not that all is as it was, unless it could not settle.
    fn settled(self) -> Option<Arc<Event>> {
        let connected = matches!(self.event.happening, Happening::Connected { .. });
        let restless = self.due >= self.latest;
        if connected == self.told && !restless {
            return None;
        }
        if self.changes < 2 {
            return Some(self.event);
        }
        let mut event = Event::clone(&self.event);
        event.message.push_str(&format!("; it changed {} times meanwhile", self.changes));
        Some(Arc::new(event))
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::{SessionId, Timestamp};

    use super::*;

    const SETTLE: Duration = Duration::from_secs(10);

    fn event(connected: bool) -> Arc<Event> {
        let session = SessionId::from_bytes([1; 16]);
        let happening = if connected {
            let (remote, agent_version) = (([192, 0, 2, 1], 1).into(), "0".to_owned());
            Happening::Connected { session, remote, agent_version, sessions: 1 }
        } else {
            Happening::Disconnected { session, why: "x".to_owned(), lived: SETTLE, left: 0 }
        };
        Arc::new(Event {
            cluster: "east".parse().unwrap(),
            uid: ClusterUid::from_bytes([1; 16]),
            at: Timestamp::from_unix_seconds(0),
            message: happening.to_string(),
            happening,
        })
    }

    #[test]
    fn what_lasts_is_told_and_what_passes_is_not() {
        let start = Instant::now();
        let mut settling = Settling::new(SETTLE);
        assert_eq!(settling.take(event(false), start), None);
        assert!(settling.due(start + SETTLE / 2).is_empty());
        assert_eq!(settling.due(start + SETTLE), [event(false)]);
        assert_eq!(settling.next_due(), None, "nothing is held");
        // An agent that restarts.
        assert_eq!(settling.take(event(false), start), None);
        assert_eq!(settling.take(event(true), start + SETTLE / 2), None);
        assert!(settling.due(start + SETTLE * 2).is_empty());
        assert_eq!(settling.next_due(), None);
    }

    #[test]
    fn what_never_settles_is_told_now_and_then() {
        let start = Instant::now();
        let mut settling = Settling::new(SETTLE);
        let mut told = 0;
        for second in 0..600_u32 {
            let now = start + Duration::from_secs(u64::from(second));
            if second % 5 == 0 {
                assert_eq!(settling.take(event(second % 10 == 5), now), None);
            }
            for event in settling.due(now) {
                told += 1;
                assert!(event.message.ends_with(" times meanwhile"), "{}", event.message);
            }
        }
        assert!((8..=10).contains(&told), "{told} times in ten minutes");
    }

    #[test]
    fn other_events_pass_at_once_and_a_deleted_cluster_is_forgotten() {
        let now = Instant::now();
        let mut settling = Settling::new(SETTLE);
        assert_eq!(settling.take(event(false), now), None);
        let deleted = Arc::new(Event { happening: Happening::Deleted, ..Event::clone(&event(false)) });
        assert_eq!(settling.take(Arc::clone(&deleted), now), Some(deleted));
        assert_eq!(settling.next_due(), None);
        let mut at_once = Settling::new(Duration::ZERO);
        assert_eq!(at_once.take(event(true), now), Some(event(true)));
    }
}

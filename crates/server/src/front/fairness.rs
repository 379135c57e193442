//! What one user, and one cluster, may take up: so many requests at once, and so many a second.
//!
//! Called by `authz` before anything is asked about the user's rights, by `serve` for the management API, and by
//! `forward` when the cluster is known to be there. Touches nothing but its own counters.
//!
//! Of the room that a cluster has, a user may hold as much as all others leave free: one alone at most half, two a third
//! each. So whoever floods a cluster, or hangs there because it does not answer, leaves room for everybody else, and
//! nobody needs to say how many users there will be. (The dynamic threshold of Choudhury and Hahne, 1998, known from
//! the shared buffers of switches.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use moorline_model::ClusterName;

use crate::config::{GatewayConfig, Rate};

use super::{
    respond::Cause,
    slots::{SWEEP_MIN, Slot, Slots, SlotsByName},
};

/// The counters of everybody.
pub(super) struct Fairness {
    users: SlotsByName,
    clusters: SlotsByName,
    /// Of one user at one cluster.
    shares: SlotsByName,
    user_rates: Rates,
    cluster_rates: Rates,
}

/// The counters of one user at one cluster. A connection remembers those that it used last.
pub(super) struct Places {
    user: Name,
    cluster: Name,
    share: Arc<Slots>,
}

struct Name {
    name: Arc<str>,
    slots: Arc<Slots>,
}

/// What a running request takes up.
pub(super) struct Taken {
    _user: Slot,
    _cluster: Slot,
    _share: Slot,
}

impl Fairness {
    pub(super) fn new(limits: &GatewayConfig) -> Self {
        Self {
            users: SlotsByName::new(limits.max_requests_per_user),
            clusters: SlotsByName::new(limits.max_requests_per_cluster),
            shares: SlotsByName::new(limits.max_requests_per_cluster),
            user_rates: Rates::new(limits.user_rate),
            cluster_rates: Rates::new(limits.cluster_rate),
        }
    }

    /// The counters of this user at this cluster.
    pub(super) fn of(&self, user: &str, cluster: &ClusterName) -> Arc<Places> {
        // Neither name of the pair can be read as a part of the other: clusters' names have no slash.
        let share = self.shares.of(&format!("{cluster}/{user}"));
        let user = Name { name: user.into(), slots: self.users.of(user) };
        let cluster = Name { name: cluster.as_str().into(), slots: self.clusters.of(cluster.as_str()) };
        Arc::new(Places { user, cluster, share })
    }

    /// Lets a request of a user in.
    ///
    /// # Errors
    /// The user has too many, or sends too many a second.
    pub(super) fn admit(&self, places: &Places) -> Result<Slot, Cause> {
        let slot = places.user.slots.take().ok_or(Cause::UserBusy)?;
        self.user_rates.check(&places.user.name).map_err(Cause::UserRate)?;
        Ok(slot)
    }

    /// Lets a request to our own API in.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(super) fn admit_user(&self, user: &str) -> Result<Slot, Cause> {
        let slot = self.users.of(user).take().ok_or(Cause::UserBusy)?;
        self.user_rates.check(&user.into()).map_err(Cause::UserRate)?;
        Ok(slot)
    }

    /// Lets a request that was admitted go to its cluster.
    ///
    /// # Errors
    /// The cluster has too many, gets too many a second, or the user has more than their share of it.
    pub(super) fn enter(&self, user: Slot, places: &Places, cluster: &ClusterName) -> Result<Taken, Cause> {
        let at = || cluster.clone();
        let slot = places.cluster.slots.take().ok_or_else(|| Cause::ClusterBusy(at()))?;
        let free = places.cluster.slots.free();
        let share = places.share.take_of(free.saturating_add(1)).ok_or_else(|| Cause::UserShare(at()))?;
        self.cluster_rates.check(&places.cluster.name).map_err(|wait| Cause::ClusterRate { cluster: at(), wait })?;
        Ok(Taken { _user: user, _cluster: slot, _share: share })
    }
}

impl Places {
    /// Whether these are the counters of this user at this cluster.
    pub(super) fn are_of(&self, user: &str, cluster: &ClusterName) -> bool {
        *self.user.name == *user && *self.cluster.name == *cluster.as_str()
    }
}

type Limiter = RateLimiter<Arc<str>, HashMapStateStore<Arc<str>>, DefaultClock>;

/// Requests a second, by name.
struct Rates {
    /// None where there is no limit.
    limiter: Option<Limiter>,
    /// Names whose pause is over are forgotten when there are so many: what is kept is bounded by what came within the
    /// time that a burst lasts.
    sweep_at: AtomicUsize,
}

impl Rates {
    fn new(rate: Option<Rate>) -> Self {
        let limiter = rate.map(|rate| {
            let quota = Quota::per_second(rate.a_second).allow_burst(rate.burst);
            RateLimiter::hashmap_with_clock(quota, DefaultClock::default())
        });
        Self { limiter, sweep_at: AtomicUsize::new(SWEEP_MIN) }
    }

    /// Counts a request in, or says how long to wait.
    fn check(&self, name: &Arc<str>) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if limiter.len() >= self.sweep_at.load(Ordering::Relaxed) {
            limiter.retain_recent();
            self.sweep_at.store(limiter.len().saturating_mul(2).max(SWEEP_MIN), Ordering::Relaxed);
        }
        limiter.check_key(name).map_err(|until| until.wait_time_from(limiter.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn fairness(user_rate: Option<Rate>) -> Fairness {
        let limits = GatewayConfig {
            max_requests_per_user: 100,
            max_requests_per_cluster: 12,
            user_rate,
            ..crate::front::tests::gateway()
        };
        Fairness::new(&limits)
    }

    fn fill(fairness: &Fairness, user: &str, cluster: &ClusterName) -> Vec<Taken> {
        let places = fairness.of(user, cluster);
        std::iter::from_fn(|| fairness.enter(fairness.admit(&places).ok()?, &places, cluster).ok()).collect()
    }

    #[test]
    fn nobody_takes_a_cluster_from_the_others() {
        let fairness = fairness(None);
        let (east, west) = ("east".parse::<ClusterName>().unwrap(), "west".parse::<ClusterName>().unwrap());
        let ann = fill(&fairness, "ann", &east);
        assert_eq!(ann.len(), 6, "half for one alone");
        let bob = fill(&fairness, "bob", &east);
        assert_eq!(bob.len(), 3, "half of what is left for the next");
        assert_eq!(fill(&fairness, "cem", &east).len(), 2);
        assert_eq!(fill(&fairness, "ann", &west).len(), 6, "another cluster is another matter");
        drop(ann);
        assert_eq!(fill(&fairness, "dan", &east).len(), 5);
        assert!(fairness.admit_user("ann").is_ok());
    }

    #[test]
    fn a_cluster_with_room_for_one_serves_one() {
        let limits = GatewayConfig { max_requests_per_cluster: 1, ..crate::front::tests::gateway() };
        let (fairness, east) = (Fairness::new(&limits), "east".parse::<ClusterName>().unwrap());
        let ann = fill(&fairness, "ann", &east);
        assert_eq!(ann.len(), 1);
        let places = fairness.of("bob", &east);
        let refused = fairness.enter(fairness.admit(&places).unwrap(), &places, &east);
        assert!(matches!(refused, Err(Cause::ClusterBusy(_))));
    }

    #[test]
    fn a_user_sends_so_many_a_second() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let fairness = fairness(Some(Rate { a_second: number(1), burst: number(3) }));
        let east = "east".parse::<ClusterName>().unwrap();
        let ann = fairness.of("ann", &east);
        for _ in 0..3 {
            assert!(fairness.admit(&ann).is_ok());
        }
        assert!(matches!(fairness.admit(&ann), Err(Cause::UserRate(wait)) if wait <= Duration::from_secs(1)));
        assert!(matches!(fairness.admit_user("ann"), Err(Cause::UserRate(_))), "our own API counts too");
        assert!(fairness.admit(&fairness.of("bob", &east)).is_ok());
        assert!(fairness.users.of("ann").take().is_some(), "a refusal takes nothing");
    }

    #[test]
    fn names_leave_nothing_behind() {
        let number = |number| NonZeroU32::new(number).unwrap();
        // A pause of a nanosecond is over when the next request comes.
        let rates = Rates::new(Some(Rate { a_second: number(1_000_000_000), burst: number(1) }));
        for index in 0..10 * SWEEP_MIN {
            rates.check(&index.to_string().into()).unwrap();
        }
        assert!(rates.limiter.unwrap().len() <= 2 * SWEEP_MIN);
    }
}

//! How long to wait before the next dial. Called by the supervisor of each session; touches neither clock nor socket:
//! randomness and the age of the last session come in as arguments.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The bounds of the waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The longest wait after the first failure; it doubles with each further one.
    pub(crate) base: Duration,
    /// The longest wait of all.
    pub(crate) cap: Duration,
}

/// After a failure of the network: quick at first, since most outages are a restart of the server.
pub(crate) const NETWORK: Bounds = Bounds { base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// After a refusal that only a person can undo (revoked, unknown certificate, version): the server has better things
/// to do than to refuse again, but a repaired cluster should come back within minutes.
pub(crate) const REFUSAL: Bounds = Bounds { base: Duration::from_secs(10), cap: Duration::from_secs(300) };

/// A session that lived this long proves that dialling works: failures are counted anew after it. A shorter one does
/// not, or a server that accepts and then drops would be dialled in a tight loop.
pub(crate) const HEALTHY: Duration = Duration::from_secs(30);

/// Doublings beyond this change nothing: every cap is reached by then.
const MAX_DOUBLINGS: u32 = 20;

/// The failures since the last healthy session, and what they mean for the next dial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A session has ended after it served for `age`.
    pub(crate) fn session_lived(&mut self, age: Duration) {
        if age >= HEALTHY {
            self.failures = 0;
        }
    }

    /// The wait before the next dial: full jitter, that is anything between nothing and the bound, so that a thousand
    /// agents of a restarted server arrive spread out.
    pub(crate) fn next(&mut self, bounds: Bounds, random: &mut impl Rng) -> Duration {
        let longest = bounds.base.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS)).min(bounds.cap);
        self.failures = self.failures.saturating_add(1);
        random.random_range(Duration::ZERO..=longest)
    }

    /// The wait when the server said when to come back: not before, and up to half as long again, for the same reason.
    /// Never shorter than the wait after a failure would be, so that a server which keeps saying "at once" is not
    /// dialled in a tight loop; never longer than [`REFUSAL`]'s cap.
    pub(crate) fn asked(&mut self, asked: Duration, random: &mut impl Rng) -> Duration {
        let asked = asked.min(REFUSAL.cap);
        let jittered = asked + random.random_range(Duration::ZERO..=asked / 2);
        jittered.max(self.next(NETWORK, random))
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn longest_of(backoff: &Backoff, bounds: Bounds) -> Duration {
        let draws = (0..2000).map(|seed| backoff.clone().next(bounds, &mut StdRng::seed_from_u64(seed)));
        draws.max().unwrap()
    }

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new();
        let mut random = StdRng::seed_from_u64(7);
        for bound in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let bound = Duration::from_millis(bound);
            let longest = longest_of(&backoff, NETWORK);
            assert!(longest <= bound && longest > bound.mul_f64(0.99), "{longest:?} for {bound:?}");
            assert!(backoff.next(NETWORK, &mut random) <= bound);
        }
    }

    #[test]
    fn jitter_is_full() {
        let draws: Vec<_> =
            (0..1000).map(|seed| Backoff::new().next(NETWORK, &mut StdRng::seed_from_u64(seed))).collect();
        for tenth in 0..10 {
            let from = NETWORK.base.mul_f64(f64::from(tenth) / 10.0);
            let within = draws.iter().filter(|draw| **draw >= from && **draw < from + NETWORK.base / 10).count();
            assert!((50..200).contains(&within), "{within} of 1000 in tenth {tenth}");
        }
    }

    #[test]
    fn only_a_healthy_session_resets() {
        let mut backoff = Backoff::new();
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..10 {
            backoff.next(NETWORK, &mut random);
        }
        backoff.session_lived(HEALTHY - Duration::from_millis(1));
        assert!(longest_of(&backoff, NETWORK) > Duration::from_secs(29));
        backoff.session_lived(HEALTHY);
        assert!(longest_of(&backoff, NETWORK) <= NETWORK.base);
    }

    #[test]
    fn refusals_wait_longer_and_many_failures_do_not_overflow() {
        let mut backoff = Backoff::new();
        let mut random = StdRng::seed_from_u64(7);
        assert!(longest_of(&backoff, REFUSAL) > Duration::from_secs(9));
        for _ in 0..100 {
            assert!(backoff.next(REFUSAL, &mut random) <= REFUSAL.cap);
        }
    }

    #[test]
    fn the_servers_word_is_a_lower_bound() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let wait = Backoff::new().asked(Duration::from_secs(8), &mut random);
            assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&wait), "{wait:?}");
            assert!(Backoff::new().asked(Duration::MAX, &mut random) <= REFUSAL.cap * 3 / 2);
        }
        let mut tired = Backoff { failures: 10 };
        let waits: Vec<_> =
            (0..200).map(|seed| tired.asked(Duration::ZERO, &mut StdRng::seed_from_u64(seed))).collect();
        assert!(*waits.iter().max().unwrap() > Duration::from_secs(29), "\"at once\" does not undo the backoff");
    }
}

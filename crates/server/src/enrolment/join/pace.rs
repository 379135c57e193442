//! How many may try to join at once, and how often: in all, and from one address. Called by `join` for each connection.
//!
//! The figures are fixed: nobody enrols more clusters than these let in, and a flood costs little below them.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};
use tokio::time::Instant;

use crate::{
    guests::{Guest, Guests, source},
    tunnel::listener::Rate,
};

/// At once, in all and from one address.
const PLACES: usize = 32;
const PLACES_PER_ADDRESS: usize = 8;

/// Who has been here for less than this need not make room for others.
const GRACE: Duration = Duration::from_secs(3);

/// Connections a second, with a burst of two seconds' worth; more are hung up on before their handshake costs anything.
const A_SECOND: u32 = 50;

/// Requests a second from one address, and how many at once after a pause. More are told so.
const ADDRESS_A_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
const ADDRESS_BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Addresses from which on those that rested are forgotten. What is kept is bounded by who came within four seconds, at
/// [`A_SECOND`].
const SWEEP_MIN: usize = 256;

type Limiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

/// Counts those who join.
pub(crate) struct Pace {
    guests: Arc<Guests>,
    rate: Mutex<Rate>,
    addresses: Limiter,
    sweep_at: AtomicUsize,
}

/// Why somebody is hung up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HungUp {
    /// Too many a second, in all.
    Rate,
    /// Too many at once.
    Busy,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let quota = Quota::per_second(ADDRESS_A_SECOND).allow_burst(ADDRESS_BURST);
        Self {
            guests: Guests::new(PLACES, PLACES_PER_ADDRESS, GRACE),
            rate: Mutex::new(Rate::new(A_SECOND, Instant::now())),
            addresses: RateLimiter::hashmap_with_clock(quota, DefaultClock::default()),
            sweep_at: AtomicUsize::new(SWEEP_MIN),
        }
    }

    /// Gives a connection a place.
    ///
    /// # Errors
    /// [`HungUp`].
    pub(super) fn enter(&self, address: IpAddr) -> Result<Guest, HungUp> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        // The rate comes first: a place may be somebody else's, who has to go then.
        if !rate.take(Instant::now()) {
            return Err(HungUp::Rate);
        }
        self.guests.enter(address).map_err(|_no_room| {
            rate.give_back();
            HungUp::Busy
        })
    }

    /// Counts a request in.
    ///
    /// # Errors
    /// Too many came from this address: how long to wait.
    pub(super) fn ask(&self, address: IpAddr) -> Result<(), Duration> {
        if self.addresses.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.addresses.retain_recent();
            self.sweep_at.store(self.addresses.len().saturating_mul(2).max(SWEEP_MIN), Ordering::Relaxed);
        }
        let checked = self.addresses.check_key(&source(address));
        checked.map_err(|until| until.wait_time_from(self.addresses.clock().now()))
    }
}

impl HungUp {
    /// In metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Busy => "busy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[tokio::test]
    async fn one_address_is_slowed_and_others_are_not() {
        let pace = Pace::new();
        let let_in = (0..100).filter(|_| pace.ask(address(1)).is_ok()).count();
        assert!((20..=25).contains(&let_in), "{let_in}");
        assert!(pace.ask(address(1)).unwrap_err() <= Duration::from_secs(1));
        assert!(pace.ask(address(2)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_at_once_and_so_many_a_second() {
        let pace = Pace::new();
        let mut places: Vec<_> = (0..PLACES_PER_ADDRESS).map(|_| pace.enter(address(1)).unwrap()).collect();
        assert_eq!(pace.enter(address(1)).err(), Some(HungUp::Busy));
        places.extend((0..PLACES - PLACES_PER_ADDRESS).map(|number| pace.enter(address(10 + number as u8)).unwrap()));
        assert_eq!(pace.enter(address(2)).err(), Some(HungUp::Busy));
        places.clear();
        let burst = (0..1000).filter(|number| pace.enter(address((number % 200) as u8)).is_ok()).count();
        assert_eq!(burst, 2 * A_SECOND as usize - PLACES);
        assert_eq!(pace.enter(address(2)).err(), Some(HungUp::Rate));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.enter(address(2)).is_ok());
    }

    #[tokio::test]
    async fn addresses_that_rested_are_forgotten() {
        let pace = Pace::new();
        for number in 0..SWEEP_MIN as u32 * 20 {
            assert!(pace.ask(IpAddr::from((0x0a00_0000 + number).to_be_bytes())).is_ok());
        }
        assert!(pace.sweep_at.load(Ordering::Relaxed) >= SWEEP_MIN);
    }
}

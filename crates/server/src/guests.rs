//! Connections that nobody has vouched for yet: how many there may be, from one source and in all, and who has to go
//! when there is no room.
//!
//! Both doors count theirs here, from the accept to a user or an agent who is known. Whoever comes is let in at the cost
//! of the oldest of the source that has most: so neither few sources with many connections, nor many that say nothing,
//! keep those out who have something to say.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// The guests of one door.
pub(crate) struct Guests {
    most: usize,
    per_source: usize,
    patience: Duration,
    /// Both bounded by `most`.
    inner: Mutex<Inner>,
    room: Notify,
}

#[derive(Default)]
struct Inner {
    next: u64,
    present: BTreeMap<u64, Present>,
    by_source: HashMap<IpAddr, usize>,
}

struct Present {
    source: IpAddr,
    since: Instant,
    leave: CancellationToken,
}

/// One guest; dropped when it leaves, or is known.
pub(crate) struct Guest {
    guests: Arc<Guests>,
    id: u64,
    leave: CancellationToken,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Its source has as many guests as one may have.
    Source,
    /// There are as many as may be, and none that has been here for long.
    AtAll,
}

impl Guests {
    /// Room for `most`, and for `per_source` of one source. Who has been here for less than `patience` need not go.
    pub(crate) fn new(most: usize, per_source: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, per_source, patience, inner: Mutex::default(), room: Notify::new() })
    }

    /// Lets somebody in.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Guest, NoRoom> {
        let source = source(address);
        let mut inner = self.locked();
        if inner.by_source.get(&source).is_some_and(|count| *count >= self.per_source) {
            return Err(NoRoom::Source);
        }
        if inner.present.len() >= self.most {
            let loser = inner.loser(self.patience).ok_or(NoRoom::AtAll)?;
            if let Some(present) = inner.remove(loser) {
                present.leave.cancel();
            }
        }
        let id = inner.next;
        inner.next += 1;
        let leave = CancellationToken::new();
        *inner.by_source.entry(source).or_default() += 1;
        inner.present.insert(id, Present { source, since: Instant::now(), leave: leave.clone() });
        Ok(Guest { guests: Arc::clone(self), id, leave })
    }

    /// As [`Guests::enter`], and waits where there is no room at all.
    ///
    /// # Errors
    /// [`NoRoom::Source`].
    pub(crate) async fn wait(self: &Arc<Self>, address: IpAddr) -> Result<Guest, NoRoom> {
        loop {
            match self.enter(address) {
                // Looked at again after a while, since somebody may have been here for long by then.
                Err(NoRoom::AtAll) => drop(tokio::time::timeout(LOOK, self.room.notified()).await),
                entered => return entered,
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often somebody who waits looks whether anybody has been here for long.
const LOOK: Duration = Duration::from_millis(200);

impl Inner {
    /// The oldest of the source that has most, or of those that have equally many, if it has been here for long.
    fn loser(&self, patience: Duration) -> Option<u64> {
        let most = self.by_source.values().max()?;
        let crowded = |present: &Present| self.by_source.get(&present.source) == Some(most);
        let (id, present) = self.present.iter().find(|(_, present)| crowded(present))?;
        (present.since.elapsed() >= patience).then_some(*id)
    }

    fn remove(&mut self, id: u64) -> Option<Present> {
        let present = self.present.remove(&id)?;
        if let Some(count) = self.by_source.get_mut(&present.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&present.source);
            }
        }
        Some(present)
    }
}

impl Guest {
    /// Resolves when this guest has to make room.
    pub(crate) fn must_leave(&self) -> impl Future<Output = ()> + Send + use<> {
        self.leave.clone().cancelled_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.guests.locked().remove(self.id));
        self.guests.room.notify_one();
    }
}

/// What counts as one source: an IPv4 address, or the 64 bits of an IPv6 address that somebody was given, who has all
/// addresses behind them.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [one, two, three, four, ..] = address.segments();
            Ipv6Addr::new(one, two, three, four, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn left(guest: &Guest) -> bool {
        guest.must_leave().now_or_never().is_some()
    }

    #[test]
    fn all_addresses_of_a_customer_are_one_source() {
        assert_eq!(source(at("2001:db8:1:2::1")), source(at("2001:db8:1:2:ffff:1:2:3")));
        assert_ne!(source(at("2001:db8:1:2::1")), source(at("2001:db8:1:3::1")));
        assert_eq!(source(at("::ffff:192.0.2.1")), at("192.0.2.1"));
        assert_ne!(source(at("192.0.2.1")), source(at("192.0.2.2")));
        let guests = Guests::new(8, 2, Duration::ZERO);
        let (one, _two) = (guests.enter(at("2001:db8::1")).unwrap(), guests.enter(at("2001:db8::2")).unwrap());
        assert_eq!(guests.enter(at("2001:db8::3")).err(), Some(NoRoom::Source));
        assert!(guests.enter(at("2001:db8:0:1::3")).is_ok());
        drop(one);
        assert!(guests.enter(at("2001:db8::3")).is_ok());
    }

    #[tokio::test]
    async fn whoever_crowds_makes_room_for_whoever_comes() {
        let guests = Guests::new(4, 4, Duration::ZERO);
        let lone = guests.enter(at("192.0.2.9")).unwrap();
        let crowd: Vec<_> = (0..3).map(|_| guests.enter(at("192.0.2.1")).unwrap()).collect();
        let newcomer = guests.enter(at("192.0.2.2")).unwrap();
        assert_eq!(crowd.iter().map(left).collect::<Vec<_>>(), [true, false, false], "its oldest");
        assert!(!left(&lone) && !left(&newcomer), "although one was here before");
        drop((lone, crowd, newcomer));
        assert!(guests.locked().present.is_empty() && guests.locked().by_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_sent_away_who_has_just_come() {
        let patience = Duration::from_secs(3);
        let guests = Guests::new(1, 1, patience);
        let first = guests.enter(at("192.0.2.1")).unwrap();
        assert_eq!(guests.enter(at("192.0.2.2")).err(), Some(NoRoom::AtAll));
        let began = Instant::now();
        let second = guests.wait(at("192.0.2.2")).await.unwrap();
        assert!(left(&first) && began.elapsed() >= patience, "{:?}", began.elapsed());
        let (third, ()) = tokio::join!(guests.wait(at("192.0.2.3")), async { drop(second) });
        assert!(!left(&third.unwrap()));
    }
}

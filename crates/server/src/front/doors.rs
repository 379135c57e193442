//! Who may come in at the gateway: how many connections, in all and from one source.
//!
//! Called by `listener` for every connection before its handshake, and by `serve` with the first of its requests that
//! has a known user. A quarter of the places is for connections on which nobody is known yet; when it is full the
//! oldest of them makes room, so that no number of probes, strangers and silent peers keeps users out.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    metrics::Metrics,
    slots::{Slot, Slots, SlotsByName},
};
use crate::guests::{self, Guest, Guests};

/// One source may have one connection in so many: a whole office, or a load balancer, may be one address.
const SOURCE_SHARE: usize = 4;

/// One place in so many is for connections on which nobody is known yet. A user needs it for the handshake and the
/// head of a request, which are milliseconds.
const GUEST_SHARE: usize = 4;

/// Counts the connections.
pub(super) struct Doors {
    known: Arc<Slots>,
    sources: SlotsByName,
    guests: Arc<Guests>,
}

/// One connection's place, kept until it ends.
pub(super) struct Place {
    known: Arc<Slots>,
    standing: Mutex<Standing>,
    _source: Slot,
    metrics: Arc<Metrics>,
}

enum Standing {
    Guest(Guest),
    Known(#[expect(dead_code, reason = "held until the connection ends")] Slot),
}

impl Doors {
    /// Room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        let guests = most.div_ceil(GUEST_SHARE);
        let per_source = most.div_ceil(SOURCE_SHARE);
        Self {
            known: Slots::new(most.saturating_sub(guests).max(1)),
            sources: SlotsByName::new(per_source),
            guests: Guests::new(guests, per_source, Duration::ZERO),
        }
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// Why there is none, as a metric label.
    pub(super) fn enter(&self, address: IpAddr, metrics: &Arc<Metrics>) -> Result<Place, &'static str> {
        let source = self.sources.of(&guests::source(address).to_string()).take().ok_or("connections-of-source")?;
        let guest = self.guests.enter(address).map_err(|_full| "connections")?;
        metrics.connections.inc();
        Ok(Place {
            known: Arc::clone(&self.known),
            standing: Mutex::new(Standing::Guest(guest)),
            _source: source,
            metrics: Arc::clone(metrics),
        })
    }
}

impl Place {
    /// Somebody is known on this connection: it need not make room any more, unless as many as may be are known.
    pub(super) fn known(&self) {
        let mut standing = self.locked();
        if matches!(*standing, Standing::Guest(_))
            && let Some(slot) = self.known.take()
        {
            *standing = Standing::Known(slot);
        }
    }

    /// Resolves when the connection has to make room.
    pub(super) fn sent_away(&self) -> impl Future<Output = ()> + Send + use<> {
        let leave = match &*self.locked() {
            Standing::Guest(guest) => Some(guest.must_leave()),
            Standing::Known(_) => None,
        };
        async {
            match leave {
                Some(leave) => leave.await,
                None => std::future::pending().await,
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

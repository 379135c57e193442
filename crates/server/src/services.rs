//! The other way round: programs inside managed clusters reach services of the management cluster, and only those that
//! are configured for their cluster.
//!
//! The tunnel door gives the streams that agents open: Guardian's, which are what a program sent, name a service by the
//! server name of its TLS ([`serve_guardian`]); our own agent names it in a request ([`ask`]). From there on both are one.
//! A managed cluster and its programs are not trusted: they reach what the table says and learn of nothing else, and
//! whatever they do costs their own streams.
//!
//! | file | step | or else |
//! | --- | --- | --- |
//! | `table`, `catalog` | what there is, and for whom | the table before stays in use |
//! | `sni`, `named` | a stream names a service | an alert of TLS, or a `Status` |
//! | `origin` | it is for this cluster, and there is room | the same, for all that is not |
//! | `dial` | a connection to it | 502, 504 |
//! | `pass` | bytes both ways | a cut that shows |
//! | `proxy` | requests, with the cluster's name written on each | a `Status` |
//! | `visit` | what is noted of each from its beginning to its end | |

pub(crate) mod catalog;
mod dial;
mod metrics;
mod named;
pub(crate) mod origin;
mod pass;
mod proxy;
mod refused;
mod sni;
pub(crate) mod table;
mod visit;

use std::sync::Arc;

use arc_swap::ArcSwap;
use moorline_process::Registry;
use tokio::sync::Semaphore;

pub(crate) use named::{ask, is_asked};
pub(crate) use sni::serve_guardian;

use crate::{
    config::ServicesConfig,
    front::slots::{Slots, SlotsByName},
};
use catalog::Catalog;
use metrics::Metrics;

/// Names that are looked up at once, for all services. The threads for that are those on which everything else waits
/// for the disk.
const LOOKUPS: usize = 16;

/// Everything that services share.
pub(crate) struct Services {
    catalog: ArcSwap<Catalog>,
    config: ServicesConfig,
    /// Connections of all clusters to all services.
    all: Arc<Slots>,
    /// Connections to one service, of one cluster, and of one cluster to one service.
    each: SlotsByName,
    lookups: Arc<Semaphore>,
    metrics: Metrics,
}

impl Services {
    /// What there is at first, and its limits.
    pub(crate) fn new(config: ServicesConfig, catalog: Catalog, registry: &Registry) -> Self {
        Self {
            catalog: ArcSwap::from_pointee(catalog),
            all: Slots::new(config.max_connections),
            each: SlotsByName::new(usize::MAX),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            metrics: Metrics::new(registry),
            config,
        }
    }

    /// Offers these instead, from now on: to whom one is not offered any more, what runs is cut soon.
    pub(crate) fn offer(&self, catalog: Catalog) {
        tracing::info!(services = catalog.len(), "management services are offered");
        self.catalog.store(Arc::new(catalog));
    }

    /// Streams for services that an agent may open at once on one session: none where no table was named, since then
    /// nothing can ever be reached.
    pub(crate) fn inbound_streams(&self) -> usize {
        if self.config.file.is_some() { self.config.max_streams } else { 0 }
    }
}

#[cfg(test)]
pub(crate) mod tests;

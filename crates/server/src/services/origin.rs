//! Who asks for services: one session of one cluster, with what it may reach as things stand.
//!
//! Made once for each session, asked for every stream, and for every request where they can be told apart.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moorline_model::{Identity, SessionId};
use moorline_process::Phase;
use moorline_wire::services::ServiceName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{Services, catalog::Offered, refused::Refused};
use crate::{
    front::slots::Slot,
    registry::Cluster,
    state::State,
    tunnel::{listener::Rate, session::Session},
};

/// One cluster gets at most this share of what there is for all.
const CLUSTER_SHARE: usize = 2;

/// What the programs of a cluster are called in the audit trail, in front of its name.
const USER: &str = "system:moorline:cluster:";

/// One session, as far as services are concerned.
pub(crate) struct Origin {
    state: Arc<State>,
    cluster: Arc<Cluster>,
    session: SessionId,
    peer: IpAddr,
    user: Arc<Identity>,
    streams: Arc<Semaphore>,
    /// What begins leaves a trail, and a cluster that does nothing else must not push out everybody else's.
    rate: Mutex<Rate>,
}

/// Room for one connection to a service, until it is dropped.
pub(super) struct Room {
    _slots: [Slot; 4],
}

impl Origin {
    /// What this session's programs are.
    #[expect(clippy::expect_used, reason = "a constant and a cluster's name are far within the limits of an identity")]
    pub(crate) fn new(state: &Arc<State>, cluster: &Arc<Cluster>, session: &Session) -> Arc<Self> {
        let user = Identity::new(format!("{USER}{}", cluster.name())).expect("a user name");
        Arc::new(Self {
            state: Arc::clone(state),
            cluster: Arc::clone(cluster),
            session: session.id(),
            peer: session.about().remote.ip(),
            user: Arc::new(user),
            streams: Arc::new(Semaphore::new(state.services.config.max_streams)),
            rate: Mutex::new(Rate::new(state.services.config.rate, Instant::now())),
        })
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn services(&self) -> &Services {
        &self.state.services
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Who its programs are, all of them alike.
    pub(super) fn user(&self) -> &Arc<Identity> {
        &self.user
    }

    /// Room for one more stream on this session.
    ///
    /// # Errors
    /// There is none, or nothing new begins any more.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, Refused> {
        if self.state.phases.current() >= Phase::Draining {
            return Err(Refused::Draining);
        }
        self.pace()?;
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_full| Refused::Busy("streams on the session"))
    }

    /// Counts a stream or a request in.
    ///
    /// # Errors
    /// There are too many a second.
    pub(super) fn pace(&self) -> Result<(), Refused> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.take(Instant::now()) { Ok(()) } else { Err(Refused::Busy("streams and requests a second")) }
    }

    /// The service of this name, if it is for this cluster now.
    ///
    /// # Errors
    /// There is none, or it is for others.
    pub(super) fn by_name(&self, name: &ServiceName) -> Result<Arc<Offered>, Refused> {
        let catalog = self.services().catalog.load();
        let offered = catalog.by_name(name).ok_or_else(|| Refused::Unknown(name.as_str().to_owned()))?;
        self.allowed(offered)
    }

    /// The service that programs call so in TLS, if it is for this cluster now.
    ///
    /// # Errors
    /// There is none, or it is for others.
    pub(super) fn by_server_name(&self, name: &str) -> Result<Arc<Offered>, Refused> {
        let catalog = self.services().catalog.load();
        let offered = catalog.by_server_name(name).ok_or_else(|| Refused::Unknown(name.to_owned()))?;
        self.allowed(offered)
    }

    fn allowed(&self, offered: &Arc<Offered>) -> Result<Arc<Offered>, Refused> {
        if offered.service.audience.has(&self.cluster.record()) {
            Ok(Arc::clone(offered))
        } else {
            Err(Refused::Forbidden(offered.service.name.clone()))
        }
    }

    /// Resolves when a service is not for this cluster any more.
    pub(super) async fn withdrawn(self: Arc<Self>, name: ServiceName, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if self.by_name(&name).is_err() {
                return;
            }
        }
    }

    /// Room for one more connection to a service.
    ///
    /// # Errors
    /// There is none: in all, to this service, or for this cluster.
    pub(super) fn room(&self, offered: &Offered) -> Result<Room, Refused> {
        let (services, cluster, service) = (self.services(), self.cluster.name(), &offered.service.name);
        let (all, most) = (services.config.max_connections, offered.service.max_connections);
        let of = |name: String, most: usize| services.each.of(&name).take_of(most);
        let share = |most: usize| most.div_ceil(CLUSTER_SHARE);
        // No name has a slash.
        Ok(Room {
            _slots: [
                of(format!("/{cluster}"), share(all)).ok_or(Refused::Busy("connections of the cluster"))?,
                of(format!("{service}/{cluster}"), share(most))
                    .ok_or(Refused::Busy("connections of the cluster to the service"))?,
                of(format!("{service}/"), most).ok_or(Refused::Busy("connections to the service"))?,
                services.all.take().ok_or(Refused::Busy("connections to services"))?,
            ],
        })
    }
}

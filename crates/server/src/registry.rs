//! Which clusters there are and which sessions they have: the only way from a permit to a stream.
//!
//! `front` asks it for a route with each request, `tunnel` brings sessions in and out, `control` clusters. It touches
//! memory only: what must last is in the store, and comes here from there by `clusters`.

mod cluster;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use moorline_access::Permit;
use moorline_model::{ClusterName, ClusterRecord, Dialect, Fingerprint, SessionId, Timestamp};
use thiserror::Error;

pub(crate) use cluster::{AttachError, Attached, Cluster, Connection, Standing};

use crate::{
    events::{Events, Happening},
    front::line::Line,
    tunnel::session::{Outstanding, Session},
};

/// What a caller without a session is told to wait: an agent that lost its session is back within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// All clusters, each with its sessions. One entry for each record in the store.
#[derive(Default)]
pub(crate) struct Registry {
    /// Short critical sections: written when a cluster comes or goes, read once a request.
    index: RwLock<Index>,
    events: Events,
}

#[derive(Default)]
struct Index {
    by_name: HashMap<ClusterName, Arc<Cluster>>,
    by_fingerprint: HashMap<Fingerprint, Arc<Cluster>>,
    /// Those of them that Guardian shows: strangers ask whether there are any.
    guardians: HashSet<Fingerprint>,
}

/// A permit with a session to use it on. Only [`Registry::route`] makes one, and only this opens streams.
///
/// It counts as one outstanding request of its session for as long as it lives: keep it until the response has ended.
pub(crate) struct Routed {
    permit: Permit,
    session: Arc<Session>,
    _outstanding: Outstanding,
}

/// Why a permitted request cannot be sent.
#[derive(Debug, Error)]
pub(crate) enum RouteError {
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    UnknownCluster(ClusterName),
    /// The management cluster itself is not configured as a target.
    #[error("the management cluster is not configured as a target of this server")]
    ManagementNotConfigured,
    /// The cluster has no session that can take a request.
    #[error("cluster {cluster} is not connected: {reason}")]
    NotConnected {
        /// Which.
        cluster: ClusterName,
        /// Since when; none where it never was connected since this server started.
        since: Option<Timestamp>,
        /// Why, for people who may reach the cluster.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

impl Registry {
    /// A registry of the clusters in the store.
    pub(crate) fn new(records: Vec<ClusterRecord>) -> Self {
        let registry = Self::default();
        for record in records {
            registry.write().add(record);
        }
        registry
    }

    /// Exchanges a permit for a session of its cluster: of those that answer, the one with fewest outstanding
    /// requests, and of equals the newest.
    ///
    /// # Errors
    /// [`RouteError`].
    pub(crate) fn route(&self, permit: Permit) -> Result<Routed, RouteError> {
        let Some(cluster) = self.by_name(permit.cluster()) else {
            return Err(if permit.cluster().is_reserved() {
                RouteError::ManagementNotConfigured
            } else {
                RouteError::UnknownCluster(permit.cluster().clone())
            });
        };
        match cluster.pick() {
            Some((session, outstanding)) => Ok(Routed { permit, session, _outstanding: outstanding }),
            None => {
                let (since, reason) = cluster.why_not_connected();
                Err(RouteError::NotConnected {
                    cluster: permit.cluster().clone(),
                    since,
                    reason,
                    retry_after: RETRY_AFTER,
                })
            }
        }
    }

    /// Takes a session into the cluster that its certificate stands for now. Looked up anew, and with the clusters held
    /// as they are until it is in: a certificate that lost its cluster since the handshake gets no session, and one that
    /// loses it later finds the session there to be cut.
    ///
    /// # Errors
    /// [`AttachError`].
    pub(crate) fn attach(
        &self,
        fingerprint: &Fingerprint,
        session: &Arc<Session>,
        most: usize,
        overdue: Duration,
    ) -> Result<(Arc<Cluster>, Attached), AttachError> {
        let index = self.read();
        // A certificate opens the door of its own dialect and no other.
        let owner = index.by_fingerprint.get(fingerprint).filter(|owner| {
            *owner.name() == session.about().cluster
                && owner.record().dialect_of(fingerprint) == Some(session.dialect())
        });
        let cluster = owner.ok_or(AttachError::Disowned)?;
        let attached = cluster.attach(session, most, overdue)?;
        Ok((Arc::clone(cluster), attached))
    }

    /// Takes a cluster in. One of the same name is replaced, which the store rules out.
    pub(crate) fn insert(&self, record: ClusterRecord) {
        let cluster = self.write().add(record);
        self.events.emit(&cluster, Happening::Registered);
    }

    /// Takes a cluster in that was registered before this server began to look: that is no news.
    pub(crate) fn restore(&self, record: ClusterRecord) {
        self.write().add(record);
    }

    /// The store says something new of a cluster. Its sessions go on, save those whose certificate no longer stands for
    /// it. One that is not here any more stays away.
    pub(crate) fn update(&self, record: &ClusterRecord) {
        let mut index = self.write();
        let known = index.by_name.get(&record.name).filter(|cluster| cluster.record().uid == record.uid);
        let Some(cluster) = known.cloned() else { return };
        index.forget(&cluster);
        let before = cluster.record();
        cluster.renew(record.clone());
        index.take(&cluster);
        drop(index);
        // Whoever attaches from here on is held against the new record.
        cluster.cut_disowned(record);
        if before.revoked.is_none() && record.revoked.is_some() {
            self.events.emit(&cluster, Happening::Revoked);
        }
    }

    /// Takes a cluster out. The caller cuts its sessions.
    pub(crate) fn remove(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        let mut index = self.write();
        let cluster = index.by_name.remove(name)?;
        index.forget(&cluster);
        drop(index);
        self.events.emit(&cluster, Happening::Deleted);
        Some(cluster)
    }

    /// What happens to the clusters.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// The cluster of this name.
    pub(crate) fn by_name(&self, name: &ClusterName) -> Option<Arc<Cluster>> {
        self.read().by_name.get(name).cloned()
    }

    /// The cluster that this certificate stands for at the door of this dialect.
    pub(crate) fn by_certificate(&self, fingerprint: &Fingerprint, dialect: Dialect) -> Option<Arc<Cluster>> {
        self.by_fingerprint(fingerprint).filter(|cluster| cluster.record().dialect_of(fingerprint) == Some(dialect))
    }

    /// Whether any certificate is registered for Guardian's door.
    pub(crate) fn knows_guardians(&self) -> bool {
        !self.read().guardians.is_empty()
    }

    /// The cluster that this certificate stands for, in whatever dialect.
    pub(crate) fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<Arc<Cluster>> {
        self.read().by_fingerprint.get(fingerprint).cloned()
    }

    /// All clusters, in no order.
    pub(crate) fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.read().by_name.values().cloned().collect()
    }

    /// All sessions, in no order.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.clusters().iter().flat_map(|cluster| cluster.sessions().to_vec()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn add(&mut self, record: ClusterRecord) -> Arc<Cluster> {
        let cluster = Arc::new(Cluster::new(record));
        self.take(&cluster);
        self.by_name.insert(cluster.name().clone(), Arc::clone(&cluster));
        cluster
    }

    fn take(&mut self, cluster: &Arc<Cluster>) {
        for active in &cluster.record().fingerprints {
            self.by_fingerprint.insert(active.fingerprint, Arc::clone(cluster));
            if active.dialect == Dialect::Guardian {
                self.guardians.insert(active.fingerprint);
            }
        }
    }

    /// Takes a cluster's certificates out.
    fn forget(&mut self, cluster: &Arc<Cluster>) {
        let Self { by_fingerprint, guardians, .. } = self;
        by_fingerprint.retain(|_, owner| !Arc::ptr_eq(owner, cluster));
        guardians.retain(|fingerprint| by_fingerprint.contains_key(fingerprint));
    }
}

impl Routed {
    /// Who may send what where.
    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The session, for logs.
    pub(crate) fn session_id(&self) -> SessionId {
        self.session.id()
    }

    /// What carries the session's requests: there is no other way to its streams.
    pub(crate) fn line(&self) -> &Line {
        self.session.line(self)
    }
}

#[cfg(test)]
mod tests;

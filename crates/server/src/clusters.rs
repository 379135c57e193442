//! Every change to the set of clusters: in the store first, then in the registry.
//!
//! Called by `control`, by enrolment and by the tunnel door. What comes back from here lasts: it is on the disk. Changes
//! happen one at a time, and each runs to its end also when its caller hangs up, so that no record is in the store that
//! the registry does not know.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_model::{ClusterName, ClusterRecord, Fingerprint};
use moorline_process::{Tasks, metrics::prometheus_client::metrics::gauge::Gauge};
use moorline_store::{CreateError, Embedded, StoreError, UpdateError};

use thiserror::Error;

use crate::registry::Registry;

/// The clusters of this server, to be changed.
pub(crate) struct Clusters {
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    store: Embedded,
    registry: Arc<Registry>,
    count: Gauge,
    /// Held while the set of clusters changes, in the store and in the registry together; on a thread for blocking work.
    changes: Mutex<()>,
}

/// Why a cluster was not changed. Nothing was written.
#[derive(Debug, Error)]
pub(crate) enum ChangeError<E = Infallible> {
    /// Whoever was to change the record did not.
    #[error("the change was refused")]
    Refused(E),
    /// The name is in use.
    #[error("the cluster {0} exists already")]
    Exists(ClusterName),
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    NotFound(ClusterName),
    /// A certificate stands for another cluster.
    #[error("the certificate {fingerprint} belongs to the cluster {owner} already")]
    FingerprintTaken {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// Whose it is.
        owner: ClusterName,
    },
    /// The store failed, or something here is broken.
    #[error("{0}")]
    Failed(String),
}

impl Clusters {
    pub(crate) fn new(store: Embedded, registry: Arc<Registry>, count: Gauge, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Shared { store, registry, count, changes: Mutex::default() }), tasks }
    }

    /// Registers a cluster.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn create(&self, record: ClusterRecord) -> Result<(), ChangeError> {
        self.blocking("create-cluster", move |shared| {
            shared.store.create(&record)?;
            shared.registry.insert(record);
            shared.count.inc();
            Ok(())
        })
        .await
    }

    /// Changes a cluster; gives back its record as it is now, with what `change` answered. Its sessions go on, save those
    /// whose certificate no longer stands for it: they are cut with all that runs on them.
    ///
    /// `change` may be asked again, with a record that somebody else changed meanwhile.
    ///
    /// # Errors
    /// [`ChangeError`]; whatever `change` refused with is [`ChangeError::Refused`].
    pub(crate) async fn update<T, E>(
        &self,
        name: &ClusterName,
        change: impl FnMut(&mut ClusterRecord) -> Result<T, E> + Send + 'static,
    ) -> Result<(ClusterRecord, T), ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let name = name.clone();
        self.blocking("update-cluster", move |shared| {
            let (record, answer) = shared.store.update(&name, change)?;
            shared.registry.update(&record);
            Ok((record, answer))
        })
        .await
    }

    /// Deletes a cluster and gives back its last record: its certificates are worth nothing any more, and its sessions
    /// are cut with all that runs on them.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn delete(&self, name: &ClusterName) -> Result<ClusterRecord, ChangeError> {
        let name = name.clone();
        self.blocking("delete-cluster", move |shared| {
            let deleted = shared.store.delete(&name)?;
            if let Some(cluster) = shared.registry.remove(&name) {
                cluster.retire();
            }
            let record = deleted.ok_or(ChangeError::NotFound(name))?;
            shared.count.dec();
            Ok(record)
        })
        .await
    }

    async fn blocking<T, E>(
        &self,
        task: &'static str,
        work: impl FnOnce(&Shared) -> Result<T, ChangeError<E>> + Send + 'static,
    ) -> Result<T, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let done = self.tasks.spawn_blocking(task, move || {
            let _one_at_a_time = shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
            work(&shared)
        });
        done.await.map_err(|panicked| ChangeError::Failed(panicked.to_string()))?
    }
}

impl<E> From<StoreError> for ChangeError<E> {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl<E> From<CreateError> for ChangeError<E> {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists(name) => Self::Exists(name),
            CreateError::FingerprintTaken { fingerprint, owner } => Self::FingerprintTaken { fingerprint, owner },
            failed => Self::Failed(failed.to_string()),
        }
    }
}

impl<E> From<UpdateError<E>> for ChangeError<E>
where
    UpdateError<E>: fmt::Display,
{
    fn from(error: UpdateError<E>) -> Self {
        match error {
            UpdateError::Refused(why) => Self::Refused(why),
            UpdateError::NotFound(name) => Self::NotFound(name),
            UpdateError::FingerprintTaken { fingerprint, owner } => Self::FingerprintTaken { fingerprint, owner },
            failed => Self::Failed(failed.to_string()),
        }
    }
}

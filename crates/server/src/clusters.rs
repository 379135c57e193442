//! Every change to the set of clusters: in the store first, then in the registry.
//!
//! Called by `control`, by enrolment and by the tunnel door. What comes back from here lasts: the store has it. Changes
//! happen one at a time, and each runs to its end also when its caller hangs up, so that no record is in the store that
//! the registry does not know.

pub(crate) mod brought;
pub(crate) mod follow;
mod known;
pub(crate) mod notices;
pub(crate) mod observe;
pub(crate) mod store;
pub mod transfer;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_model::{ClusterName, ClusterRecord, Fingerprint};
use moorline_process::{Tasks, metrics::prometheus_client::metrics::gauge::Gauge};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::registry::Registry;
use known::Known;
use store::{Kept, Store, StoreFailure};

/// How often a change is begun anew because somebody else was quicker. Only people and their programs change the same
/// objects, so even a second time is rare.
const MAX_TRIES: usize = 8;

/// Changes that are under way or wait for their turn; one more is told to come back. With a store that takes 20 ms for
/// each, the last waits for ten seconds.
const MAX_WAITING: usize = 512;

/// The clusters of this server, to be changed.
pub(crate) struct Clusters {
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    store: Box<dyn Store>,
    registry: Arc<Registry>,
    count: Gauge,
    /// Held while the set of clusters changes, in the store and in the registry together.
    changes: Semaphore,
    /// For changes that are under way or wait for their turn.
    places: Arc<Semaphore>,
    /// Which objects of a Kubernetes store were seen. Short critical sections.
    known: Mutex<Known>,
    /// What of a cluster's object counts for nothing, for people. Short critical sections.
    problems: Mutex<HashMap<ClusterName, Vec<String>>>,
}

/// Why a cluster was not changed. Nothing was written, unless it was [`ChangeError::Unavailable`], which cannot tell.
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
    /// The store cannot be asked now: the caller may try again.
    #[error("{0}")]
    Unavailable(String),
    /// The store failed, or something here is broken.
    #[error("{0}")]
    Failed(String),
}

impl<E> ChangeError<E> {
    /// The refusal, or else the error, which is then none.
    pub(crate) fn refusal(self) -> Result<E, ChangeError> {
        match self {
            Self::Refused(refusal) => Ok(refusal),
            Self::Exists(name) => Err(ChangeError::Exists(name)),
            Self::NotFound(name) => Err(ChangeError::NotFound(name)),
            Self::FingerprintTaken { fingerprint, owner } => Err(ChangeError::FingerprintTaken { fingerprint, owner }),
            Self::Unavailable(why) => Err(ChangeError::Unavailable(why)),
            Self::Failed(why) => Err(ChangeError::Failed(why)),
        }
    }
}

impl Clusters {
    /// Changes `registry` with `store`; `count` follows how many there are.
    pub(crate) fn new(store: Box<dyn Store>, registry: Arc<Registry>, count: Gauge, tasks: Tasks) -> Self {
        let shared = Shared {
            store,
            registry,
            count,
            changes: Semaphore::new(1),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            known: Mutex::default(),
            problems: Mutex::default(),
        };
        Self { shared: Arc::new(shared), tasks }
    }

    /// Registers a cluster.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn create(&self, record: ClusterRecord) -> Result<(), ChangeError> {
        self.in_turn("create-cluster", async move |shared| {
            shared.unclaimed(&record)?;
            let kept = shared.store.create(record).await?;
            shared.known().wrote(&kept.record.name, kept.version);
            // Where others may make clusters, one of the name may have come and gone unseen.
            if shared.registry.remove(&kept.record.name).inspect(|cluster| cluster.retire()).is_none() {
                shared.count.inc();
            }
            shared.registry.insert(brought::effective(&kept.record));
            Ok(())
        })
        .await
    }

    /// Changes a cluster; gives back its record as it is now, with what `change` answered. Its sessions go on, save those
    /// whose certificate no longer stands for it: they are cut with all that runs on them.
    ///
    /// `change` may be asked again, with a record that somebody else changed meanwhile. The name, the uid and the time of
    /// creation never change.
    ///
    /// # Errors
    /// [`ChangeError`]; whatever `change` refused with is [`ChangeError::Refused`].
    pub(crate) async fn update<T, E>(
        &self,
        name: &ClusterName,
        mut change: impl FnMut(&mut ClusterRecord) -> Result<T, E> + Send + 'static,
    ) -> Result<(ClusterRecord, T), ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let name = name.clone();
        self.in_turn("update-cluster", async move |shared| {
            for _ in 0..MAX_TRIES {
                let Some(before) = shared.store.get(&name).await? else { return Err(ChangeError::NotFound(name)) };
                let mut record = before.record.clone();
                let answer = change(&mut record).map_err(ChangeError::Refused)?;
                if record == before.record {
                    return Ok((record, answer));
                }
                if before.record.revoked.is_none() && record.revoked.is_some() {
                    brought::retire(&mut record);
                }
                same_cluster(&before, &record)?;
                shared.unclaimed(&record)?;
                match shared.store.replace(before, record).await {
                    Ok(kept) => {
                        shared.known().wrote(&name, kept.version);
                        shared.registry.update(&brought::effective(&kept.record));
                        return Ok((kept.record, answer));
                    }
                    Err(StoreFailure::Conflict(_)) => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
            Err(ChangeError::Unavailable(format!("the cluster {name} is being changed by somebody else all the time")))
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
        self.in_turn("delete-cluster", async move |shared| {
            let deleted = shared.store.delete(&name).await?;
            match &deleted {
                Some(kept) => shared.known().deleted(&name, &kept.version),
                None => shared.known().deleted_already(&name),
            }
            if let Some(cluster) = shared.registry.remove(&name) {
                cluster.retire();
                shared.count.dec();
            }
            deleted.map(|kept| kept.record).ok_or(ChangeError::NotFound(name))
        })
        .await
    }

    /// The clusters that are objects of a Kubernetes store, with the objects' own uids.
    pub(crate) fn objects(&self) -> Vec<(ClusterName, String)> {
        self.shared.known().uids()
    }

    /// The uid of the object of a cluster, where there is one.
    pub(crate) fn object(&self, name: &ClusterName) -> Option<String> {
        self.shared.known().uid(name)
    }

    /// What of a cluster's object counts for nothing, for people.
    pub(crate) fn problems(&self, name: &ClusterName) -> Vec<String> {
        let all = self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned().unwrap_or_default()
    }

    async fn in_turn<T, E, F>(
        &self,
        task: &'static str,
        work: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<T, ChangeError<E>>
    where
        F: Future<Output = Result<T, ChangeError<E>>> + Send,
        T: Send + 'static,
        E: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            return Err(ChangeError::Unavailable(format!("{MAX_WAITING} changes of clusters are under way already")));
        };
        let done = self.tasks.spawn(task, async move {
            let _place = place;
            let _one_at_a_time = shared.turn().await;
            work(Arc::clone(&shared)).await
        });
        done.await.map_err(|panicked| ChangeError::Failed(panicked.to_string()))?
    }
}

impl Shared {
    /// Whether no certificate of a record stands for another cluster.
    fn unclaimed<E>(&self, record: &ClusterRecord) -> Result<(), ChangeError<E>> {
        for active in &brought::effective(record).fingerprints {
            let owner = self.registry.by_fingerprint(&active.fingerprint);
            if let Some(owner) = owner.filter(|owner| *owner.name() != record.name) {
                let (fingerprint, owner) = (active.fingerprint, owner.name().clone());
                return Err(ChangeError::FingerprintTaken { fingerprint, owner });
            }
        }
        Ok(())
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Closed by nobody: it lives as long as we do.
        self.changes.acquire().await.ok()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problems_of(&self, name: &ClusterName, problems: Vec<String>) {
        let mut all = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.is_empty() {
            all.remove(name);
        } else {
            all.insert(name.clone(), problems);
        }
    }
}

fn same_cluster<E>(before: &Kept, after: &ClusterRecord) -> Result<(), ChangeError<E>> {
    let kept = &before.record;
    if (&kept.name, &kept.uid, &kept.created) == (&after.name, &after.uid, &after.created) {
        return Ok(());
    }
    let name = &kept.name;
    Err(ChangeError::Failed(format!("the name, the uid and the creation time of the cluster {name} never change")))
}

impl<E> From<StoreFailure> for ChangeError<E> {
    fn from(failure: StoreFailure) -> Self {
        match failure {
            StoreFailure::Exists(name) => Self::Exists(name),
            StoreFailure::Gone(name) => Self::NotFound(name),
            StoreFailure::FingerprintTaken { fingerprint, owner } => Self::FingerprintTaken { fingerprint, owner },
            conflict @ StoreFailure::Conflict(_) => Self::Unavailable(conflict.to_string()),
            StoreFailure::Unavailable(why) => Self::Unavailable(why),
            StoreFailure::Failed(why) => Self::Failed(why),
        }
    }
}

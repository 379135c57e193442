//! The embedded store: one file of this server alone, whose every call blocks.

use moorline_model::{ClusterName, ClusterRecord};
use moorline_process::Tasks;
use moorline_store::{CreateError, Embedded, StoreError, UpdateError};

use super::{Kept, Pending, Store, StoreFailure, Version};

/// The embedded store, on threads for blocking work.
pub(crate) struct OnThreads {
    store: Embedded,
    tasks: Tasks,
}

impl OnThreads {
    pub(crate) fn new(store: Embedded, tasks: Tasks) -> Self {
        Self { store, tasks }
    }

    fn ask<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl FnOnce(&Embedded) -> Result<T, StoreFailure> + Send + 'static,
    ) -> Pending<'_, T> {
        let store = self.store.clone();
        let done = self.tasks.spawn_blocking(task, move || work(&store));
        Box::pin(async move { done.await.map_err(|panicked| StoreFailure::Failed(panicked.to_string()))? })
    }
}

impl Store for OnThreads {
    fn create(&self, record: ClusterRecord) -> Pending<'_, Kept> {
        self.ask("store-create", move |store| {
            store.create(&record)?;
            Ok(kept(record))
        })
    }

    fn get<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>> {
        let name = name.clone();
        self.ask("store-get", move |store| Ok(store.get(&name)?.map(kept)))
    }

    fn list(&self) -> Pending<'_, Vec<Kept>> {
        self.ask("store-list", |store| Ok(store.list()?.into_iter().map(kept).collect()))
    }

    fn replace(&self, before: Kept, after: ClusterRecord) -> Pending<'_, Kept> {
        let name = after.name.clone();
        self.ask("store-replace", move |store| {
            let replaced = store.update(&name, |record| {
                if *record != before.record {
                    return Err(StoreFailure::Conflict(record.name.clone()));
                }
                *record = after;
                Ok(())
            });
            Ok(kept(replaced.map_err(refused)?.0))
        })
    }

    fn delete<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>> {
        let name = name.clone();
        self.ask("store-delete", move |store| Ok(store.delete(&name)?.map(kept)))
    }
}

/// Nobody else has the file, so that its records need no versions.
fn kept(record: ClusterRecord) -> Kept {
    Kept { record, version: Version::default() }
}

fn refused(error: UpdateError<StoreFailure>) -> StoreFailure {
    match error {
        UpdateError::Refused(why) => why,
        UpdateError::NotFound(name) => StoreFailure::Gone(name),
        UpdateError::FingerprintTaken { fingerprint, owner } => StoreFailure::FingerprintTaken { fingerprint, owner },
        failed @ (UpdateError::Immutable { .. } | UpdateError::Store(_) | _) => {
            StoreFailure::Failed(failed.to_string())
        }
    }
}

impl From<StoreError> for StoreFailure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<CreateError> for StoreFailure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists(name) => Self::Exists(name),
            CreateError::FingerprintTaken { fingerprint, owner } => Self::FingerprintTaken { fingerprint, owner },
            failed @ (CreateError::Store(_) | _) => Self::Failed(failed.to_string()),
        }
    }
}

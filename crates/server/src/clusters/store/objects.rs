//! The Kubernetes store: `ManagedCluster` objects of the management cluster, which others may change as well.

use moorline_kube::{ClusterObject, ClusterObjects, Identified, ObjectError};
use moorline_model::{ClusterName, ClusterRecord};

use super::{Kept, Pending, Store, StoreFailure, Version};

impl Store for ClusterObjects {
    fn create(&self, record: ClusterRecord) -> Pending<'_, Kept> {
        Box::pin(async move {
            let made = self.create(&record).await;
            made.map(kept).map_err(|error| failure(&record.name, error))
        })
    }

    fn get<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>> {
        Box::pin(async move {
            let found = self.get(name).await;
            found.map(|found| found.map(kept)).map_err(|error| failure(name, error))
        })
    }

    fn list(&self) -> Pending<'_, Vec<Kept>> {
        Box::pin(async move {
            let listed = self.list().await;
            listed.map(|objects| objects.into_iter().map(kept).collect()).map_err(|error| match error {
                refused @ ObjectError::Refused(_) => StoreFailure::Failed(refused.to_string()),
                other @ (ObjectError::Exists
                | ObjectError::Gone
                | ObjectError::Conflict
                | ObjectError::Unavailable(_)
                | _) => StoreFailure::Unavailable(other.to_string()),
            })
        })
    }

    fn replace(&self, before: Kept, after: ClusterRecord) -> Pending<'_, Kept> {
        Box::pin(async move {
            let Kept { record, version } = before;
            let known = Identified { uid: version.object, resource_version: version.state };
            let replaced = self.replace(&record, &known, &after).await;
            replaced.map(kept).map_err(|error| failure(&after.name, error))
        })
    }

    fn delete<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>> {
        Box::pin(async move {
            let deleted = self.delete(name).await;
            deleted.map(|deleted| deleted.map(kept)).map_err(|error| failure(name, error))
        })
    }
}

fn kept(object: ClusterObject) -> Kept {
    Kept { record: object.record, version: version(object.identified) }
}

/// Which state of which object.
pub(crate) fn version(identified: Identified) -> Version {
    Version { object: identified.uid, state: identified.resource_version }
}

fn failure(name: &ClusterName, error: ObjectError) -> StoreFailure {
    match error {
        ObjectError::Exists => StoreFailure::Exists(name.clone()),
        ObjectError::Gone => StoreFailure::Gone(name.clone()),
        ObjectError::Conflict => StoreFailure::Conflict(name.clone()),
        refused @ ObjectError::Refused(_) => StoreFailure::Failed(refused.to_string()),
        other @ (ObjectError::Unavailable(_) | _) => StoreFailure::Unavailable(other.to_string()),
    }
}

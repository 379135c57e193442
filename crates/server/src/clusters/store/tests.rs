//! The embedded store, held to what every store promises.

use moorline_process::{Registry, Tasks};
use moorline_store::Embedded;

use super::{
    embedded::OnThreads,
    promises::{Keeper, Refusal, hold},
    *,
};

fn refusal(failure: &StoreFailure) -> Refusal {
    match failure {
        StoreFailure::Exists(_) => Refusal::Exists,
        StoreFailure::Gone(_) => Refusal::Gone,
        StoreFailure::Conflict(_) => Refusal::Conflict,
        StoreFailure::FingerprintTaken { .. } | StoreFailure::Unavailable(_) | StoreFailure::Failed(_) => {
            Refusal::Other
        }
    }
}

impl Keeper for OnThreads {
    type Kept = Kept;

    async fn create(&self, record: ClusterRecord) -> Result<Kept, Refusal> {
        Store::create(self, record).await.map_err(|failure| refusal(&failure))
    }

    async fn get(&self, name: &ClusterName) -> Option<Kept> {
        Store::get(self, name).await.unwrap()
    }

    async fn list(&self) -> Vec<Kept> {
        Store::list(self).await.unwrap()
    }

    async fn replace(&self, before: Kept, after: ClusterRecord) -> Result<Kept, Refusal> {
        Store::replace(self, before, after).await.map_err(|failure| refusal(&failure))
    }

    async fn delete(&self, name: &ClusterName) -> Option<Kept> {
        Store::delete(self, name).await.unwrap()
    }

    fn record(kept: &Kept) -> &ClusterRecord {
        &kept.record
    }
}

#[tokio::test]
async fn the_embedded_store_keeps_the_promises() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("clusters.redb")).unwrap();
    let tasks = Tasks::new(&Registry::new("test", "0"));
    hold(&OnThreads::new(store, tasks)).await;
}

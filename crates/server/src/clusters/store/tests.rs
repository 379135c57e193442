//! One suite for every store, and the embedded one held to it. The Kubernetes store is held to it, too, on a real
//! kube-apiserver by `tests/kubernetes`, through the management API.

use moorline_model::{ActiveFingerprint, ClusterUid, Fingerprint, Timestamp};
use moorline_process::{Registry, Tasks};
use moorline_store::Embedded;

use super::{embedded::OnThreads, *};

fn record(name: &str, number: u8) -> ClusterRecord {
    let created = Timestamp::from_unix_seconds(1_700_000_000);
    ClusterRecord::new(name.parse().unwrap(), ClusterUid::from_bytes([number; 16]), created)
}

fn active(number: u8) -> ActiveFingerprint {
    ActiveFingerprint {
        fingerprint: Fingerprint::from_bytes([number; 32]),
        not_after: Timestamp::from_unix_seconds(2_000_000_000),
    }
}

/// What [`Store`] promises.
async fn keeps_its_promises(store: &dyn Store) {
    let east = record("east", 1);
    assert_eq!(store.get(&east.name).await.unwrap(), None);
    let made = store.create(east.clone()).await.unwrap();
    assert_eq!((&made.record.name, made.record.uid), (&east.name, east.uid));
    assert_eq!(store.get(&east.name).await.unwrap(), Some(made.clone()));
    assert!(matches!(store.create(record("east", 2)).await, Err(StoreFailure::Exists(_))));

    let mut enrolled = made.record.clone();
    enrolled.fingerprints.push(active(1));
    enrolled.labels.insert("zone".into(), "eu".into());
    let replaced = store.replace(made.clone(), enrolled.clone()).await.unwrap();
    assert_eq!(replaced.record, enrolled);
    assert_eq!(store.get(&east.name).await.unwrap(), Some(replaced.clone()));

    let late = store.replace(made.clone(), made.record.clone()).await;
    assert!(matches!(late, Err(StoreFailure::Conflict(_))), "{late:?}");
    assert_eq!(store.get(&east.name).await.unwrap().unwrap().record, enrolled);

    assert_eq!(store.delete(&east.name).await.unwrap().unwrap().record, enrolled);
    assert_eq!(store.delete(&east.name).await.unwrap(), None);
    assert_eq!(store.get(&east.name).await.unwrap(), None);
    let gone = store.replace(replaced, enrolled.clone()).await;
    assert!(matches!(gone, Err(StoreFailure::Gone(_))), "{gone:?}");

    let reborn = store.create(record("east", 3)).await.unwrap();
    assert_ne!(reborn.record.uid, east.uid);
    assert!(reborn.record.fingerprints.is_empty());
}

#[tokio::test]
async fn the_embedded_store_keeps_its_promises() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("clusters.redb")).unwrap();
    let tasks = Tasks::new(&Registry::new("test", "0"));
    keeps_its_promises(&OnThreads::new(store, tasks)).await;
}

//! One suite for every store of clusters, whatever keeps them.
//!
//! The embedded store is held to it beside this file, objects on a real kube-apiserver by `tests/kubernetes`, which
//! reads this very file. So it names nothing of this crate: both lend it their store as a [`Keeper`].

use moorline_model::{
    ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Dialect, Fingerprint, JoinToken, Timestamp,
};

/// A store, as the suite needs it. A state is whatever `replace` needs to know of what was read.
pub(crate) trait Keeper {
    /// A record with its state.
    type Kept: Clone;
    async fn create(&self, record: ClusterRecord) -> Result<Self::Kept, Refusal>;
    async fn get(&self, name: &ClusterName) -> Option<Self::Kept>;
    async fn list(&self) -> Vec<Self::Kept>;
    async fn replace(&self, before: Self::Kept, after: ClusterRecord) -> Result<Self::Kept, Refusal>;
    async fn delete(&self, name: &ClusterName) -> Option<Self::Kept>;
    fn record(kept: &Self::Kept) -> &ClusterRecord;
}

/// Why a store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Exists,
    Gone,
    Conflict,
    Other,
}

fn record(name: &str, number: u8) -> ClusterRecord {
    let created = Timestamp::from_unix_seconds(1_700_000_000);
    ClusterRecord::new(name.parse().unwrap(), ClusterUid::from_bytes([number; 16]), created)
}

fn print(number: u8) -> Fingerprint {
    Fingerprint::from_bytes([number; 32])
}

/// Holds an empty store to what every store promises.
pub(crate) async fn hold<K: Keeper>(store: &K) {
    let east = record("east", 1);
    assert!(store.get(&east.name).await.is_none());
    let made = store.create(east.clone()).await.ok().unwrap();
    assert_eq!(K::record(&made), &east);
    assert_eq!(K::record(&store.get(&east.name).await.unwrap()), &east);
    assert_eq!(store.create(record("east", 2)).await.err(), Some(Refusal::Exists));

    // Everything that a record has, at once; and everything away again.
    let full = full(&east);
    let replaced = store.replace(made.clone(), full.clone()).await.ok().unwrap();
    assert_eq!(K::record(&replaced), &full);
    assert_eq!(K::record(&store.get(&east.name).await.unwrap()), &full);
    assert_eq!(store.replace(made, east.clone()).await.err(), Some(Refusal::Conflict), "somebody was quicker");
    assert_eq!(K::record(&store.get(&east.name).await.unwrap()), &full);
    let emptied = store.replace(replaced, east.clone()).await.ok().unwrap();
    assert_eq!(K::record(&emptied), &east);

    store.create(record("west", 4)).await.ok().unwrap();
    let names: Vec<_> = store.list().await.iter().map(|kept| K::record(kept).name.to_string()).collect();
    assert_eq!(names, ["east", "west"]);

    assert_eq!(K::record(&store.delete(&east.name).await.unwrap()), &east);
    assert!(store.delete(&east.name).await.is_none() && store.get(&east.name).await.is_none());
    assert_eq!(store.replace(emptied.clone(), full.clone()).await.err(), Some(Refusal::Gone));

    // F39: another cluster of the name has nothing of the first, and is not changed in its place.
    let reborn = store.create(record("east", 3)).await.ok().unwrap();
    assert_eq!(K::record(&reborn), &record("east", 3));
    assert_eq!(store.replace(emptied, full).await.err(), Some(Refusal::Conflict));
    assert_eq!(K::record(&store.get(&east.name).await.unwrap()), &record("east", 3));
}

fn full(of: &ClusterRecord) -> ClusterRecord {
    let moment = Timestamp::from_unix_seconds;
    let mut full = of.clone();
    full.labels.insert("zone".into(), "eu".into());
    full.operator_namespace = Some("tigera-operator".into());
    full.certificate = Some("-----BEGIN CERTIFICATE-----".into());
    full.attestation = Some(moorline_model::Attestation {
        issuer: "https://issuer".into(),
        audience: "moorline".into(),
        subject: "system:serviceaccount:moorline:moorline-agent".into(),
        jwks: Some("{}".into()),
    });
    for number in 1..3 {
        full.fingerprints.push(ActiveFingerprint {
            fingerprint: print(number),
            not_after: moment(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: Some(print(number + 10)),
        });
        full.retired.push(print(number + 10));
    }
    full.revoked = Some(moment(1_800_000_000));
    full.join_tokens.push(JoinToken {
        id: "abc".into(),
        hash: print(20),
        created: moment(1_700_000_001),
        expires: moment(1_700_003_601),
        created_by: "admin".into(),
        used: Some(moment(1_700_000_002)),
        used_for: Some(print(21)),
        certificate: Some("-----BEGIN CERTIFICATE-----".into()),
    });
    full
}

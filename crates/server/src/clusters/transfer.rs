//! All records of a store, out of it and into it: to move clusters from one kind of store to the other, and to keep a
//! copy apart.
//!
//! Called by the `moorline` command line. Records hold fingerprints and hashes and nothing that is secret. Agents notice
//! nothing of a move: they are known by the same certificates afterwards, as long as the tunnel's authority moves along.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use moorline_kube::{ClusterObjects, Connection};
use moorline_model::{ClusterName, ClusterRecord, Fingerprint, MAX_JOIN_TOKENS, MAX_RETIRED};
use moorline_process::{Registry, Tasks};
use moorline_store::Embedded;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::store::{Store, StoreFailure, embedded::OnThreads};
use crate::bootstrap::StateDir;

/// For one question to a kube-apiserver.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Certificates that one record may hold: two, and what still has sessions.
const MAX_FINGERPRINTS: usize = 16;

/// Where clusters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file of this state directory. No server may have it open.
    StateDir(PathBuf),
    /// As objects of the cluster that this kubeconfig reaches, or in which this pod runs.
    Kubernetes(Option<PathBuf>),
}

/// All records of a store, as they are written to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Records {
    /// [`Records::API_VERSION`].
    pub api_version: String,
    /// [`Records::KIND`].
    pub kind: String,
    /// The records, by name.
    pub items: Vec<ClusterRecord>,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Clusters that were not there before.
    pub created: usize,
    /// Clusters that were, and say something else now.
    pub replaced: usize,
    /// Clusters that were there just so.
    pub unchanged: usize,
}

/// Why records were not moved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The records are not such as a store takes, or it has others under their names. Nothing was written.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The store cannot be opened.
    #[error("{0}")]
    Open(String),
    /// The store failed on the way. What was written before stays; the same import can be run again.
    #[error("{0}")]
    Failed(String),
}

impl Records {
    /// The version of this form.
    pub const API_VERSION: &str = "moorline.io/v1alpha1";

    /// Its kind. It is no Kubernetes object: `kubectl apply` does not take it.
    pub const KIND: &str = "ClusterRecordList";

    /// These records.
    #[must_use]
    pub fn new(items: Vec<ClusterRecord>) -> Self {
        Self { api_version: Self::API_VERSION.to_owned(), kind: Self::KIND.to_owned(), items }
    }

    /// Everything that keeps a store from taking them.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.api_version != Self::API_VERSION || self.kind != Self::KIND {
            problems.push(format!("this is no {} of {}", Self::KIND, Self::API_VERSION));
        }
        let mut names = HashSet::new();
        let mut owners: HashMap<Fingerprint, &ClusterName> = HashMap::new();
        for record in &self.items {
            let name = &record.name;
            let mut wrong = |why: String| problems.push(format!("cluster {name}: {why}"));
            if name.is_reserved() {
                wrong("this name stands for the management cluster itself".to_owned());
            }
            if !names.insert(name) {
                wrong("it is there twice".to_owned());
            }
            if let Err(error) = moorline_model::check_labels(&record.labels) {
                wrong(error.to_string());
            }
            let lists = [
                (record.fingerprints.len(), MAX_FINGERPRINTS, "certificates"),
                (record.retired.len(), MAX_RETIRED, "retired certificates"),
                (record.join_tokens.len(), MAX_JOIN_TOKENS, "join tokens"),
            ];
            for (count, most, what) in lists.into_iter().filter(|(count, most, _)| count > most) {
                wrong(format!("it has {count} {what}, and may have {most}"));
            }
            for active in &record.fingerprints {
                if let Some(owner) = owners.insert(active.fingerprint, name).filter(|owner| *owner != name) {
                    wrong(format!("its certificate {} is {owner}'s, too", active.fingerprint));
                }
            }
        }
        problems
    }
}

/// All records of a store.
///
/// # Errors
/// [`TransferError`].
pub async fn export(place: &Place) -> Result<Records, TransferError> {
    let mut records: Vec<_> = all(&*open(place).await?).await?;
    records.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Records::new(records))
}

/// Puts records into a store. Clusters that are there already keep it from beginning, unless they are just so or `force`
/// is given: then they are replaced, but what was retired or revoked there meanwhile stays so, and join tokens are
/// dropped. Clusters that are not among the records stay.
///
/// # Errors
/// [`TransferError`].
pub async fn import(place: &Place, records: &Records, force: bool) -> Result<Imported, TransferError> {
    let mut problems = records.problems();
    let store = open(place).await?;
    let there: HashMap<ClusterName, ClusterRecord> =
        all(&*store).await?.into_iter().map(|record| (record.name.clone(), record)).collect();
    for record in &records.items {
        if !force && there.get(&record.name).is_some_and(|there| there != record) {
            problems.push(format!("cluster {}: it is there already, and says something else", record.name));
        }
        let staying = there.values().filter(|other| records.items.iter().all(|item| item.name != other.name));
        for other in staying {
            if record.fingerprints.iter().any(|active| other.accepts(&active.fingerprint)) {
                problems.push(format!("cluster {}: its certificate is {}'s, which is there", record.name, other.name));
            }
        }
    }
    if !problems.is_empty() {
        return Err(TransferError::Refused(problems));
    }
    let mut done = Imported::default();
    for record in &records.items {
        match there.get(&record.name) {
            Some(same) if same == record => done.unchanged += 1,
            Some(_) => {
                replace(&*store, record).await?;
                done.replaced += 1;
            }
            None => {
                create(&*store, record).await?;
                done.created += 1;
            }
        }
    }
    Ok(done)
}

/// What an older copy of a cluster's record may bring back, and what it may not: a certificate that was retired since, a
/// revocation undone, a join token that was used since.
fn merged(there: &ClusterRecord, copy: &ClusterRecord) -> ClusterRecord {
    let mut merged = copy.clone();
    merged.join_tokens.clear();
    merged.fingerprints.retain(|active| !there.retired.contains(&active.fingerprint));
    if there.revoked > copy.revoked {
        merged.revoked = there.revoked;
        merged.fingerprints.clear();
    }
    merged.retired.splice(0..0, there.retired.iter().filter(|retired| !copy.retired.contains(retired)).copied());
    merged.retire(|_| true);
    merged
}

async fn create(store: &dyn Store, record: &ClusterRecord) -> Result<(), TransferError> {
    // Tokens live for an hour, and nobody knows which were used since.
    let record = ClusterRecord { join_tokens: Vec::new(), ..record.clone() };
    store.create(record.clone()).await.map(drop).map_err(|error| failed(&record.name, &error))
}

async fn replace(store: &dyn Store, record: &ClusterRecord) -> Result<(), TransferError> {
    let before = store.get(&record.name).await.map_err(|error| failed(&record.name, &error))?;
    match before {
        Some(before) if (before.record.uid, before.record.created) == (record.uid, record.created) => {
            let merged = merged(&before.record, record);
            let replaced = store.replace(before, merged).await;
            replaced.map(drop).map_err(|error| failed(&record.name, &error))
        }
        // Another cluster: nothing of it may stay.
        _ => {
            store.delete(&record.name).await.map_err(|error| failed(&record.name, &error))?;
            create(store, record).await
        }
    }
}

async fn all(store: &dyn Store) -> Result<Vec<ClusterRecord>, TransferError> {
    let listed = store.list().await.map_err(|error| TransferError::Failed(error.to_string()))?;
    Ok(listed.into_iter().map(|kept| kept.record).collect())
}

async fn open(place: &Place) -> Result<Box<dyn Store>, TransferError> {
    let opened = |error: &dyn std::fmt::Display| TransferError::Open(error.to_string());
    match place {
        Place::StateDir(directory) => {
            let path = StateDir::new(directory).store();
            let tasks = Tasks::new(&Registry::new("moorline-store", env!("CARGO_PKG_VERSION")));
            let opening = tasks.spawn_blocking("open-store", move || Embedded::open(&path));
            let store = opening.await.map_err(|error| opened(&error))?.map_err(|error| opened(&error))?;
            Ok(Box::new(OnThreads::new(store, tasks)))
        }
        Place::Kubernetes(kubeconfig) => {
            let connection = match kubeconfig {
                Some(path) => Connection::from_kubeconfig(path, TIMEOUT).await,
                None => Connection::in_cluster(TIMEOUT),
            };
            Ok(Box::new(ClusterObjects::new(connection.map_err(|error| opened(&error))?)))
        }
    }
}

fn failed(name: &ClusterName, error: &StoreFailure) -> TransferError {
    TransferError::Failed(format!("cluster {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use moorline_model::{ActiveFingerprint, ClusterUid, Dialect, Timestamp};

    use super::*;

    fn record(name: &str, number: u8) -> ClusterRecord {
        let moment = Timestamp::from_unix_seconds;
        let mut record =
            ClusterRecord::new(name.parse().unwrap(), ClusterUid::from_bytes([number; 16]), moment(1_700_000_000));
        let fingerprint = Fingerprint::from_bytes([number; 32]);
        record.fingerprints.push(ActiveFingerprint {
            fingerprint,
            not_after: moment(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: None,
        });
        record
    }

    #[tokio::test]
    async fn goes_out_and_in_again_and_overwrites_nothing_unasked() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let place = |directory: &tempfile::TempDir| Place::StateDir(directory.path().to_owned());
        let records = Records::new(vec![record("east", 1), record("west", 2)]);
        let done = import(&place(&one), &records, false).await.unwrap();
        assert_eq!((done.created, done.replaced), (2, 0));
        let exported = export(&place(&one)).await.unwrap();
        assert_eq!(exported, records);
        let text = serde_json::to_string(&exported).unwrap();
        assert_eq!(serde_json::from_str::<Records>(&text).unwrap(), records);

        import(&place(&other), &Records::new(vec![record("east", 3), record("north", 4)]), false).await.unwrap();
        let refused = import(&place(&other), &records, false).await.unwrap_err().to_string();
        assert_eq!(refused, "cluster east: it is there already, and says something else");
        assert_eq!(export(&place(&other)).await.unwrap().items.len(), 2, "nothing was written");
        let done = import(&place(&other), &records, true).await.unwrap();
        assert_eq!((done.created, done.replaced), (1, 1));
        assert_eq!(
            export(&place(&other)).await.unwrap().items,
            [record("east", 1), record("north", 4), record("west", 2)]
        );
        let again = import(&place(&other), &records, false).await.unwrap();
        assert_eq!(again, Imported { unchanged: 2, ..Imported::default() });
    }

    #[tokio::test]
    async fn an_older_copy_brings_no_retired_certificate_back() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::StateDir(directory.path().to_owned());
        let old = Records::new(vec![record("east", 1)]);
        let mut since = record("east", 1);
        since.retire(|_| false);
        since.revoked = Some(Timestamp::from_unix_seconds(1_800_000_000));
        import(&place, &Records::new(vec![since.clone()]), false).await.unwrap();
        assert_eq!(import(&place, &old, true).await.unwrap().replaced, 1);
        assert_eq!(export(&place).await.unwrap().items, [since]);
    }

    #[tokio::test]
    async fn tells_everything_that_is_wrong_before_it_begins() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::StateDir(directory.path().to_owned());
        import(&place, &Records::new(vec![record("there", 9)]), false).await.unwrap();
        let mut wrong = Records::new(vec![record("east", 1), record("east", 2), record("management", 3)]);
        wrong.items.extend([record("west", 1), record("south", 9)]);
        wrong.kind = "List".to_owned();
        let TransferError::Refused(problems) = import(&place, &wrong, true).await.unwrap_err() else { panic!() };
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}

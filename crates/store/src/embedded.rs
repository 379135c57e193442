//! Cluster records in one file: a table of records by name, and an index of fingerprints changed with it.

use std::{path::Path, sync::Arc};

use moorline_model::{ClusterName, ClusterRecord, Fingerprint};
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};

use crate::{
    error::{CreateError, OpenError, StoreError, UpdateError, database},
    open,
};

/// Cluster name to its record as JSON, so that later versions can add fields.
pub(crate) const CLUSTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("clusters");
/// Fingerprint to the name of the cluster that it stands for.
pub(crate) const FINGERPRINTS: TableDefinition<'_, &[u8; 32], &str> = TableDefinition::new("fingerprints");
/// What the file says of itself.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The key in [`META`] under which the schema version is.
pub(crate) const SCHEMA_KEY: &str = "schema";
/// Raised when a version before this one could not read the file.
pub(crate) const SCHEMA_VERSION: u64 = 1;

type Index<'txn> = Table<'txn, &'static [u8; 32], &'static str>;

/// The open store. Cheap to clone; clones are the same store. Calls block: on the disk where they write (until the
/// change is durable), on memory mostly where they read.
#[derive(Clone, Debug)]
pub struct Embedded {
    db: Arc<Database>,
}

impl Embedded {
    /// Opens the store at `path`, making it (mode 0600) when there is nothing. One process at a time can have it.
    ///
    /// # Errors
    /// [`OpenError`]; whatever is at `path` is then as it was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { db: Arc::new(open::open(path)?) })
    }

    /// Registers a cluster. When this comes back, it is on the disk.
    ///
    /// # Errors
    /// When the name is in use, or a certificate is another cluster's, or the store failed; nothing was written then.
    pub fn create(&self, record: &ClusterRecord) -> Result<(), CreateError> {
        let write = self.begin_write()?;
        {
            let mut clusters = write.open_table(CLUSTERS).map_err(database)?;
            if clusters.get(record.name.as_str()).map_err(database)?.is_some() {
                return Err(CreateError::Exists(record.name.clone()));
            }
            let mut index = write.open_table(FINGERPRINTS).map_err(database)?;
            if let Err((fingerprint, owner)) = claim(&mut index, record)? {
                return Err(CreateError::FingerprintTaken { fingerprint, owner });
            }
            clusters.insert(record.name.as_str(), encode(record)?.as_slice()).map_err(database)?;
        }
        write.commit().map_err(database)?;
        Ok(())
    }

    /// The record of a cluster.
    ///
    /// # Errors
    /// When the store failed.
    pub fn get(&self, name: &ClusterName) -> Result<Option<ClusterRecord>, StoreError> {
        let read = self.db.begin_read().map_err(database)?;
        let clusters = read.open_table(CLUSTERS).map_err(database)?;
        let found = clusters.get(name.as_str()).map_err(database)?;
        found.map(|json| decode(name.as_str(), json.value())).transpose()
    }

    /// The record of the cluster that a certificate stands for.
    ///
    /// # Errors
    /// When the store failed.
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Result<Option<ClusterRecord>, StoreError> {
        let read = self.db.begin_read().map_err(database)?;
        let index = read.open_table(FINGERPRINTS).map_err(database)?;
        let Some(owner) = index.get(fingerprint.as_bytes()).map_err(database)? else { return Ok(None) };
        let clusters = read.open_table(CLUSTERS).map_err(database)?;
        let Some(json) = clusters.get(owner.value()).map_err(database)? else { return Ok(None) };
        let record = decode(owner.value(), json.value())?;
        // The record has the last word; the index only finds it.
        Ok(record.accepts(fingerprint).then_some(record))
    }

    /// All records, ordered by name.
    ///
    /// # Errors
    /// When the store failed.
    pub fn list(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        let read = self.db.begin_read().map_err(database)?;
        let clusters = read.open_table(CLUSTERS).map_err(database)?;
        let mut records = Vec::new();
        for entry in clusters.iter().map_err(database)? {
            let (name, json) = entry.map_err(database)?;
            records.push(decode(name.value(), json.value())?);
        }
        Ok(records)
    }

    /// How many clusters there are.
    ///
    /// # Errors
    /// When the store failed.
    pub fn count(&self) -> Result<u64, StoreError> {
        let read = self.db.begin_read().map_err(database)?;
        read.open_table(CLUSTERS).map_err(database)?.len().map_err(database)
    }

    /// Changes the record of a cluster; gives it back as it is now, with what `change` answered. When this comes back, it
    /// is on the disk.
    ///
    /// Nobody else changes the record between what `change` sees and what is written.
    ///
    /// # Errors
    /// When there is no such cluster, or `change` refused, or it touched what never changes, or a new certificate is another
    /// cluster's, or the store failed; nothing was written then.
    pub fn update<T, E>(
        &self,
        name: &ClusterName,
        change: impl FnOnce(&mut ClusterRecord) -> Result<T, E>,
    ) -> Result<(ClusterRecord, T), UpdateError<E>> {
        let write = self.begin_write()?;
        let answered = {
            let mut clusters = write.open_table(CLUSTERS).map_err(database)?;
            let before = match clusters.get(name.as_str()).map_err(database)? {
                Some(json) => decode(name.as_str(), json.value())?,
                None => return Err(UpdateError::NotFound(name.clone())),
            };
            let mut changed = before.clone();
            let answer = change(&mut changed).map_err(UpdateError::Refused)?;
            if changed == before {
                return Ok((changed, answer));
            }
            if let Some(field) = immutable_change(&before, &changed) {
                return Err(UpdateError::Immutable { name: name.clone(), field });
            }
            let mut index = write.open_table(FINGERPRINTS).map_err(database)?;
            release(&mut index, &before)?;
            if let Err((fingerprint, owner)) = claim(&mut index, &changed)? {
                return Err(UpdateError::FingerprintTaken { fingerprint, owner });
            }
            clusters.insert(name.as_str(), encode(&changed)?.as_slice()).map_err(database)?;
            (changed, answer)
        };
        write.commit().map_err(database)?;
        Ok(answered)
    }

    /// Removes a cluster and gives back its last record, or `None` when there was none. When this comes back, it is
    /// off the disk, and its certificates stand for nobody.
    ///
    /// # Errors
    /// When the store failed; nothing was written then.
    pub fn delete(&self, name: &ClusterName) -> Result<Option<ClusterRecord>, StoreError> {
        let write = self.begin_write()?;
        let removed = {
            let mut clusters = write.open_table(CLUSTERS).map_err(database)?;
            let removed = match clusters.remove(name.as_str()).map_err(database)? {
                Some(json) => decode(name.as_str(), json.value())?,
                None => return Ok(None),
            };
            release(&mut write.open_table(FINGERPRINTS).map_err(database)?, &removed)?;
            removed
        };
        write.commit().map_err(database)?;
        Ok(Some(removed))
    }

    /// A transaction that is on the disk once it is committed, and never happened when it is dropped before.
    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut write = self.db.begin_write().map_err(database)?;
        write.set_durability(Durability::Immediate).map_err(database)?;
        Ok(write)
    }
}

/// Enters the record's fingerprints; the inner error names the first that is another cluster's.
fn claim(index: &mut Index<'_>, record: &ClusterRecord) -> Result<Result<(), (Fingerprint, ClusterName)>, StoreError> {
    for active in &record.fingerprints {
        let key = active.fingerprint.as_bytes();
        let before = index.insert(key, record.name.as_str()).map_err(database)?;
        let owner = before.map(|owner| owner.value().to_owned()).filter(|owner| owner != record.name.as_str());
        if let Some(owner) = owner {
            let name = owner.parse().map_err(|_never_written| unreadable(&owner, "its name is not one"))?;
            return Ok(Err((active.fingerprint, name)));
        }
    }
    Ok(Ok(()))
}

fn release(index: &mut Index<'_>, record: &ClusterRecord) -> Result<(), StoreError> {
    for active in &record.fingerprints {
        index.remove(active.fingerprint.as_bytes()).map_err(database)?;
    }
    Ok(())
}

fn immutable_change(before: &ClusterRecord, after: &ClusterRecord) -> Option<&'static str> {
    if before.name != after.name {
        Some("name")
    } else if before.uid != after.uid {
        Some("uid")
    } else if before.created != after.created {
        Some("creation time")
    } else {
        None
    }
}

fn encode(record: &ClusterRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| unreadable(record.name.as_str(), &error.to_string()))
}

fn decode(name: &str, json: &[u8]) -> Result<ClusterRecord, StoreError> {
    let record: ClusterRecord = serde_json::from_slice(json).map_err(|error| unreadable(name, &error.to_string()))?;
    if record.name.as_str() == name { Ok(record) } else { Err(unreadable(name, "it is another cluster's")) }
}

fn unreadable(name: &str, reason: &str) -> StoreError {
    StoreError::Record { name: name.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use moorline_model::{ActiveFingerprint, ClusterUid, Dialect, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn store() -> (tempfile::TempDir, Embedded) {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("clusters.redb")).unwrap();
        (dir, store)
    }

    fn print(number: u8) -> Fingerprint {
        Fingerprint::from_bytes([number; 32])
    }

    fn active(number: u8) -> ActiveFingerprint {
        ActiveFingerprint {
            fingerprint: print(number),
            not_after: Timestamp::from_unix_seconds(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: None,
        }
    }

    fn record(name: &str, prints: &[u8]) -> ClusterRecord {
        ClusterRecord {
            fingerprints: prints.iter().copied().map(active).collect(),
            ..ClusterRecord::new(
                name.parse().unwrap(),
                ClusterUid::from_bytes([7; 16]),
                Timestamp::from_unix_seconds(1_000_000_000),
            )
        }
    }

    #[test]
    fn a_cluster_is_found_by_name_and_by_certificate() {
        let (_dir, store) = store();
        let east = record("east", &[1, 2]);
        store.create(&east).unwrap();
        store.create(&record("west", &[3])).unwrap();
        assert_eq!(store.get(&east.name).unwrap().as_ref(), Some(&east));
        assert_eq!(store.by_fingerprint(&print(2)).unwrap().as_ref(), Some(&east));
        assert_eq!(store.by_fingerprint(&print(9)).unwrap(), None);
        assert_eq!(store.get(&"north".parse().unwrap()).unwrap(), None);
        let names: Vec<_> = store.list().unwrap().into_iter().map(|record| record.name.to_string()).collect();
        assert_eq!(names, ["east", "west"]);
    }

    #[test]
    fn neither_name_nor_certificate_is_used_twice() {
        let (_dir, store) = store();
        store.create(&record("east", &[1])).unwrap();
        assert!(matches!(store.create(&record("east", &[2])), Err(CreateError::Exists(_))));
        let error = store.create(&record("west", &[2, 1])).unwrap_err();
        assert!(error.to_string().contains("belongs to the cluster east already"), "{error}");
        assert_eq!(store.count().unwrap(), 1);
        assert_eq!(store.by_fingerprint(&print(2)).unwrap(), None, "the refused one left nothing behind");
    }

    /// A change that nobody refuses.
    fn changed(change: impl FnOnce(&mut ClusterRecord)) -> impl FnOnce(&mut ClusterRecord) -> Result<(), Infallible> {
        |record| {
            change(record);
            Ok(())
        }
    }

    #[test]
    fn a_change_moves_the_index_along() {
        let (_dir, store) = store();
        let east = record("east", &[1]);
        store.create(&east).unwrap();
        store.create(&record("west", &[3])).unwrap();
        let set = |fingerprints: &[ActiveFingerprint]| {
            let fingerprints = fingerprints.to_vec();
            store.update(&east.name, changed(|record| record.fingerprints = fingerprints))
        };
        assert!(set(&[active(1), active(2)]).unwrap().0.accepts(&print(2)));
        set(&[active(2)]).unwrap();
        assert_eq!(store.by_fingerprint(&print(1)).unwrap(), None);
        assert!(store.by_fingerprint(&print(2)).unwrap().is_some());
        let taken = set(&[active(2), active(3)]);
        assert!(matches!(taken, Err(UpdateError::FingerprintTaken { .. })));
        assert_eq!(store.get(&east.name).unwrap().unwrap().fingerprints, [active(2)]);
        assert_eq!(store.by_fingerprint(&print(3)).unwrap().unwrap().name.as_str(), "west");
    }

    #[test]
    fn what_never_changes_does_not() {
        let (_dir, store) = store();
        let east = record("east", &[1]);
        store.create(&east).unwrap();
        let renamed = store.update(&east.name, changed(|record| record.name = "west".parse().unwrap()));
        assert!(matches!(renamed, Err(UpdateError::Immutable { field: "name", .. })));
        let reborn = store.update(&east.name, changed(|record| record.uid = ClusterUid::from_bytes([8; 16])));
        assert!(matches!(reborn, Err(UpdateError::Immutable { field: "uid", .. })));
        let absent = store.update(&"north".parse().unwrap(), |_| Ok::<_, Infallible>(()));
        assert!(matches!(absent, Err(UpdateError::NotFound(_))));
        let refused = store.update(&east.name, |record| {
            record.fingerprints.clear();
            Err::<(), _>("no")
        });
        assert!(matches!(refused, Err(UpdateError::Refused("no"))));
        assert_eq!(store.get(&east.name).unwrap(), Some(east));
    }

    #[test]
    fn a_deleted_cluster_frees_its_name_and_certificates() {
        let (_dir, store) = store();
        let east = record("east", &[1]);
        store.create(&east).unwrap();
        assert_eq!(store.delete(&east.name).unwrap(), Some(east.clone()));
        assert_eq!(store.delete(&east.name).unwrap(), None);
        assert_eq!(store.by_fingerprint(&print(1)).unwrap(), None);
        store.create(&record("west", &[1])).unwrap();
        store.create(&record("east", &[4])).unwrap();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Create(u8, Vec<u8>),
        Update(u8, Vec<u8>),
        Delete(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let prints = || prop::collection::vec(0_u8..6, 0..3);
        let step = prop_oneof![
            (0_u8..4, prints()).prop_map(|(name, prints)| Step::Create(name, prints)),
            (0_u8..4, prints()).prop_map(|(name, prints)| Step::Update(name, prints)),
            (0_u8..4).prop_map(Step::Delete),
        ];
        prop::collection::vec(step, 0..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a plain map: whatever is done, records and index tell the same story.
        #[test]
        fn records_and_index_agree(steps in steps()) {
            let (_dir, store) = store();
            let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Create(name, prints) => {
                        let name = format!("c{name}");
                        let free = !model.contains_key(&name) && !taken(&model, &name, &prints);
                        prop_assert_eq!(store.create(&record(&name, &prints)).is_ok(), free);
                        if free {
                            model.insert(name, prints);
                        }
                    }
                    Step::Update(name, prints) => {
                        let name = format!("c{name}");
                        let change = |record: &mut ClusterRecord| {
                            record.fingerprints = prints.iter().copied().map(active).collect();
                            Ok::<_, Infallible>(())
                        };
                        let free = model.contains_key(&name) && !taken(&model, &name, &prints);
                        prop_assert_eq!(store.update(&name.parse().unwrap(), change).is_ok(), free);
                        if free {
                            model.insert(name, prints);
                        }
                    }
                    Step::Delete(name) => {
                        let name = format!("c{name}");
                        let deleted = store.delete(&name.parse().unwrap()).unwrap();
                        prop_assert_eq!(deleted.is_some(), model.remove(&name).is_some());
                    }
                }
            }
            let expected: Vec<_> = model.iter().map(|(name, prints)| record(name, prints)).collect();
            prop_assert_eq!(store.list().unwrap(), expected);
            for number in 0..6 {
                let owner = model.iter().find(|(_, prints)| prints.contains(&number)).map(|(name, _)| name.clone());
                let found = store.by_fingerprint(&print(number)).unwrap().map(|record| record.name.to_string());
                prop_assert_eq!(found, owner);
            }
        }
    }

    fn taken(model: &BTreeMap<String, Vec<u8>>, name: &str, prints: &[u8]) -> bool {
        model.iter().any(|(owner, theirs)| owner != name && theirs.iter().any(|print| prints.contains(print)))
    }
}

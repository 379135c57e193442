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

    /// Changes the record of a cluster and gives it back as it is now. When this comes back, it is on the disk.
    ///
    /// Nobody else changes the record between what `change` sees and what is written.
    ///
    /// # Errors
    /// When there is no such cluster, or `change` touched what never changes, or a new certificate is another
    /// cluster's, or the store failed; nothing was written then.
    pub fn update(
        &self,
        name: &ClusterName,
        change: impl FnOnce(&mut ClusterRecord),
    ) -> Result<ClusterRecord, UpdateError> {
        let write = self.begin_write()?;
        let changed = {
            let mut clusters = write.open_table(CLUSTERS).map_err(database)?;
            let before = match clusters.get(name.as_str()).map_err(database)? {
                Some(json) => decode(name.as_str(), json.value())?,
                None => return Err(UpdateError::NotFound(name.clone())),
            };
            let mut changed = before.clone();
            change(&mut changed);
            if let Some(field) = immutable_change(&before, &changed) {
                return Err(UpdateError::Immutable { name: name.clone(), field });
            }
            let mut index = write.open_table(FINGERPRINTS).map_err(database)?;
            release(&mut index, &before)?;
            if let Err((fingerprint, owner)) = claim(&mut index, &changed)? {
                return Err(UpdateError::FingerprintTaken { fingerprint, owner });
            }
            clusters.insert(name.as_str(), encode(&changed)?.as_slice()).map_err(database)?;
            changed
        };
        write.commit().map_err(database)?;
        Ok(changed)
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

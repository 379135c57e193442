//! The store and its file: whose it is, who may read it, and what happens when it is not what it should be.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use moorline_model::{ClusterRecord, ClusterUid, Timestamp};
use moorline_store::{Embedded, OpenError};
use redb::{Database, ReadableDatabase as _, TableDefinition};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("clusters.redb")
    }

    fn filled(&self) -> Vec<u8> {
        let store = Embedded::open(&self.path()).unwrap();
        for name in ["east", "west"] {
            store.create(&record(name)).unwrap();
        }
        drop(store);
        fs::read(self.path()).unwrap()
    }
}

fn record(name: &str) -> ClusterRecord {
    ClusterRecord {
        ..ClusterRecord::new(
            name.parse().unwrap(),
            ClusterUid::from_bytes([7; 16]),
            Timestamp::from_unix_seconds(1_000_000_000),
        )
    }
}

fn refusal(path: &Path) -> OpenError {
    Embedded::open(path).unwrap_err()
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let place = Place::new();
    place.filled();
    let store = Embedded::open(&place.path()).unwrap();
    assert_eq!(store.list().unwrap(), [record("east"), record("west")]);
    assert_eq!(store.count().unwrap(), 2);
}

#[test]
fn the_file_is_its_owners_only() {
    let place = Place::new();
    place.filled();
    let mode = || fs::metadata(place.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 1, "nothing is left beside it");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Embedded::open(&place.path()).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn one_process_at_a_time() {
    let place = Place::new();
    let store = Embedded::open(&place.path()).unwrap();
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store);
    Embedded::open(&place.path()).unwrap();
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let place = Place::new();
    for content in [&b""[..], b"x", b"some other file that is long enough to have a head", &[0; 8192]] {
        fs::write(place.path(), content).unwrap();
        let error = refusal(&place.path());
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(place.path()).unwrap(), content);
    }
    fs::remove_file(place.path()).unwrap();
    fs::create_dir(place.path()).unwrap();
    assert!(matches!(refusal(&place.path()), OpenError::Foreign { .. }));
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    const THEIRS: TableDefinition<'_, &str, &str> = TableDefinition::new("theirs");
    let place = Place::new();
    let db = Database::create(place.path()).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(THEIRS).unwrap().insert("key", "value").unwrap();
    write.commit().unwrap();
    drop(db);
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::Foreign { reason: "it is the database of another program", .. }), "{error}");
    let db = Database::open(place.path()).unwrap();
    let value = db.begin_read().unwrap().open_table(THEIRS).unwrap().get("key").unwrap().unwrap().value().to_owned();
    assert_eq!(value, "value");
}

#[test]
fn a_later_schema_is_left_to_later_versions() {
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let place = Place::new();
    place.filled();
    let db = Database::open(place.path()).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", 2).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::NewerSchema { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_place_that_cannot_be_is_named() {
    let place = Place::new();
    let error = refusal(&place.dir.path().join("none/clusters.redb"));
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(error.to_string().contains("none/clusters.redb"), "{error}");
}

/// Every damage ends in an error or in the very records that were written; never in a panic, never in other records.
#[test]
fn damage_is_an_error_and_never_a_panic() {
    let place = Place::new();
    let good = place.filled();
    let written = [record("east"), record("west")];
    let mut refused = 0;
    for cut in [10, 100, 320, 4096, 5000, good.len() / 2, good.len() - 1] {
        refused += usize::from(survives(&place.path(), &good[..cut], &written));
    }
    // A stride that is prime to the page size, so that every part of a page is hit.
    for at in (9..good.len()).step_by(good.len() / 400 + 37) {
        let mut damaged = good.clone();
        damaged[at] ^= 0xa5;
        refused += usize::from(survives(&place.path(), &damaged, &written));
    }
    assert!(refused > 5, "the damage was never noticed");
}

/// Whether the damage was refused.
fn survives(path: &Path, content: &[u8], written: &[ClusterRecord]) -> bool {
    fs::write(path, content).unwrap();
    match Embedded::open(path).map(|store| store.list()) {
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. }), "{error}");
            true
        }
        Ok(Err(_unreadable)) => true,
        Ok(Ok(records)) => {
            assert_eq!(records, written);
            false
        }
    }
}

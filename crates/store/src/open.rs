//! Opening the store's file: made whole or not at all, and never touched when it is not ours.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use redb::{Builder, Database, DatabaseError, Error, ReadableDatabase as _, StorageError};

use crate::{
    embedded::{CLUSTERS, FINGERPRINTS, META, SCHEMA_KEY, SCHEMA_VERSION},
    error::{OpenError, StoreError, database},
};

/// Memory that the database may use to keep pages. A thousand clusters are about a mebibyte.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const FILE_MODE: u32 = 0o600;

/// How every file of this database begins (redb's file format, `docs/design.md` of redb).
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Opens the store at `path`, making it when there is nothing.
pub(crate) fn open(path: &Path) -> Result<Database, OpenError> {
    loop {
        match check_magic(path) {
            Ok(None) => return open_existing(path),
            Ok(Some(reason)) => return Err(OpenError::Foreign { path: path.to_owned(), reason }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(io_error(path, error)),
        }
    }
}

/// What the file is instead of a database of ours, judged without the database having seen it.
fn check_magic(path: &Path) -> io::Result<Option<&'static str>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Some("it is no regular file"));
    }
    let mut begin = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(match begin.as_slice() {
        [] => Some("it is empty"),
        begin if begin == MAGIC => None,
        _ => Some("it is a file of another kind"),
    })
}

fn open_existing(path: &Path) -> Result<Database, OpenError> {
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(|error| io_error(path, error))?;
    let opened = guarded(path, || Builder::new().set_cache_size(CACHE_BYTES).open(path))?;
    let db = opened.map_err(|error| database_error(path, error))?;
    guarded(path, || check_schema(&db, path))??;
    Ok(db)
}

/// The database asserts its invariants; on a file that somebody damaged an assertion may fail. That is an error like
/// any other here: nothing was handed out yet.
fn guarded<R>(path: &Path, work: impl FnOnce() -> R) -> Result<R, OpenError> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_panic| damaged(path, "its structure is broken".to_owned()))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the database's errors are non-exhaustive; the rest is told in its words"
)]
fn check_schema(db: &Database, path: &Path) -> Result<(), OpenError> {
    let found = schema(db).map_err(|error| match error {
        Error::TableDoesNotExist(_) | Error::TableTypeMismatch { .. } => {
            OpenError::Foreign { path: path.to_owned(), reason: "it is the database of another program" }
        }
        other => damaged(path, other.to_string()),
    })?;
    match found {
        Some(SCHEMA_VERSION) => Ok(()),
        Some(found) if found > SCHEMA_VERSION => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, supported: SCHEMA_VERSION })
        }
        _ => Err(OpenError::Foreign { path: path.to_owned(), reason: "it is the database of another program" }),
    }
}

fn schema(db: &Database) -> Result<Option<u64>, Error> {
    let read = db.begin_read()?;
    // All of them, so that no later call meets a missing table.
    read.open_table(CLUSTERS)?;
    read.open_table(FINGERPRINTS)?;
    Ok(read.open_table(META)?.get(SCHEMA_KEY)?.map(|version| version.value()))
}

/// Makes a complete, empty store beside `path` and links it there, so that a crash in between leaves either nothing
/// or a good file. Somebody else's file that appeared meanwhile is left alone.
fn create(path: &Path) -> Result<(), OpenError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let beside = path.with_file_name(name);
    let made = fill(&beside).and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, error)),
        _linked_or_there => Ok(()),
    });
    // A leftover harms nobody; the error worth telling is the first.
    drop(fs::remove_file(&beside));
    made.and_then(|()| sync_directory(path).map_err(|error| io_error(path, error)))
}

fn fill(path: &Path) -> Result<(), OpenError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path);
    let file = file.map_err(|error| io_error(path, error))?;
    let db = Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
    let db = db.map_err(|error| database_error(path, error))?;
    lay_out(&db).map_err(|error| damaged(path, error.to_string()))
}

fn lay_out(db: &Database) -> Result<(), StoreError> {
    let write = db.begin_write().map_err(database)?;
    write.open_table(CLUSTERS).map_err(database)?;
    write.open_table(FINGERPRINTS).map_err(database)?;
    write.open_table(META).map_err(database)?.insert(SCHEMA_KEY, SCHEMA_VERSION).map_err(database)?;
    write.commit().map_err(database)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the database's errors are non-exhaustive; the rest is told in its words"
)]
fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        // Bytes that are not what they should be, or not there: the file's fault, not the disk's.
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            io_error(path, error)
        }
        other => damaged(path, other.to_string()),
    }
}

fn io_error(path: &Path, error: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error }
}

fn damaged(path: &Path, reason: String) -> OpenError {
    OpenError::Damaged { path: PathBuf::from(path), reason }
}

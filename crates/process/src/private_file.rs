//! Files that hold secrets or state: written whole or not at all, readable by their owner only.
//!
//! Used for certificate authorities, keys, tokens and kubeconfigs by the server and the command line.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Replaces the file at `path` by `bytes`, mode 0600, so that a reader sees the old content or the new and nothing
/// in between, also after a power cut: a new file beside it is written and synced, renamed over, and the directory
/// synced. A symbolic link at `path` is replaced, not followed. Blocks on the disk.
///
/// # Errors
/// Any I/O error, with the path in its text; the old file is then untouched and the new one removed.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = name_beside(path)?;
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to report; the leftover is empty or private.
        drop(fs::remove_file(&beside));
    }
    written.and_then(|()| sync_dir(parent(path))).map_err(|error| with_path("write", path, &error))
}

/// Like [`write_private`], but leaves an existing file alone.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something at `path`; else as [`write_private`].
pub fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = name_beside(path)?;
    // A hard link fails where something exists; a rename would replace it.
    let created = write_new(&beside, bytes).and_then(|()| fs::hard_link(&beside, path));
    drop(fs::remove_file(&beside));
    created.and_then(|()| sync_dir(parent(path))).map_err(|error| with_path("create", path, &error))
}

/// Makes sure that the directory exists with mode 0700, parents included; an existing one is made private.
///
/// # Errors
/// When it cannot be made, is not a directory, or belongs to somebody else.
pub fn private_dir(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(path);
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIR_MODE)))
        .map_err(|error| with_path("make the private directory", path, &error))
}

/// True when others than the owner may read or write the file, which a file with a secret should not allow.
///
/// # Errors
/// When the file's metadata cannot be read.
pub fn is_exposed(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A name in the same directory (a rename must not cross file systems) that no other writer uses.
fn name_beside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())));
    };
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}-{serial}.new", std::process::id()));
    Ok(parent(path).join(beside))
}

fn with_path(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn replaces_whole_and_private_without_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        fs::write(&path, "old and readable by all").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(is_exposed(&path).unwrap());
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert!(!is_exposed(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn creating_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        create_private(&path, b"first").unwrap();
        let error = create_private(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("ca.key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_private(&dir.path().join("nowhere/ca.key"), b"x").unwrap_err();
        assert!(error.to_string().contains("nowhere/ca.key"), "{error}");
        write_private(Path::new("/"), b"x").unwrap_err();
    }

    #[test]
    fn directories_become_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }
}

//! A kubeconfig on disk: found where kubectl looks, locked as kubectl locks, replaced whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use moorline_manifest::Node;
use moorline_process::write_private;

use super::merge::{Entry, merge};
use crate::failure::Failure;

/// What became of the file that was there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// There was none, or nothing of it is lost.
    Everything,
    /// Its comments are lost, since YAML does not keep them; the old file is there.
    CommentsIn(PathBuf),
}

/// Where kubectl would write: the first file of `$KUBECONFIG`, else `~/.kube/config`.
pub(crate) fn default_path() -> Option<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").filter(|list: &OsString| !list.is_empty());
    let first = listed.and_then(|list| std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty()));
    first.or_else(|| std::env::home_dir().map(|home| home.join(".kube").join("config")))
}

/// Reads a kubeconfig; one that does not exist is empty.
pub(crate) fn read(path: &Path) -> Result<Node, Failure> {
    let text = text(path)?.unwrap_or_default();
    Node::parse(&text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Adds a context to the file at `path`, which may not exist yet.
pub(crate) fn update(path: &Path, entry: &Entry, make_current: bool) -> Result<Kept, Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)
            .map_err(|error| Failure::because(&format!("cannot make the directory {}", parent.display()), &error))?;
    }
    // Through a link to the file that is meant: replacing the link would cut it off from where it is kept.
    let path = &fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned());
    let _lock = Lock::take(path)?;
    let before = text(path)?;
    let whose = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("{} is left as it is: it {error}", path.display()))
            .hint("give another file with --kubeconfig, or print the context with --stdout")
    };
    let mut config =
        Node::parse(before.as_deref().unwrap_or_default()).map_err(|error| whose(&format!("is {error}")))?;
    merge(&mut config, entry, make_current).map_err(|error| whose(&error))?;
    let after = config.to_yaml().map_err(|error| whose(&error))?;
    let kept = match before.filter(|before| has_comments(before)) {
        Some(before) => {
            let backup = beside(path, ".bak");
            write(&backup, &before)?;
            Kept::CommentsIn(backup)
        }
        None => Kept::Everything,
    };
    write(path, &after)?;
    Ok(kept)
}

fn text(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::because(&format!("cannot read {}", path.display()), &error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_private(path, text.as_bytes()).map_err(|error| Failure::because("the kubeconfig is left as it is", &error))
}

/// A line that begins with `#` is a comment wherever it stands; what follows a value may be part of it.
fn has_comments(yaml: &str) -> bool {
    yaml.lines().any(|line| line.trim_start().starts_with('#') || line.contains(" #"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The file that says to kubectl, and to another of us, that the kubeconfig is being written.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, Failure> {
        let lock = beside(path, ".lock");
        let taken: io::Result<File> = OpenOptions::new().write(true).create_new(true).open(&lock);
        match taken {
            Ok(_file) => Ok(Self(lock)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::failed(format!(
                "{} is being written by another program: {} exists",
                path.display(),
                lock.display()
            ))
            .hint(format!("when no kubectl is running, remove it: rm {}", lock.display()))),
            Err(error) => Err(Failure::because(&format!("cannot lock {}", path.display()), &error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock that stays is reported, with its remedy, by the next who finds it.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{
        super::{Credential, User},
        *,
    };

    fn entry() -> Entry {
        Entry {
            name: "moorline-demo".to_owned(),
            server: "https://h:1/clusters/demo".to_owned(),
            authorities: "CA".to_owned(),
            user: User::Shows(Credential::Token("t".to_owned())),
        }
    }

    #[test]
    fn a_file_is_made_private_and_unlocked_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("config");
        assert_eq!(update(&path, &entry(), false).unwrap(), Kept::Everything);
        assert_eq!(update(&path, &entry(), false).unwrap(), Kept::Everything);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no lock and no half file is left");
        assert_eq!(read(&path).unwrap().at("current-context"), Some(&Node::text("moorline-demo")));
    }

    #[test]
    fn a_locked_or_broken_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, "users: 3\n").unwrap();
        let failure = update(&path, &entry(), false).unwrap_err();
        assert!(failure.what[0].contains("users is not a list"), "{failure:?}");
        fs::write(beside(&path, ".lock"), "").unwrap();
        let failure = update(&path, &entry(), false).unwrap_err();
        assert!(failure.hints[0].contains("config.lock"), "{failure:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "users: 3\n");
    }

    #[test]
    fn comments_are_kept_beside_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "# mine\nkind: Config\n").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let Kept::CommentsIn(backup) = update(&link, &entry(), false).unwrap() else { panic!("there were comments") };
        assert_eq!(fs::read_to_string(backup).unwrap(), "# mine\nkind: Config\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("moorline-demo"));
    }
}

//! Puts a log aside when it is large, and lets go of old ones: by number and by age, compressed if wished.
//!
//! Our own, and small: the crates for this either write for each call of the data path or decide about names, modes and
//! errors by themselves, and here a failure must leave the log as it was. Names are those of kube-apiserver's log:
//! `audit-2026-11-21T03-53-00.042.log`. Blocks on the disk.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use moorline_audit::MicroTime;

/// When a log is put aside, and what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes at which it is; never, if there is no such number.
    pub(crate) max_size: Option<u64>,
    /// How many are kept; all, if there is no such number.
    pub(crate) max_backups: Option<usize>,
    /// For how long; for ever, if there is no such time.
    pub(crate) max_age: Option<Duration>,
    /// Whether with gzip.
    pub(crate) compress: bool,
}

const COMPRESSED: &str = "gz";

impl Rotation {
    /// Whether a log of that size is put aside before so many more bytes.
    pub(super) fn is_due(&self, size: u64, more: usize) -> bool {
        size > 0 && self.max_size.is_some_and(|most| size.saturating_add(more as u64) > most)
    }

    /// What is to be done after [`put_aside`], which may take seconds: compresses what was put aside, and lets go of old
    /// ones. What goes wrong is told and left for the next time.
    pub(super) fn tend(&self, path: &Path, aside: &Path) {
        let outcome = if self.compress { compress(aside) } else { Ok(()) };
        if let Err(error) = outcome.and_then(|()| self.let_go(path, SystemTime::now())) {
            tracing::warn!(%error, file = %aside.display(), "an old audit log cannot be compressed or removed");
        }
    }

    fn let_go(&self, path: &Path, now: SystemTime) -> io::Result<()> {
        let mut old = put_aside_before(path)?;
        // The names hold the time, so their order is that of age.
        old.sort();
        let most = self.max_backups.unwrap_or(usize::MAX);
        let too_many = old.len().saturating_sub(most);
        for (index, file) in old.iter().enumerate() {
            let age = || -> io::Result<Duration> {
                Ok(now.duration_since(fs::metadata(file)?.modified()?).unwrap_or_default())
            };
            if index < too_many || self.max_age.is_some_and(|most| age().is_ok_and(|age| age > most)) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

/// Moves the log at `path` to a name with the time in it, beside it; gives that name.
///
/// # Errors
/// It is where it was.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path, SystemTime::now());
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// A name beside the log that nothing has.
fn free_name(path: &Path, now: SystemTime) -> PathBuf {
    let mut moment = now;
    loop {
        // To the millisecond, without what file names should not have: `2026-11-21T03-53-00.042`.
        let text = MicroTime(moment).to_string().replace(':', "-");
        let text = text.get(..23).unwrap_or(&text);
        let aside = path.with_file_name(join(path, text));
        let compressed = with_more(&aside, COMPRESSED);
        if !aside.exists() && !compressed.exists() {
            return aside;
        }
        moment += Duration::from_millis(1);
    }
}

/// `audit-TEXT.log` for `audit.log`.
fn join(path: &Path, text: &str) -> std::ffi::OsString {
    let mut name = path.file_stem().unwrap_or(OsStr::new("audit")).to_owned();
    name.push("-");
    name.push(text);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    name
}

fn with_more(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(more);
    name.into()
}

/// All that were put aside for this log.
fn put_aside_before(path: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut old = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let Some(name) = file.file_name().and_then(OsStr::to_str) else { continue };
        let plain = name.strip_suffix(COMPRESSED).and_then(|name| name.strip_suffix('.')).unwrap_or(name);
        if is_ours(path, plain) {
            old.push(file);
        }
    }
    Ok(old)
}

/// Whether it is the name of this log with a time in it.
fn is_ours(path: &Path, name: &str) -> bool {
    const TIME: &str = "0000-00-00T00-00-00.000";
    let like_time = |text: &str| {
        let same = |(one, other): (u8, u8)| one == other || one == b'0' && other.is_ascii_digit();
        text.len() == TIME.len() && TIME.bytes().zip(text.bytes()).all(same)
    };
    let stem = path.file_stem().and_then(OsStr::to_str).and_then(|stem| name.strip_prefix(stem)?.strip_prefix('-'));
    let time = match path.extension().and_then(OsStr::to_str) {
        None => stem,
        Some(extension) => stem.and_then(|rest| rest.strip_suffix(extension)?.strip_suffix('.')),
    };
    time.is_some_and(like_time)
}

fn compress(path: &Path) -> io::Result<()> {
    let into = with_more(path, COMPRESSED);
    let done = || -> io::Result<()> {
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&into)?;
        let mut encoder = GzEncoder::new(target, Compression::default());
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?.sync_all()
    };
    match done() {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            // Half of a copy is worth nothing, and the original is there.
            fs::remove_file(&into).unwrap_or_default();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_large_log_is_put_aside_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let rotation = Rotation { max_size: Some(10), max_backups: Some(2), ..Rotation::default() };
        assert!(!rotation.is_due(0, 100), "an empty log takes what is larger than it may be");
        assert!(!rotation.is_due(5, 5) && rotation.is_due(6, 5));
        assert!(!Rotation::default().is_due(u64::MAX, 1));
        for name in ["audit.log.bak", "audit-notes.log", "audit-2026-11-21T03-53-00.042.txt"] {
            fs::write(directory.path().join(name), "not ours").unwrap();
        }
        for content in ["one", "two", "three"] {
            fs::write(&path, content).unwrap();
            rotation.tend(&path, &put_aside(&path).unwrap());
        }
        let kept: Vec<_> = names(directory.path()).into_iter().filter(|name| is_ours(&path, name)).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(names(directory.path()).len(), 5);
        let contents: Vec<_> =
            kept.iter().map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
        assert_eq!(contents, ["two", "three"]);
    }

    #[test]
    fn what_is_too_old_goes_and_the_rest_is_compressed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let old = directory.path().join("audit-2020-01-01T00-00-00.000.log.gz");
        fs::write(&old, "old").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        fs::write(&path, "content").unwrap();
        let rotation = Rotation { max_age: Some(Duration::from_secs(60)), compress: true, ..Rotation::default() };
        rotation.tend(&path, &put_aside(&path).unwrap());
        let left = names(directory.path());
        assert!(left.len() == 1 && left[0].ends_with(".log.gz"), "{left:?}");
        let mut content = String::new();
        let file = File::open(directory.path().join(&left[0])).unwrap();
        GzDecoder::new(file).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn a_log_that_cannot_be_moved_stays() {
        let directory = tempfile::tempdir().unwrap();
        assert!(put_aside(&directory.path().join("nowhere.log")).is_err());
    }
}

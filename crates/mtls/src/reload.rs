//! Keys and roots that change while the process runs: read anew by content, never replaced by something broken.
//!
//! Files mounted from Kubernetes Secrets change by a swapped link that file watching misses, so they are simply read
//! again from time to time. The composition root spawns [`Reloading::watch`]; acceptors and connectors ask their
//! [`Source`] for each handshake.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use moorline_model::Fingerprint;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    key_pair::{KeyPair, KeyPairError},
    roots::{Roots, RootsError},
};

/// How long a change of a file must have stood before it is taken, here and by whoever else reads files again. An editor,
/// `cp` and a shell's `>` empty a file before they write it again: a bundle is for a moment a shorter one.
pub const SETTLES: Duration = Duration::from_millis(200);

/// Where the current key pair or roots come from. Cheap to clone; clones see the same changes.
#[derive(Debug)]
pub struct Source<T> {
    current: Arc<ArcSwap<T>>,
}

impl<T> Source<T> {
    /// A source that changes only by [`Source::replace`].
    #[must_use]
    pub fn fixed(value: T) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(value)) }
    }

    /// The value now.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Puts another value in its place, for handshakes from now on.
    pub fn replace(&self, value: T) {
        self.current.store(Arc::new(value));
    }
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current) }
    }
}

impl<T> From<T> for Source<T> {
    fn from(value: T) -> Self {
        Self::fixed(value)
    }
}

/// Why files could not be turned into a value.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The files of a key pair.
    #[error("{}: {reason}", paths(files))]
    KeyPair {
        /// The certificate's and the key's.
        files: Vec<PathBuf>,
        /// What is wrong.
        reason: KeyPairError,
    },
    /// The file of a trust bundle.
    #[error("{}: {reason}", paths(files))]
    Roots {
        /// The one file.
        files: Vec<PathBuf>,
        /// What is wrong.
        reason: RootsError,
    },
}

/// A value that is read from files: [`KeyPair`] and [`Roots`].
pub trait Loaded: sealed::Load {}

impl Loaded for KeyPair {}
impl Loaded for Roots {}

mod sealed {
    use super::{Content, LoadError, PathBuf};

    pub trait Load: Sized + Send + Sync + 'static {
        /// What the value is called in logs.
        const WHAT: &'static str;

        /// Makes the value from the contents of its files, in the order of `files`.
        fn load(files: &[PathBuf], contents: &[Content]) -> Result<Self, LoadError>;
    }
}

impl sealed::Load for KeyPair {
    const WHAT: &'static str = "certificate and key";

    fn load(files: &[PathBuf], contents: &[Content]) -> Result<Self, LoadError> {
        let certificate = contents.first().map_or(&[][..], |content| content.as_slice());
        let key = contents.last().map_or(&[][..], |content| content.as_slice());
        Self::from_pem(certificate, key).map_err(|reason| LoadError::KeyPair { files: files.to_vec(), reason })
    }
}

impl sealed::Load for Roots {
    const WHAT: &'static str = "trust bundle";

    fn load(files: &[PathBuf], contents: &[Content]) -> Result<Self, LoadError> {
        Self::from_pem(contents.first().map_or(&[], |content| content.as_slice()))
            .map_err(|reason| LoadError::Roots { files: files.to_vec(), reason })
    }
}

/// A value that follows its files.
pub struct Reloading<T> {
    source: Source<T>,
    files: Vec<PathBuf>,
    /// The hashes of the contents in use.
    using: Vec<Fingerprint>,
    /// The last failure, so that it is told once.
    failed: Option<String>,
}

impl Reloading<KeyPair> {
    /// Reads a PEM chain and its PEM key, from two files or from one that holds both. Blocks on the files.
    ///
    /// # Errors
    /// [`LoadError`] when there is nothing good to begin with.
    pub fn key_pair(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, LoadError> {
        Self::open(vec![certificate.into(), key.into()])
    }
}

impl Reloading<Roots> {
    /// Reads a PEM bundle. Blocks on the file.
    ///
    /// # Errors
    /// [`LoadError`] when there is nothing good to begin with.
    pub fn roots(bundle: impl Into<PathBuf>) -> Result<Self, LoadError> {
        Self::open(vec![bundle.into()])
    }
}

impl<T: Loaded> Reloading<T> {
    fn open(files: Vec<PathBuf>) -> Result<Self, LoadError> {
        let contents = read(&files)?;
        let value = T::load(&files, &contents)?;
        Ok(Self { source: Source::fixed(value), using: hashes(&contents), failed: None, files })
    }

    /// What acceptors and connectors take.
    #[must_use]
    pub fn source(&self) -> Source<T> {
        self.source.clone()
    }

    /// Looks at the files every `interval`, for ever. To be spawned by the caller, and ended with the process.
    pub async fn watch(mut self, interval: Duration) {
        let mut unsettled = None;
        loop {
            tokio::time::sleep(if unsettled.is_some() { SETTLES } else { interval }).await;
            let files = self.files.clone();
            let reading = tokio::task::spawn_blocking(move || read(&files));
            // It cannot panic and is not aborted; at shutdown there is nobody left to care.
            let Ok(contents) = reading.await else { return };
            let found = contents.as_ref().ok().map(|contents| hashes(contents));
            if found.as_ref().is_none_or(|found| *found == self.using) || found == unsettled {
                unsettled = None;
                self.consider(contents);
            } else {
                unsettled = found;
            }
        }
    }

    /// Looks at the files now. Blocks on them.
    pub fn refresh(&mut self) {
        self.consider(read(&self.files));
    }

    fn consider(&mut self, contents: Result<Vec<Content>, LoadError>) {
        let loaded = contents.and_then(|contents| {
            let hashes = hashes(&contents);
            if hashes == self.using {
                return Ok(None);
            }
            T::load(&self.files, &contents).map(|value| Some((value, hashes)))
        });
        match loaded {
            Ok(None) => self.failed = None,
            Ok(Some((value, hashes))) => {
                self.failed = None;
                self.using = hashes;
                self.source.replace(value);
                tracing::info!(what = T::WHAT, files = %paths(&self.files), "reloaded");
            }
            Err(error) => {
                let text = error.to_string();
                if self.failed.as_ref() != Some(&text) {
                    tracing::warn!(what = T::WHAT, error = %text, "cannot reload; the one before stays in use");
                    self.failed = Some(text);
                }
            }
        }
    }
}

/// A file's content, overwritten after use: it may be a key.
type Content = Zeroizing<Vec<u8>>;

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Content>, LoadError> {
    let one = |path: &PathBuf| {
        std::fs::read(path).map(Content::new).map_err(|error| LoadError::Read { path: path.clone(), error })
    };
    files.iter().map(one).collect()
}

fn hashes(contents: &[Content]) -> Vec<Fingerprint> {
    contents.iter().map(|content| moorline_pki::fingerprint(content)).collect()
}

fn paths(files: &[PathBuf]) -> String {
    let each: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    each.join(" and ")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use moorline_ca::{Authority, Issued};
    use moorline_model::Timestamp;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Files {
        dir: tempfile::TempDir,
        authority: Authority,
    }

    impl Files {
        fn new() -> Self {
            let authority = Authority::generate("test", Timestamp::from(SystemTime::now()), DAY).unwrap();
            Self { dir: tempfile::tempdir().unwrap(), authority }
        }

        fn issue(&self) -> Issued {
            self.authority.issue_user("jane", &[], Timestamp::from(SystemTime::now()), DAY).unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) {
            std::fs::write(self.path(name), content).unwrap();
        }

        fn write_pair(&self, issued: &Issued) {
            self.write("tls.crt", &issued.certificate_pem);
            self.write("tls.key", issued.key_pem.as_bytes());
        }

        fn reloading(&self) -> Result<Reloading<KeyPair>, LoadError> {
            Reloading::key_pair(self.path("tls.crt"), self.path("tls.key"))
        }
    }

    #[test]
    fn follows_a_good_change_and_keeps_the_old_through_a_bad_one() {
        let files = Files::new();
        let (first, second) = (files.issue(), files.issue());
        files.write_pair(&first);
        let mut reloading = files.reloading().unwrap();
        let source = reloading.source();
        let shown = || source.current().fingerprint();
        assert_eq!(shown(), first.fingerprint);

        // Half of the change: the key does not fit yet.
        files.write("tls.crt", &second.certificate_pem);
        reloading.refresh();
        assert_eq!(shown(), first.fingerprint);
        assert!(reloading.failed.as_deref().unwrap().contains("does not belong"), "{:?}", reloading.failed);

        files.write_pair(&second);
        reloading.refresh();
        assert_eq!((shown(), reloading.failed.as_deref()), (second.fingerprint, None));

        for broken in ["", "no PEM", "-----BEGIN CERTIFICATE-----\n"] {
            files.write("tls.crt", broken);
            reloading.refresh();
            assert_eq!(shown(), second.fingerprint);
            assert!(reloading.failed.is_some());
        }
        std::fs::remove_file(files.path("tls.crt")).unwrap();
        reloading.refresh();
        assert!(reloading.failed.as_deref().unwrap().starts_with("cannot read "));
        files.write_pair(&second);
        reloading.refresh();
        assert_eq!((shown(), reloading.failed.as_deref()), (second.fingerprint, None));
    }

    #[test]
    fn the_same_content_is_not_a_change() {
        let files = Files::new();
        files.write("ca.crt", files.authority.certificate_pem());
        let mut reloading = Reloading::roots(files.path("ca.crt")).unwrap();
        let before = reloading.source().current();
        files.write("ca.crt", files.authority.certificate_pem());
        reloading.refresh();
        assert!(Arc::ptr_eq(&before, &reloading.source().current()));
    }

    #[test]
    fn there_must_be_something_good_to_begin_with() {
        let files = Files::new();
        assert!(matches!(files.reloading(), Err(LoadError::Read { .. })));
        let issued = files.issue();
        files.write("tls.crt", &issued.certificate_pem);
        files.write("tls.key", &issued.certificate_pem);
        let error = files.reloading().unwrap_err().to_string();
        assert!(error.contains("tls.crt and ") && error.contains("private key: holds no private key"), "{error}");
        let error = Reloading::roots(files.path("tls.key/none")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }

    /// As a kubelet changes a mounted Secret: a link to a directory is swapped, the files' own paths stay.
    #[test]
    fn follows_a_swapped_directory() {
        let files = Files::new();
        let (first, second) = (files.issue(), files.issue());
        for (version, issued) in [("v1", &first), ("v2", &second)] {
            std::fs::create_dir(files.path(version)).unwrap();
            files.write(&format!("{version}/tls.crt"), &issued.certificate_pem);
            files.write(&format!("{version}/tls.key"), issued.key_pem.as_bytes());
        }
        let data = files.path("data");
        std::os::unix::fs::symlink(files.path("v1"), &data).unwrap();
        let mut reloading = Reloading::key_pair(data.join("tls.crt"), data.join("tls.key")).unwrap();
        std::os::unix::fs::symlink(files.path("v2"), files.path("data.new")).unwrap();
        std::fs::rename(files.path("data.new"), &data).unwrap();
        reloading.refresh();
        assert_eq!(reloading.source().current().fingerprint(), second.fingerprint);
    }

    #[tokio::test]
    async fn watching_sees_a_change() {
        let files = Files::new();
        let (first, second) = (files.issue(), files.issue());
        files.write_pair(&first);
        let reloading = files.reloading().unwrap();
        let source = reloading.source();
        files.write_pair(&second);
        let changed = async {
            while source.current().fingerprint() != second.fingerprint {
                tokio::task::yield_now().await;
            }
        };
        let watching = reloading.watch(Duration::from_millis(1));
        let seen = async {
            tokio::select! {
                () = watching => false,
                () = changed => true,
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), seen).await, Ok(true));
    }
}

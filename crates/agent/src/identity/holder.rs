//! The identity in use: what the next dial shows and believes, and the one place where it changes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_mtls::{KeyPair, Roots, SETTLES, Source};
use tokio::sync::{Semaphore, watch};

use super::{Files, Home, HomeError, InvalidFiles};

/// How often one look at the home waits for that.
const LOOKS: u32 = 10;

/// The identity in use. The key's text is not kept: it is read from the home where it is to be written again.
pub(crate) struct Identity {
    home: Arc<dyn Home>,
    keys: Source<KeyPair>,
    roots: Source<Roots>,
    /// One turn: whoever reads or writes the home has it, so that what is in use is what was kept last.
    turn: Semaphore,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
}

/// What was last seen of the home. A change is a change of this, so that an old copy of it undoes nothing.
struct Seen {
    files: [moorline_model::Fingerprint; 2],
    failed: Option<String>,
}

impl Identity {
    /// Uses `files`, which were read from `home`.
    ///
    /// # Errors
    /// [`InvalidFiles`].
    pub(crate) fn new(home: Arc<dyn Home>, files: &Files) -> Result<Self, InvalidFiles> {
        let (keys, roots) = files.check()?;
        let seen = Mutex::new(Seen { files: hashes(files), failed: None });
        let (keys, roots) = (keys.into(), roots.into());
        Ok(Self { home, keys, roots, turn: Semaphore::new(1), seen, changes: watch::Sender::new(0) })
    }

    /// The certificate and key, for the next dial.
    pub(crate) fn keys(&self) -> Source<KeyPair> {
        self.keys.clone()
    }

    /// The authorities, for the next dial.
    pub(crate) fn roots(&self) -> Source<Roots> {
        self.roots.clone()
    }

    /// Where it is kept.
    pub(crate) fn home(&self) -> &Arc<dyn Home> {
        &self.home
    }

    /// Sees every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes new files of those that are kept, keeps them, and uses them from the next dial on. What does not hold
    /// together is neither kept nor used.
    ///
    /// # Errors
    /// [`HomeError`]; nothing has changed then.
    pub(crate) async fn change(&self, make: impl FnOnce(Files) -> Files + Send) -> Result<(), HomeError> {
        let _turn = self.turn.acquire().await;
        let files = make(self.settled().await?);
        let checked = files.check().map_err(|reason| HomeError::Invalid { place: self.home.place(), reason })?;
        self.home.save(&files).await?;
        self.put(Seen { files: hashes(&files), failed: None }, checked);
        Ok(())
    }

    /// Looks whether somebody else has changed what is kept, and uses it if it is good and stands for a moment.
    pub(crate) async fn refresh(&self) {
        let _turn = self.turn.acquire().await;
        let loaded = self.settled().await.and_then(|files| {
            let checked = files.check().map_err(|reason| HomeError::Invalid { place: self.home.place(), reason })?;
            Ok((hashes(&files), checked))
        });
        match loaded {
            Ok((files, _)) if files == self.seen().files => self.seen().failed = None,
            Ok((files, checked)) => {
                self.put(Seen { files, failed: None }, checked);
                tracing::info!(place = self.home.place(), "the certificate or the authorities were replaced: reloaded");
            }
            Err(error) => {
                let text = error.to_string();
                let told = self.seen().failed.replace(text.clone());
                if told.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "cannot reload the certificate; the one before stays in use");
                }
            }
        }
    }

    /// Looks every `interval`, for ever. To be spawned by the caller, and ended with the process.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            self.refresh().await;
        }
    }

    /// What is kept; if it is not what was seen last, then once it has stood for a moment.
    async fn settled(&self) -> Result<Files, HomeError> {
        let mut before = None;
        for _look in 0..LOOKS {
            let files = self.home.load().await?;
            let found = hashes(&files);
            if found == self.seen().files || before.replace(found) == Some(found) {
                return Ok(files);
            }
            tokio::time::sleep(SETTLES).await;
        }
        Err(HomeError::Other(format!("{}: somebody keeps changing it", self.home.place())))
    }

    fn put(&self, seen: Seen, (keys, roots): (KeyPair, Roots)) {
        *self.seen() = seen;
        if keys.fingerprint() != self.keys.current().fingerprint() {
            self.keys.replace(keys);
        }
        self.roots.replace(roots);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hashes(files: &Files) -> [moorline_model::Fingerprint; 2] {
    // The key needs no hash of its own: it belongs to the certificate, or nothing is used.
    [&files.certificate_pem, &files.roots_pem].map(|pem| moorline_pki::fingerprint(pem.as_bytes()))
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("home", &self.home).field("keys", &self.keys.current()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{
        Later,
        directory::tests::{authority, files},
    };

    /// A home that somebody writes to: each look finds the next of these, and the last one from then on.
    #[derive(Debug)]
    struct Written {
        looks: Mutex<Vec<Files>>,
        kept: Mutex<Option<Files>>,
    }

    impl Home for Written {
        fn load(&self) -> Later<'_, Files> {
            let mut looks = self.looks.lock().unwrap();
            let found = if looks.len() > 1 { looks.remove(0) } else { looks[0].clone() };
            Box::pin(async { Ok(found) })
        }

        fn save<'a>(&'a self, files: &'a Files) -> Later<'a, ()> {
            *self.kept.lock().unwrap() = Some(files.clone());
            Box::pin(async { Ok(()) })
        }

        fn writable(&self) -> Later<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn place(&self) -> String {
            "a test".to_owned()
        }
    }

    /// An identity of one authority, and the same while the authorities are rewritten in place: the new one, then both.
    fn rewritten() -> (Files, Files, Files) {
        let (old, new) = (authority(), authority());
        let before = files(&old);
        let half = Files { roots_pem: new.certificate_pem().to_owned(), ..before.clone() };
        let whole = Files { roots_pem: format!("{}{}", half.roots_pem, before.roots_pem), ..before.clone() };
        (before, half, whole)
    }

    fn identity(before: &Files, looks: &[&Files]) -> (Identity, Arc<Written>) {
        let looks = Mutex::new(looks.iter().map(|&files| files.clone()).collect());
        let home = Arc::new(Written { looks, kept: Mutex::default() });
        (Identity::new(Arc::<Written>::clone(&home), before).unwrap(), home)
    }

    fn believed(identity: &Identity) -> usize {
        identity.roots().current().certificates().len()
    }

    #[tokio::test(start_paused = true)]
    async fn authorities_that_are_just_written_are_used_when_they_are_whole() {
        let (before, half, whole) = rewritten();
        let (identity, _home) = identity(&before, &[&half, &whole]);
        let changes = identity.changes();
        identity.refresh().await;
        assert_eq!((believed(&identity), *changes.borrow()), (2, 1), "both, and at no time the half of them");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_made_of_whole_authorities() {
        let (before, half, whole) = rewritten();
        let (identity, home) = identity(&before, &[&half, &whole]);
        let address = Some("hub.example.com:9449".to_owned());
        identity.change(|files| Files { address, ..files }).await.unwrap();
        assert!(home.kept.lock().unwrap().as_ref().unwrap().roots_pem == whole.roots_pem);
        assert_eq!(believed(&identity), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_settles_is_not_used() {
        let (before, half, whole) = rewritten();
        let restless: Vec<_> = [&half, &whole].into_iter().cycle().take(2 * LOOKS as usize).collect();
        let (identity, home) = identity(&before, &restless);
        identity.refresh().await;
        identity.change(|files| files).await.unwrap_err();
        assert_eq!((believed(&identity), *identity.changes().borrow()), (1, 0));
        assert!(home.kept.lock().unwrap().is_none());
    }
}

//! The tokens that are kept between one kubectl and the next: one private file for each issuer, client and scopes, and a
//! lock beside it. Called by `login`.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_process::private_file::{is_exposed, private_dir, write_private};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{id_token::now, provider::Tokens};
use crate::{args::IssuerArgs, failure::Failure};

/// How long before its end a token is replaced, in seconds: what a request may take to the gateway, and clocks differ.
const MARGIN: i64 = 10;

/// How long another process may hold the lock: for a refresh, not for somebody who logs in slowly.
const LOCK_WITHIN: Duration = Duration::from_secs(60);

const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What is kept. No `Debug`: these are secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) id_token: String,
    /// In seconds since 1970.
    expires: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
}

impl Kept {
    /// What came; with the refresh token that was used, where no new one came.
    pub(super) fn of(tokens: Tokens, used: Option<String>) -> Self {
        let Tokens { id_token, expires, refresh_token } = tokens;
        Self { id_token, expires, refresh_token: refresh_token.or(used) }
    }

    /// When it is to be replaced, in seconds since 1970.
    pub(crate) const fn replace_at(&self) -> i64 {
        self.expires.saturating_sub(MARGIN)
    }

    pub(super) fn counts(&self) -> bool {
        now() < self.replace_at()
    }
}

/// Where tokens are kept.
pub(super) struct Store {
    file: PathBuf,
}

/// A store that nobody else writes to, until this is dropped.
pub(super) struct Locked {
    file: PathBuf,
    _lock: File,
}

impl Store {
    /// The store of that issuer, client and scopes, in the user's cache directory.
    pub(super) fn of(args: &IssuerArgs) -> Result<Self, Failure> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        let cache =
            cache.ok_or_else(|| Failure::bad_input(["there is no home directory to keep tokens in".to_owned()]))?;
        Self::in_dir(&cache.join("moorline").join("tokens"), args)
    }

    fn in_dir(dir: &Path, args: &IssuerArgs) -> Result<Self, Failure> {
        private_dir(dir).map_err(|error| Failure::because("tokens cannot be kept", &error))?;
        let mut hash = Sha256::new();
        for part in [&args.issuer_url, &args.client_id].into_iter().chain(&args.scopes) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file: dir.join(name + ".json") })
    }

    /// What is kept, if it can be read and nobody else could.
    pub(super) fn read(&self) -> Option<Kept> {
        if is_exposed(&self.file).ok()? {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.file).ok()?).ok()
    }

    /// Waits until no other process refreshes the same tokens.
    pub(super) async fn lock(&self) -> Result<Locked, Failure> {
        let path = self.file.with_extension("lock");
        let wrong = |error: &std::io::Error| Failure::because(&format!("cannot lock {}", path.display()), error);
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = options.map_err(|error| wrong(&error))?;
        let give_up = Instant::now() + LOCK_WITHIN;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Locked { file: self.file.clone(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::failed("another moorline is logging in with this issuer")
                        .hint("finish that login, or end it, and try again"));
                }
                Err(TryLockError::Error(error)) => return Err(wrong(&error)),
            }
        }
    }
}

impl Locked {
    /// Replaces what is kept, whole or not at all.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), Failure> {
        let text = serde_json::to_vec(kept).map_err(|error| Failure::because("tokens cannot be kept", &error))?;
        write_private(&self.file, &text).map_err(|error| Failure::because("tokens cannot be kept", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::args::Grant;

    fn args(client_id: &str, scopes: &[&str]) -> IssuerArgs {
        IssuerArgs {
            issuer_url: "https://a.example".to_owned(),
            client_id: client_id.to_owned(),
            issuer_certificate_authority: None,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            grant: Grant::Authcode,
        }
    }

    fn kept(seconds: i64) -> Kept {
        Kept { id_token: "t".to_owned(), expires: now() + seconds, refresh_token: Some("r".to_owned()) }
    }

    #[tokio::test]
    async fn tokens_are_kept_private_and_each_for_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new").join("tokens");
        let store = Store::in_dir(&dir, &args("us", &[])).unwrap();
        assert!(store.read().is_none());
        store.lock().await.unwrap().write(&kept(60)).unwrap();
        assert!(store.read().unwrap().counts());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&store.file)), (0o700, 0o600));
        for other in [args("them", &[]), args("us", &["groups"]), args("u", &["s"])] {
            assert!(Store::in_dir(&dir, &other).unwrap().read().is_none(), "{other:?}");
        }
        fs::set_permissions(&store.file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(store.read().is_none(), "somebody else may have read or written it");
        store.lock().await.unwrap().write(&kept(60)).unwrap();
        assert_eq!(mode(&store.file), 0o600);
    }

    #[test]
    fn a_token_near_its_end_is_replaced() {
        assert!(kept(60).counts());
        assert!(!kept(MARGIN - 1).counts() && !kept(-60).counts());
        let tokens = || Tokens { id_token: "new".to_owned(), expires: 1, refresh_token: None };
        assert_eq!(Kept::of(tokens(), Some("used".to_owned())).refresh_token.as_deref(), Some("used"));
        let rotated = Tokens { refresh_token: Some("next".to_owned()), ..tokens() };
        assert_eq!(Kept::of(rotated, Some("used".to_owned())).refresh_token.as_deref(), Some("next"));
    }

    #[tokio::test]
    async fn one_at_a_time_refreshes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(dir.path(), &args("us", &[])).unwrap();
        let first = store.lock().await.unwrap();
        let mut second = Box::pin(store.lock());
        tokio::time::timeout(LOCK_PAUSE * 3, &mut second).await.err().expect("it waits");
        drop(first);
        drop(second.await.unwrap());
    }
}

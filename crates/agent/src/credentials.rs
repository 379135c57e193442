//! The agent's own token for the kube-apiserver: read from a file that Kubernetes rotates, or given once.
//!
//! Read by `serve::upstream` for each request. [`Credentials::watch`] reads the file again once a minute, and soon after
//! the kube-apiserver said 401. The token is in no log, no error and no `Debug`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use http::HeaderValue;
use thiserror::Error;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// How often the file is read. kubelet replaces a service-account token when a fifth of its hour or more is left.
const REREAD: Duration = Duration::from_secs(60);

/// The shortest pause between two readings, however often the kube-apiserver refuses.
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// The largest token file read, in bytes. Service-account tokens have about one thousand.
const MAX_TOKEN: u64 = 64 * 1024;

/// Where the token comes from.
#[derive(Clone)]
pub(crate) enum TokenSource {
    /// No token: a client certificate, or a demo without authentication.
    None,
    /// Given once, by a kubeconfig.
    Fixed(HeaderValue),
    /// A file, read again and again.
    File(PathBuf),
}

/// Why a token cannot be used. The token itself is never shown.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The file is far larger than any token.
    #[error("is larger than {MAX_TOKEN} bytes: no token")]
    TooLarge,
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Characters that cannot stand in a header.
    #[error("holds characters that no token has (a binary file? several lines?)")]
    Characters,
}

/// The credential in use.
pub(crate) struct Credentials {
    file: Option<PathBuf>,
    bearer: RwLock<Option<HeaderValue>>,
    rejected: Notify,
    metrics: Arc<Metrics>,
}

/// A header from a token.
///
/// # Errors
/// When it is empty, or no token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, TokenError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Characters);
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_invalid| TokenError::Characters)?;
    header.set_sensitive(true);
    Ok(header)
}

/// The service account whose token this is, by what the token says of itself: unverified, and good for nothing but to
/// deny that account to others.
pub(crate) fn account(header: &HeaderValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let token = header.to_str().ok()?.strip_prefix("Bearer ")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { sub } = serde_json::from_slice(&claims).ok()?;
    sub.starts_with("system:serviceaccount:").then_some(sub)
}

/// A header from a token file.
///
/// # Errors
/// When the file cannot be read or holds no token.
pub(crate) fn read_bearer(path: &Path) -> Result<HeaderValue, TokenError> {
    let size = fs::metadata(path).map_err(TokenError::Read)?.len();
    if size > MAX_TOKEN {
        return Err(TokenError::TooLarge);
    }
    bearer(&fs::read_to_string(path).map_err(TokenError::Read)?)
}

impl TokenSource {
    /// The service account whose token it gives now, if it says so. Blocks on the file.
    pub(crate) fn account(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Fixed(header) => account(header),
            Self::File(path) => account(&read_bearer(path).ok()?),
        }
    }
}

impl Credentials {
    /// Starts with what the source gives now.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub(crate) fn new(source: TokenSource, metrics: Arc<Metrics>) -> Result<Self, TokenError> {
        let (file, first) = match source {
            TokenSource::None => (None, None),
            TokenSource::Fixed(header) => (None, Some(header)),
            TokenSource::File(path) => {
                let first = read_bearer(&path)?;
                (Some(path), Some(first))
            }
        };
        Ok(Self { file, bearer: RwLock::new(first), rejected: Notify::new(), metrics })
    }

    /// The value of the `Authorization` header, if a token is used.
    pub(crate) fn bearer(&self) -> Option<HeaderValue> {
        self.bearer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kube-apiserver did not accept the token: a new one may be there.
    pub(crate) fn rejected(&self) {
        self.rejected.notify_one();
    }

    /// Reads the file again and again, for ever. To be spawned by the caller. A file that cannot be read leaves the old
    /// token in use.
    pub(crate) async fn watch(self: Arc<Self>) {
        let Some(path) = self.file.clone() else { return };
        loop {
            tokio::time::sleep(LEAST_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(REREAD) => {}
                () = self.rejected.notified() => {}
            }
            self.reread(&path);
        }
    }

    /// Blocks for as long as reading a kilobyte from memory-backed storage takes.
    fn reread(&self, path: &Path) {
        match read_bearer(path) {
            Ok(fresh) => {
                let mut bearer = self.bearer.write().unwrap_or_else(PoisonError::into_inner);
                let changed = bearer.as_ref() != Some(&fresh);
                *bearer = Some(fresh);
                drop(bearer);
                if changed {
                    tracing::info!(file = %path.display(), "the token was rotated");
                    self.metrics.token_reloaded("changed");
                }
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the token file cannot be used; going on with the last token");
                self.metrics.token_reloaded("failed");
            }
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("file", &self.file).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("Fixed"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_process::Registry;

    use super::*;

    #[test]
    fn tokens_are_checked_and_do_not_print() {
        assert!(matches!(bearer(" \n"), Err(TokenError::Empty)));
        assert!(matches!(bearer("two\nlines"), Err(TokenError::Characters)));
        assert!(matches!(bearer("sp ace"), Err(TokenError::Characters)));
        let header = bearer("eyJhbGciOi.s3cret\n").unwrap();
        assert_eq!(header.as_bytes(), b"Bearer eyJhbGciOi.s3cret");
        assert!(!format!("{header:?} {:?}", TokenSource::Fixed(header.clone())).contains("s3cret"));
    }

    #[test]
    fn a_token_tells_whose_it_is() {
        let of = |claims: &str| account(&bearer(&format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims))).unwrap());
        let agent = "system:serviceaccount:moorline:moorline-agent";
        assert_eq!(of(&format!(r#"{{"sub":"{agent}","aud":["x"]}}"#)).as_deref(), Some(agent));
        assert_eq!(of(r#"{"sub":"ann"}"#), None);
        assert_eq!(of("no JSON"), None);
        assert_eq!(account(&bearer("opaque").unwrap()), None);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, format!("h.{}.s\n", URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{agent}"}}"#)))).unwrap();
        assert_eq!(TokenSource::File(path).account().as_deref(), Some(agent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_file_is_noticed_and_a_broken_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "one").unwrap();
        let metrics = Arc::new(Metrics::new(&Registry::new("test", "0")));
        let credentials = Arc::new(Credentials::new(TokenSource::File(path.clone()), metrics).unwrap());
        let current = || String::from_utf8(credentials.bearer().unwrap().as_bytes().to_vec()).unwrap();
        let mut watching = Box::pin(Arc::clone(&credentials).watch());
        let mut pass = async |time: Duration| {
            tokio::time::timeout(time, &mut watching).await.unwrap_err();
        };
        assert_eq!(current(), "Bearer one");
        fs::write(&path, "two").unwrap();
        pass(REREAD + LEAST_PAUSE).await;
        assert_eq!(current(), "Bearer two");
        fs::remove_file(&path).unwrap();
        pass(REREAD + LEAST_PAUSE).await;
        assert_eq!(current(), "Bearer two");
        fs::write(&path, "three").unwrap();
        credentials.rejected();
        pass(LEAST_PAUSE * 2).await;
        assert_eq!(current(), "Bearer three", "a refusal is a reason to look at once");
    }
}

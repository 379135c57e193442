//! Tokens, policies and services that change while the server runs: read anew by content, never replaced by something broken.
//!
//! The composition root loads them at the start and spawns [`watch`]; the configuration uses the checks. (Certificates
//! reload by `moorline_mtls::Reloading`.)

use std::{
    fs, io,
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_access::{Policy, StaticTokens};
use moorline_ca::Zeroizing;
use moorline_model::Fingerprint;
use moorline_mtls::{KeyPair, Roots, SETTLES};

use crate::{
    config::{KeyFiles, Problem, Problems},
    metrics::Metrics,
    services::catalog,
    state::State,
};

/// More than any table of tokens or policy that can be read has; a larger file is a mistake.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A value that is read from a file, with the hash of what it was read from.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub(crate) value: T,
    hash: Fingerprint,
}

/// Reads the table of tokens. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn tokens(path: &Path) -> Result<Read<StaticTokens>, Problems> {
    load(path, StaticTokens::parse)
}

/// Reads the policy. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn policy(path: &Path) -> Result<Read<Policy>, Problems> {
    load(path, Policy::parse)
}

/// Reads which requests leave an audit event. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn audit_policy(path: &Path) -> Result<Read<moorline_audit::Policy>, Problems> {
    load(path, moorline_audit::Policy::parse)
}

/// A file, and the hash of what is in use of it.
pub(crate) type InUse = (std::path::PathBuf, Fingerprint);

/// The files that are looked at again, besides [`State::token_file`].
pub(crate) struct Files {
    pub(crate) policy: InUse,
    pub(crate) audit_policy: Option<InUse>,
    pub(crate) services: Option<InUse>,
}

/// Looks at the files every `interval`, for ever. To be spawned, and ended with the process.
pub(crate) async fn watch(state: Arc<State>, files: Files, interval: Duration) {
    let mut tokens_watch = Watch::new("tokens", token_file(&state).clone());
    let mut policy_watch = Watch::new("policy", files.policy);
    let mut audit_watch = files.audit_policy.map(|file| Watch::new("audit policy", file));
    let mut services_watch = files.services.map(|file| Watch::new("services", file));
    let mut pause = interval;
    loop {
        tokio::time::sleep(pause).await;
        let shared = Arc::clone(&state);
        let looked = state.tasks.spawn_blocking("reload", move || {
            {
                let mut in_use = token_file(&shared);
                // Users made and revoked here changed it as well.
                tokens_watch.using = in_use.1;
                if let Some(value) = tokens_watch.look(&shared.metrics, tokens) {
                    in_use.1 = tokens_watch.using;
                    shared.tokens.store(Arc::new(value));
                }
            }
            if let Some(value) = policy_watch.look(&shared.metrics, policy) {
                shared.policy.store(Arc::new(value));
            }
            let audit_value = audit_watch.as_mut().and_then(|watch| watch.look(&shared.metrics, audit_policy));
            if let (Some(value), Some(audit)) = (audit_value, &shared.audit) {
                audit.replace(value);
            }
            if let Some(value) = services_watch.as_mut().and_then(|watch| watch.look(&shared.metrics, catalog::load)) {
                shared.services.offer(value);
            }
            (tokens_watch, policy_watch, audit_watch, services_watch)
        });
        // A panic was logged by the task itself; what is in use stays in use.
        let Ok(back) = looked.await else { return };
        (tokens_watch, policy_watch, audit_watch, services_watch) = back;
        let required = [&tokens_watch, &policy_watch].into_iter();
        let mut all = required.chain(&audit_watch).chain(&services_watch);
        pause = if all.any(|watch| watch.unsettled.is_some()) { SETTLES } else { interval };
    }
}

/// The table of tokens in use, which nobody changes meanwhile.
pub(crate) fn token_file(state: &State) -> MutexGuard<'_, InUse> {
    state.token_file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Read<T> {
    /// A value, and the hash of everything that it was read from.
    pub(crate) fn new(value: T, hash: Fingerprint) -> Self {
        Self { value, hash }
    }

    /// The hash of the file's content, for [`watch`].
    pub(crate) fn hash(&self) -> Fingerprint {
        self.hash
    }
}

struct Watch {
    what: &'static str,
    path: std::path::PathBuf,
    using: Fingerprint,
    /// Why the file cannot be used, as it was told.
    failed: Option<String>,
    /// What the last look found that is neither in use nor told, and may be half written.
    unsettled: Option<Found>,
}

/// The hash of what is in a file, or what is wrong with it.
type Found = Result<Fingerprint, String>;

impl Watch {
    fn new(what: &'static str, (path, using): (std::path::PathBuf, Fingerprint)) -> Self {
        Self { what, path, using, failed: None, unsettled: None }
    }

    /// The new value, if the file has changed to something good and two looks found the same: an empty table of tokens is a
    /// valid one that knows nobody. What is wrong is told once.
    fn look<T>(&mut self, metrics: &Metrics, load: fn(&Path) -> Result<Read<T>, Problems>) -> Option<T> {
        let (found, value) = match load(&self.path) {
            Ok(read) => (Ok(read.hash), Some(read.value)),
            Err(problems) => (Err(problems.to_string()), None),
        };
        if self.knows(&found) {
            self.unsettled = None;
            return None;
        }
        if self.unsettled.as_ref() != Some(&found) {
            self.unsettled = Some(found);
            return None;
        }
        self.unsettled = None;
        let file = self.path.display();
        match found {
            Ok(hash) => {
                (self.failed, self.using) = (None, hash);
                metrics.reloaded("changed");
                tracing::info!(what = self.what, %file, "reloaded");
            }
            Err(text) => {
                metrics.reloaded("refused");
                tracing::warn!(what = self.what, %file, problems = text, "cannot reload; the one before stays in use");
                self.failed = Some(text);
            }
        }
        value
    }

    /// Whether it is what is in use, or what was told before.
    fn knows(&mut self, found: &Found) -> bool {
        match found {
            Ok(hash) if *hash == self.using => {
                self.failed = None;
                true
            }
            Ok(_changed) => false,
            Err(text) => self.failed.as_ref() == Some(text),
        }
    }
}

/// Whether a file holds a table of tokens.
pub(crate) fn check_tokens(path: &Path) -> Result<(), Problems> {
    tokens(path).map(drop)
}

/// Whether a file holds a policy.
pub(crate) fn check_policy(path: &Path) -> Result<(), Problems> {
    policy(path).map(drop)
}

/// Whether a file holds an audit policy.
pub(crate) fn check_audit_policy(path: &Path) -> Result<(), Problems> {
    audit_policy(path).map(drop)
}

/// Whether a file holds a table of services whose files are there and good.
pub(crate) fn check_services(path: &Path) -> Result<(), Problems> {
    catalog::load(path).map(drop)
}

/// Whether a file holds a trust bundle.
pub(crate) fn check_roots(path: &Path) -> Result<(), Problems> {
    let pem = read(path)?;
    let remedy = "write the certificates of one or several authorities in PEM";
    Roots::from_pem(pem.as_bytes()).map(drop).map_err(|error| problem(path, error.to_string(), remedy).into())
}

/// Whether two files hold a certificate and its key, in its time.
pub(crate) fn check_keys(files: &KeyFiles) -> Result<(), Problem> {
    let remedy = "give a PEM chain, leaf first, by --tls-cert-file and its PEM key by --tls-private-key-file";
    let at = |path: &Path, error: &io::Error| problem(path, format!("cannot be read: {error}"), remedy);
    let certificate = fs::read(&files.certificate).map_err(|error| at(&files.certificate, &error))?;
    let key = Zeroizing::new(fs::read(&files.key).map_err(|error| at(&files.key, &error))?);
    let pair = KeyPair::from_pem(&certificate, &key)
        .map_err(|error| problem(&files.certificate, error.to_string(), remedy))?;
    pair.check_validity(crate::clock::now())
        .map_err(|error| problem(&files.certificate, format!("the certificate is {error}"), remedy))
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

fn load<T>(path: &Path, parse: fn(&str) -> Result<T, moorline_access::Problems>) -> Result<Read<T>, Problems> {
    let text = Zeroizing::new(read(path)?);
    let hash = moorline_pki::fingerprint(text.as_bytes());
    match parse(&text) {
        Ok(value) => Ok(Read { value, hash }),
        Err(problems) => {
            let file = path.display();
            let each = problems.into_iter();
            Err(Problems(
                each.map(|found| Problem {
                    at: format!("{file}: {}", found.at),
                    what: found.what,
                    remedy: found.remedy,
                })
                .collect(),
            ))
        }
    }
}

/// A file of tokens or policy as text. Blocks.
///
/// # Errors
/// It cannot be read, or is too large to be one.
pub(crate) fn read(path: &Path) -> Result<String, Problems> {
    let remedy = "name a file that this user can read";
    let size = fs::metadata(path).map_err(|error| problem(path, format!("cannot be read: {error}"), remedy))?.len();
    if size > MAX_FILE {
        return Err(problem(path, format!("has {size} bytes, more than the {MAX_FILE} allowed"), remedy).into());
    }
    fs::read_to_string(path).map_err(|error| problem(path, format!("cannot be read: {error}"), remedy).into())
}

/// The same, once what somebody else has just written there has stood: it would be lost to who replaces the file by what is
/// half there. Blocks, also for [`SETTLES`].
///
/// # Errors
/// It cannot be read, is too large, or changes all the time.
#[expect(clippy::disallowed_methods, reason = "a pause between two looks, on a thread for blocking work")]
pub(crate) fn standing((path, in_use): &InUse) -> Result<Zeroizing<String>, Problems> {
    const TRIES: usize = 10;
    let mut before = Zeroizing::new(read(path)?);
    if moorline_pki::fingerprint(before.as_bytes()) == *in_use {
        return Ok(before);
    }
    for _ in 0..TRIES {
        std::thread::sleep(SETTLES);
        let now = Zeroizing::new(read(path)?);
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err(problem(path, "is being changed all the time", "replace it as a whole, or let it rest").into())
}

fn problem(path: &Path, what: impl Into<String>, remedy: &str) -> Problem {
    Problem { at: path.display().to_string(), what: what.into(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use moorline_mux::MemoryBudget;
    use moorline_process::Registry;

    use super::*;

    fn looked(watch: &mut Watch, metrics: &Metrics) -> Option<usize> {
        watch.look(metrics, tokens).map(|table| table.users().count())
    }

    #[test]
    fn what_may_be_half_written_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.csv");
        let write = |table: &str| fs::write(&path, table).unwrap();
        write("one,ann,1\n");
        let metrics = Metrics::new(&Registry::new("test", "0"), &MemoryBudget::new(0));
        let mut watch = Watch::new("tokens", (path.clone(), tokens(&path).unwrap().hash()));
        let mut look = || looked(&mut watch, &metrics);
        assert_eq!((look(), look()), (None, None));

        // Emptied, half written, whole.
        for table in ["", "one,ann,1\ntwo", "one,ann,1\ntwo,bob,2\n"] {
            write(table);
            assert_eq!(look(), None, "{table:?}");
        }
        assert_eq!((look(), look()), (Some(2), None));

        write("");
        assert_eq!(look(), None);
        write("one,ann,1\ntwo,bob,2\n");
        assert_eq!((look(), look()), (None, None), "it is as it was");

        write("");
        assert_eq!((look(), look(), look()), (None, Some(0), None), "who empties it for good gets that");

        let in_use = (path.clone(), watch.using);
        assert_eq!(standing(&in_use).unwrap().as_str(), "", "as it is in use");
        write("one,ann,1\n");
        assert_eq!(standing(&in_use).unwrap().as_str(), "one,ann,1\n", "it stood");

        write("broken");
        assert_eq!((looked(&mut watch, &metrics), &watch.failed), (None, &None));
        assert_eq!(looked(&mut watch, &metrics), None);
        assert!(watch.failed.is_some() && watch.unsettled.is_none());
    }
}

//! The agent's configuration: as written ([`RawConfig`]), as meant ([`Config`]), and everything that is wrong between
//! the two, told at once.
//!
//! Made by `main` and by the command line's quickstart; taken apart by `app`, each component getting its own part. This
//! is the only place that reads the environment, and apart from what reloads, the only one that reads files.

mod acting;
mod join;
mod kubeconfig;
mod narrowing;
mod raw;
mod resolve;
mod services;
mod upstream;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use moorline_model::Timestamp;
use moorline_mtls::{KeyPair, Reloading, Roots};
use thiserror::Error;

pub use acting::ActingFlags;
pub use join::RawJoin;
pub(crate) use join::{Shown, home, join, join_at_start};
pub use raw::RawConfig;

use crate::{
    connection,
    credentials::TokenSource,
    identity::{Files, Identity, Secret},
    serve, services as offered, tunnel,
};

/// The configuration as meant: complete and checked.
#[derive(Debug)]
pub struct Config {
    pub(crate) tunnel: tunnel::Config,
    pub(crate) connection: connection::Config,
    /// Where the identity is kept, if not in a directory.
    pub(crate) secret: Option<Arc<Secret>>,
    pub(crate) serve: serve::Config,
    pub(crate) services: offered::Config,
    pub(crate) upstream: serve::upstream::Config,
    pub(crate) token: TokenSource,
    /// Every certificate and authority that was named by its file: the tunnel's, the kube-apiserver's, the proxy's.
    pub(crate) followed: Vec<Followed>,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) drain_grace: Duration,
    /// What is allowed but should not stay so.
    pub(crate) warnings: Vec<String>,
}

/// Files that are read again as they are rotated. As client-go does, whatever of a kubeconfig stands in a file of its
/// own is followed, and the kubeconfig itself is not.
#[derive(Debug)]
pub(crate) enum Followed {
    /// A certificate and its key.
    Keys(Reloading<KeyPair>),
    /// Authorities.
    Roots(Reloading<Roots>),
    /// The agent's own certificate, key and authorities, wherever they are kept.
    Identity(Arc<Identity>),
}

impl Followed {
    /// Looks at the files every `interval`, for ever.
    pub(crate) async fn watch(self, interval: Duration) {
        match self {
            Self::Keys(keys) => keys.watch(interval).await,
            Self::Roots(roots) => roots.watch(interval).await,
            Self::Identity(identity) => identity.watch(interval).await,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag, file or variable.
    pub field: String,
    /// What is wrong with it, with the value unless that is secret.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Error)]
#[error("{}", lines(.0))]
pub struct ConfigError(Vec<Problem>);

/// Where a configuration is read: everything outside of the flags that it depends on.
pub struct Surroundings<'a> {
    /// Environment variables by name.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Where Kubernetes mounts a pod's service account.
    pub service_account: PathBuf,
    /// The time by which certificates are judged.
    pub now: Timestamp,
}

impl Config {
    /// Reads the environment and all files that the flags name, and checks everything.
    ///
    /// # Errors
    /// All problems together.
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Self::starting_with(raw, None)
    }

    /// As [`Config::from_raw`], with an identity that is known before it is where the flags say: of an agent that has
    /// just joined, while kubelet has not brought its Secret into the directory yet.
    ///
    /// # Errors
    /// All problems together.
    pub fn starting_with(raw: &RawConfig, identity: Option<Files>) -> Result<Self, ConfigError> {
        in_environment(|around| resolve::resolve(raw, around, identity))
    }

    /// As [`Config::from_raw`], in given surroundings.
    ///
    /// # Errors
    /// All problems together.
    pub fn resolve(raw: &RawConfig, surroundings: &Surroundings<'_>) -> Result<Self, ConfigError> {
        resolve::resolve(raw, surroundings, None)
    }
}

/// What is read of the process's environment.
pub(crate) fn in_environment<T>(read: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    #[expect(clippy::disallowed_methods, reason = "this is the configuration")]
    let variable = |name: &str| std::env::var(name).ok();
    read(&Surroundings { variable: &variable, service_account: PathBuf::from(upstream::SERVICE_ACCOUNT), now: now() })
}

impl ConfigError {
    /// The problems, in the order of the flags.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.what, self.remedy)
    }
}

fn lines(problems: &[Problem]) -> String {
    let each: Vec<_> = problems.iter().map(ToString::to_string).collect();
    each.join("\n")
}

/// The time of the wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Gathers problems while the rest is looked at.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// The error, if there is any problem.
    pub(crate) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError(self.0)) }
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem { field: field.into(), what: what.into(), remedy: remedy.into() });
    }
}

#[cfg(test)]
mod tests;

//! What every store of clusters can do: the little that [`super::Clusters`] builds its changes from.
//!
//! A store keeps records and tells when somebody else was quicker. Which changes are allowed, and what follows from
//! them, is decided above it, once for all stores; `promises` holds every store to the same behaviour.

pub(crate) mod embedded;
pub(crate) mod objects;

use std::pin::Pin;

use moorline_model::{ClusterName, ClusterRecord, Fingerprint};
use thiserror::Error;

/// What a store is asked takes its time.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFailure>> + Send + 'a>>;

/// Keeps records. What an answer says was done is durable.
pub(crate) trait Store: Send + Sync {
    /// Keeps a new record, and gives it back as it is kept: the time of its creation may be the store's own.
    fn create(&self, record: ClusterRecord) -> Pending<'_, Kept>;

    /// The record of a cluster.
    fn get<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>>;

    /// All records, by name.
    fn list(&self) -> Pending<'_, Vec<Kept>>;

    /// Puts `after` in the place of a record that was read before, unless that has changed meanwhile. The name, the uid
    /// and the time of creation are the same in both.
    fn replace(&self, before: Kept, after: ClusterRecord) -> Pending<'_, Kept>;

    /// Removes a record, and gives back what it was.
    fn delete<'a>(&'a self, name: &'a ClusterName) -> Pending<'a, Option<Kept>>;
}

/// A record as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The record.
    pub(crate) record: ClusterRecord,
    /// Which state of it.
    pub(crate) version: Version,
}

/// Tells states of one record apart, where somebody besides this server may change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// Which object of that name it is.
    pub(crate) object: String,
    /// Which state of it.
    pub(crate) state: String,
}

impl Version {
    /// Whether this state is older than another one of the same object. States that are no numbers are never older.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        let number = |version: &Self| version.state.parse::<u64>().ok();
        self.object == other.object && number(self).zip(number(other)).is_some_and(|(this, that)| this < that)
    }
}

/// Why a store did not do what it was asked. Nothing was written, unless it was [`StoreFailure::Unavailable`], which
/// cannot tell.
#[derive(Debug, Error)]
pub(crate) enum StoreFailure {
    /// The name is in use.
    #[error("the cluster {0} exists already")]
    Exists(ClusterName),
    /// The record is gone.
    #[error("there is no cluster {0}")]
    Gone(ClusterName),
    /// Somebody else was quicker.
    #[error("the cluster {0} was changed by somebody else meanwhile")]
    Conflict(ClusterName),
    /// A certificate stands for another cluster.
    #[error("the certificate {fingerprint} belongs to the cluster {owner} already")]
    FingerprintTaken {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// Whose it is.
        owner: ClusterName,
    },
    /// The store cannot be asked now; it may be later.
    #[error("{0}")]
    Unavailable(String),
    /// The store failed, or does not take what it was given.
    #[error("{0}")]
    Failed(String),
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;

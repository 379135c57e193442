//! What can go wrong with the store, one type for each operation.

use std::{io, path::PathBuf};

use moorline_model::{ClusterName, Fingerprint};
use thiserror::Error;

/// Why the store's file cannot be used. The file is never changed or replaced because of one of these.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be read, written or made.
    #[error("cannot open the cluster store {}: {error}", path.display())]
    Io {
        /// The store's file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("the cluster store {} is in use by another process; run one server for each state directory", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is not a cluster store ({reason}); it is left as it is: move it away, or name another state directory", path.display())]
    Foreign {
        /// The store's file.
        path: PathBuf,
        /// What it is instead.
        reason: &'static str,
    },
    /// It was written by a later version.
    #[error("the cluster store {} has schema version {found}, and this version reads up to {supported}; use a newer moorline", path.display())]
    NewerSchema {
        /// The store's file.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What this program can read.
        supported: u64,
    },
    /// It is damaged.
    #[error("the cluster store {} is damaged ({reason}); it is left as it is: restore it from a backup", path.display())]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What the database says.
        reason: String,
    },
}

/// The store cannot read or write. After an I/O error it stays so until it is opened anew.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed; most often the disk did.
    #[error("the cluster store failed: {0}")]
    Database(String),
    /// A record does not read back.
    #[error("the record of cluster {name:?} in the store cannot be read: {reason}")]
    Record {
        /// Under which name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Why a cluster was not registered. Nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is in use.
    #[error("the cluster {0} exists already")]
    Exists(ClusterName),
    /// One of its certificates stands for another cluster.
    #[error("the certificate {fingerprint} belongs to the cluster {owner} already")]
    FingerprintTaken {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// Whose it is.
        owner: ClusterName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a cluster was not changed. Nothing was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// Whoever was to change it did not.
    #[error("the change was refused")]
    Refused(E),
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    NotFound(ClusterName),
    /// One of its new certificates stands for another cluster.
    #[error("the certificate {fingerprint} belongs to the cluster {owner} already")]
    FingerprintTaken {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// Whose it is.
        owner: ClusterName,
    },
    /// The name, the uid and the creation time of a cluster never change.
    #[error("the {field} of the cluster {name} cannot be changed")]
    Immutable {
        /// Which cluster.
        name: ClusterName,
        /// What was to be changed.
        field: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Turns any failure of the database, which has a type for each of its steps, into the one a caller sees.
pub(crate) fn database<E: Into<redb::Error>>(error: E) -> StoreError {
    StoreError::Database(error.into().to_string())
}

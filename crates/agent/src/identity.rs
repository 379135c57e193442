//! Who this agent is towards the server: its certificate and key, and the authorities that it believes; where they are
//! kept ([`Home`]), and how they change while the agent runs.
//!
//! Made by the configuration, shared by the tunnel (which asks for keys and authorities at each dial) and by whoever
//! gets new ones: renewal, the server's orders, joining. Nothing else writes them. What is new is kept first and used
//! then, so that a process which is killed in between starts again with something that works.

mod directory;
mod holder;
mod secret;

use std::{fmt, io, path::PathBuf, pin::Pin};

use moorline_mtls::{KeyPair, KeyPairError, Roots, RootsError};
use thiserror::Error;
use zeroize::Zeroizing;

pub use directory::Directory;
pub(crate) use holder::Identity;
pub(crate) use secret::Secret;

/// What an agent needs to be let in. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// The authorities that the server's certificate must chain to, PEM.
    pub roots_pem: String,
    /// The agent's certificate and what it chains by, PEM, leaf first.
    pub certificate_pem: String,
    /// The private key of the leaf, PEM.
    pub key_pem: Zeroizing<String>,
    /// Where the server is, where that was told together with the certificate: HOST:PORT.
    pub address: Option<String>,
}

/// Why files are of no use. Holds nothing of a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidFiles {
    /// The agent's certificate and key.
    #[error("{CERTIFICATE} and {KEY}: {0}")]
    Keys(#[from] KeyPairError),
    /// The authorities.
    #[error("{ROOTS}: {0}")]
    Roots(#[from] RootsError),
}

/// Why a home gave nothing, or took nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Something cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is there is of no use.
    #[error("in {place}: {reason}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        reason: InvalidFiles,
    },
    /// A home that is no directory, in its own words.
    #[error("{0}")]
    Other(String),
}

/// The name of the authorities' file, also as a key of a Secret.
pub const ROOTS: &str = "management-cluster.crt";
/// The name of the certificate's file, also as a key of a Secret.
pub const CERTIFICATE: &str = "managed-cluster.crt";
/// The name of the key's file, also as a key of a Secret.
pub const KEY: &str = "managed-cluster.key";
/// The name of the file with the server's address, also as a key of a Secret. It may be missing.
pub const ADDRESS: &str = "management-cluster-addr";

/// What a [`Home`] answers with, later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, HomeError>> + Send + 'a>>;

/// Where an agent keeps who it is.
///
/// `load` gives what `save` was last given, or what somebody else has put there since. Both are whole: whoever reads
/// sees the files of one moment, never a certificate beside the key of another.
pub trait Home: Send + Sync + fmt::Debug {
    /// What is kept, checked by [`Files::check`].
    fn load(&self) -> Later<'_, Files>;

    /// Keeps `files` instead, all at once; when this is done they outlast the process and the machine.
    fn save<'a>(&'a self, files: &'a Files) -> Later<'a, ()>;

    /// Whether [`Home::save`] may be expected to go well: asked before a certificate is, so that none is signed which
    /// nobody can keep. Changes nothing.
    fn writable(&self) -> Later<'_, ()>;

    /// The key of a join that was begun and not finished, with a word before it that says by what.
    fn pending(&self) -> Later<'_, Option<Zeroizing<String>>> {
        Box::pin(async { Ok(None) })
    }

    /// Keeps the key of a join that begins, so that it can be asked for again; or forgets it. A home that cannot keep it
    /// does without: whoever loses the answer to a join needs another token then.
    fn keep_pending<'a>(&'a self, _key: Option<&'a Zeroizing<String>>) -> Later<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Where that is, for people.
    fn place(&self) -> String;
}

impl Files {
    /// The files as TLS uses them.
    ///
    /// # Errors
    /// [`InvalidFiles`] when they cannot be read or do not belong together.
    pub fn check(&self) -> Result<(KeyPair, Roots), InvalidFiles> {
        let keys = KeyPair::from_pem(self.certificate_pem.as_bytes(), self.key_pem.as_bytes())?;
        Ok((keys, Roots::from_pem(self.roots_pem.as_bytes())?))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("address", &self.address).finish_non_exhaustive()
    }
}

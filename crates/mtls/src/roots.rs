//! The authorities that a peer's certificate must chain to.

use std::{fmt, sync::Arc};

use moorline_pki::{CertificateInfo, InvalidCertificate, PemError};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use thiserror::Error;

/// A bundle of trusted authorities, never empty. Cheap to clone.
#[derive(Clone)]
pub struct Roots {
    pub(crate) store: Arc<RootCertStore>,
    authorities: Arc<[CertificateInfo]>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// Why a file is no trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootsError {
    /// The file as a whole.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// One of its certificates cannot be read.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// One of its certificates cannot be an authority.
    #[error("{subject:?} cannot be trusted as an authority: {reason}")]
    Unusable {
        /// Whose certificate.
        subject: String,
        /// What the TLS library says.
        reason: String,
    },
    /// The operating system has no bundle.
    #[error("the operating system's trust bundle cannot be read: {0}; name a CA file instead")]
    System(String),
}

impl Roots {
    /// Reads a PEM bundle. All its certificates are trusted alike; put old and new into one file while rotating.
    ///
    /// # Errors
    /// [`RootsError`] when one of them is unreadable: half a bundle would refuse peers for no visible reason.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        let (mut authorities, mut certificates) = (Vec::new(), Vec::new());
        for certificate in moorline_pki::certificates_from_pem(pem)? {
            let info = CertificateInfo::parse(&certificate)?;
            store
                .add(certificate.clone())
                .map_err(|error| RootsError::Unusable { subject: info.subject.clone(), reason: error.to_string() })?;
            authorities.push(info);
            certificates.push(certificate);
        }
        Ok(Self { store: Arc::new(store), authorities: authorities.into(), certificates: certificates.into() })
    }

    /// What the operating system trusts. Reads its files, so it blocks.
    ///
    /// # Errors
    /// [`RootsError::System`] when there is nothing.
    pub fn system() -> Result<Self, RootsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // Systems carry odd certificates; those that nobody can use harm nobody.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let first = found.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
            return Err(RootsError::System(first));
        }
        Ok(Self { store: Arc::new(store), authorities: Arc::new([]), certificates: Arc::new([]) })
    }

    /// Both bundles in one.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let mut store = RootCertStore::clone(&self.store);
        store.extend(other.store.roots.iter().cloned());
        let authorities = self.authorities.iter().chain(other.authorities.iter()).cloned().collect();
        let certificates = self.certificates.iter().chain(other.certificates.iter()).cloned().collect();
        Self { store: Arc::new(store), authorities, certificates }
    }

    /// What the authorities' certificates say; empty for [`Roots::system`].
    #[must_use]
    pub fn authorities(&self) -> &[CertificateInfo] {
        &self.authorities
    }

    /// The same certificates in DER form.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<_> = self.authorities.iter().map(|authority| &authority.subject).collect();
        f.debug_struct("Roots").field("count", &self.store.len()).field("authorities", &subjects).finish()
    }
}

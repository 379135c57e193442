//! A certificate chain with its private key, checked to belong together.

use std::{fmt, sync::Arc};

use moorline_model::{Fingerprint, Timestamp};
use moorline_pki::{CertificateInfo, InvalidCertificate, InvalidTime, PemError, check_validity};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::config::provider;

/// A certificate chain, leaf first, with the leaf's private key. Cheap to clone. The key can be used to sign and
/// cannot be read out again; `Debug` shows the certificate only.
#[derive(Clone)]
pub struct KeyPair {
    pub(crate) certified: Arc<CertifiedKey>,
    leaf: Arc<CertificateInfo>,
}

/// Why two files make no key pair.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyPairError {
    /// The certificate's file.
    #[error("certificate: {0}")]
    Certificate(#[source] PemError),
    /// The leaf cannot be read.
    #[error("certificate: {0}")]
    Leaf(#[from] InvalidCertificate),
    /// The key's file.
    #[error("private key: {0}")]
    Key(#[source] PemError),
    /// The key is of a kind that TLS cannot use here.
    #[error("private key: cannot be used for TLS (use ECDSA P-256/P-384, Ed25519 or RSA of 2048 bits and more): {0}")]
    Unusable(String),
    /// They are not two halves of one.
    #[error("the private key does not belong to the certificate of {0:?}")]
    Mismatch(String),
}

impl KeyPair {
    /// Reads a PEM chain (leaf first) and the PEM key of its leaf.
    ///
    /// Whether the certificate is in its time is not checked here, see [`KeyPair::check_validity`].
    ///
    /// # Errors
    /// [`KeyPairError`]; never holds any of the key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, KeyPairError> {
        let chain = moorline_pki::certificates_from_pem(certificates).map_err(KeyPairError::Certificate)?;
        let key = moorline_pki::private_key_from_pem(key).map_err(KeyPairError::Key)?;
        let leaf = chain.first().map(|leaf| CertificateInfo::parse(leaf)).transpose()?;
        let leaf = leaf.ok_or_else(|| KeyPairError::Certificate(PemError::NoCertificate(Vec::new())))?;
        let key =
            provider().key_provider.load_private_key(key).map_err(|error| KeyPairError::Unusable(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self { certified: Arc::new(certified), leaf: Arc::new(leaf) }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(KeyPairError::Mismatch(leaf.subject)),
            Err(other) => Err(KeyPairError::Unusable(other.to_string())),
        }
    }

    /// What the leaf certificate says.
    #[must_use]
    pub fn info(&self) -> &CertificateInfo {
        &self.leaf
    }

    /// The SHA-256 of the leaf certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.leaf.fingerprint
    }

    /// The last second in which the leaf is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.leaf.not_after
    }

    /// Checks that the leaf is in its time, so that a process can say so itself before a peer refuses it.
    ///
    /// # Errors
    /// [`InvalidTime`], with how far off it is.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), InvalidTime> {
        check_validity(&self.leaf, now)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("subject", &self.leaf.subject)
            .field("not_after", &self.leaf.not_after)
            .field("fingerprint", &self.leaf.fingerprint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use moorline_ca::{Authority, Issued};

    use super::*;

    fn issued() -> (Authority, Issued) {
        let now = Timestamp::from_unix_seconds(1_795_233_180);
        let authority = Authority::generate("test", now, Duration::from_secs(1_000)).unwrap();
        let issued = authority.issue_user("jane", &[], now, Duration::from_secs(100)).unwrap();
        (authority, issued)
    }

    #[test]
    fn the_halves_must_fit() {
        let ((_, one), (_, two)) = (issued(), issued());
        let read = |certificate: &Issued, key: &Issued| {
            KeyPair::from_pem(certificate.certificate_pem.as_bytes(), key.key_pem.as_bytes())
        };
        let pair = read(&one, &one).unwrap();
        assert_eq!((pair.fingerprint(), pair.not_after()), (one.fingerprint, one.not_after));
        assert_eq!(read(&one, &two).unwrap_err(), KeyPairError::Mismatch("CN=jane".to_owned()));
    }

    #[test]
    fn each_file_is_named_in_its_error() {
        let (_, issued) = issued();
        let certificate = issued.certificate_pem.as_bytes();
        let error = KeyPair::from_pem(certificate, certificate).unwrap_err().to_string();
        assert!(error.starts_with("private key: holds no private key"), "{error}");
        let error = KeyPair::from_pem(b"", b"").unwrap_err().to_string();
        assert!(error.starts_with("certificate: holds no certificate"), "{error}");
    }

    #[test]
    fn the_key_is_never_shown() {
        let (_, issued) = issued();
        let pair = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let shown = format!("{pair:?}");
        assert!(shown.contains("jane") && !shown.to_lowercase().contains("private"), "{shown}");
    }
}

//! The peer of a finished handshake. Only the handshake makes one, so holding one means that the chain was verified.

use std::fmt;

use moorline_model::{Fingerprint, Identity, Timestamp};
use moorline_pki::{CertificateInfo, IdentityError, InvalidCertificate, InvalidTime, check_validity, identity_of};
use rustls_pki_types::CertificateDer;

/// A peer whose certificate chained to the roots and was in its time when the handshake ended.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    leaf: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_after: Timestamp,
}

impl VerifiedPeer {
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let info = CertificateInfo::parse(leaf)?;
        Ok(Self { fingerprint: info.fingerprint, not_after: info.not_after, leaf: leaf.clone().into_owned() })
    }

    /// The SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The last second in which its certificate is valid. A connection may outlive it; see
    /// [`VerifiedPeer::check_validity`].
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Its certificate in DER form.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// What its certificate says, read anew at each call: a session lives for weeks and is asked once.
    ///
    /// # Errors
    /// None that happens: the handshake read the same bytes before.
    pub fn info(&self) -> Result<CertificateInfo, InvalidCertificate> {
        CertificateInfo::parse(&self.leaf)
    }

    /// The common name of its certificate, if it has one.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        self.info().ok().and_then(|info| info.common_names.into_iter().next())
    }

    /// The user that its certificate names (common name = user, organizations = groups).
    ///
    /// # Errors
    /// [`IdentityError`] when it names none, or several.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        identity_of(&self.leaf)
    }

    /// Checks again, on a live connection, that the certificate is in its time.
    ///
    /// # Errors
    /// [`InvalidTime`] once it has expired.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), InvalidTime> {
        match self.info() {
            Ok(info) => check_validity(&info, now),
            Err(_read_before) => Err(InvalidTime::Expired { not_after: self.not_after, now }),
        }
    }
}

impl fmt::Debug for VerifiedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPeer")
            .field("common_name", &self.common_name())
            .field("fingerprint", &self.fingerprint)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

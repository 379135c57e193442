//! The peer of a finished handshake. Only the handshake makes one: holding a [`VerifiedPeer`] means that the chain was
//! verified, holding a [`PresentedPeer`] means that it was not. Neither becomes the other.

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

/// A peer that holds the key of the certificate it shows, about which nothing else is known: anybody can make such a
/// certificate, with any name in it. Whose it is, is known by its fingerprint or not at all.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedPeer {
    leaf: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_after: Timestamp,
}

/// How much of a stranger's common name is told: what X.520 gives it.
const LONGEST_NAME: usize = 64;

impl PresentedPeer {
    pub(crate) fn of(leaf: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let info = CertificateInfo::parse(leaf)?;
        Ok(Self { fingerprint: info.fingerprint, not_after: info.not_after, leaf: leaf.clone().into_owned() })
    }

    /// The SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The last second in which its certificate is valid, as the certificate says. The handshake did not look at it:
    /// see [`PresentedPeer::check_validity`].
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// What its certificate says of itself, read anew at each call. Nobody vouches for any of it, and it may be long or
    /// hold control characters.
    ///
    /// # Errors
    /// None that happens: the handshake read the same bytes before.
    pub fn info(&self) -> Result<CertificateInfo, InvalidCertificate> {
        CertificateInfo::parse(&self.leaf)
    }

    /// The common name that its certificate claims, if any: for logs, without control characters and cut after 64
    /// characters.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let claimed = self.info().ok().and_then(|info| info.common_names.into_iter().next())?;
        let shown = claimed.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Some(shown.take(LONGEST_NAME).collect())
    }

    /// Checks that the certificate is in its time.
    ///
    /// # Errors
    /// [`InvalidTime`], with how far off it is.
    pub fn check_validity(&self, now: Timestamp) -> Result<(), InvalidTime> {
        match self.info() {
            Ok(info) => check_validity(&info, now),
            Err(_read_before) => Err(InvalidTime::Expired { not_after: self.not_after, now }),
        }
    }
}

impl fmt::Debug for PresentedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedPeer")
            .field("claimed_name", &self.common_name())
            .field("fingerprint", &self.fingerprint)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

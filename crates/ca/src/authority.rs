//! A certificate authority: a key that signs, and the certificate that says whose key it is.

use std::{fmt, time::Duration};

use moorline_model::{ClusterName, ClusterUid, Fingerprint, Timestamp};
use moorline_pki::{CertificateInfo, InvalidCertificate, InvalidTime, PemError, check_validity};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::profile::{self, Life, SubjectName};

/// A key that signs certificates, with its own certificate. The key is overwritten when this is dropped, and is not
/// part of the `Debug` text.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    info: CertificateInfo,
    key: KeyPair,
}

/// A certificate that was just signed, and its key. The key exists nowhere else: hand it out once.
pub struct Issued {
    /// The certificate alone, without its authority.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// The SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// The last second in which it is valid.
    pub not_after: Timestamp,
}

/// Why a certificate and a key make no authority.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The certificate's file.
    #[error("authority certificate: {0}")]
    Certificate(#[source] PemError),
    /// The key's file.
    #[error("authority key: {0}")]
    Key(#[source] PemError),
    /// More than the one certificate.
    #[error("authority certificate: holds {0} certificates; keep the signing one only")]
    SeveralCertificates(usize),
    /// The certificate may not sign others.
    #[error("the certificate {0:?} may not sign others (it is no CA certificate)")]
    NotAnAuthority(String),
    /// They are not two halves of one.
    #[error("the authority's key does not belong to its certificate")]
    Mismatch,
    /// The key is of a kind that cannot be used.
    #[error("the authority's key cannot be used: {0}")]
    Unusable(#[source] rcgen::Error),
    /// The certificate was made, and does not read back.
    #[error("the authority's certificate cannot be read: {0}")]
    Unreadable(#[from] InvalidCertificate),
}

/// Why no certificate was issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The authority itself is not in its time, so nobody would accept what it signs.
    #[error("the certificate authority {name:?} is {reason}")]
    AuthorityTime {
        /// The authority's common name.
        name: String,
        /// How far off.
        reason: InvalidTime,
    },
    /// A server certificate without a name fits no server.
    #[error("a server certificate needs at least one DNS name or IP address")]
    NoName,
    /// A user without a name.
    #[error("a user certificate needs a user name")]
    NoUser,
    /// The signing library writes one organization for each certificate.
    #[error("a user certificate can carry one group, not {0}")]
    SeveralGroups(usize),
    /// A name cannot be written, or signing failed.
    #[error("cannot sign the certificate: {0}")]
    Signing(#[from] rcgen::Error),
    /// What came out is not what was meant; it is not handed out.
    #[error("the signed certificate does not read back as it was meant")]
    Unreadable,
}

impl Authority {
    /// Makes a new key (P-256) and signs its certificate with itself: valid from shortly before `now` for `life`.
    ///
    /// # Errors
    /// When the name cannot be written or the operating system gives no randomness.
    pub fn generate(common_name: &str, now: Timestamp, life: Duration) -> Result<Self, AuthorityError> {
        Self::generate_for_server(common_name, None, now, life)
    }

    /// Like [`Authority::generate`], with one DNS name in the authority's own certificate. Calico's Guardian takes the
    /// server name it verifies from there.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn generate_for_server(
        common_name: &str,
        server_name: Option<&str>,
        now: Timestamp,
        life: Duration,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Unusable)?;
        let params = profile::authority(common_name, server_name, Life::starting(now, life));
        let signed = params.and_then(|params| params.self_signed(&key)).map_err(AuthorityError::Unusable)?;
        Ok(Self { info: CertificateInfo::parse(signed.der())?, pem: signed.pem(), certificate: signed.into(), key })
    }

    /// An authority that was made before, here or by another program.
    ///
    /// # Errors
    /// [`AuthorityError`] when either file is unreadable, or they do not belong together, or it may not sign.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let mut certificates =
            moorline_pki::certificates_from_pem(certificate_pem.as_bytes()).map_err(AuthorityError::Certificate)?;
        let (Some(certificate), 0) = (certificates.pop(), certificates.len()) else {
            return Err(AuthorityError::SeveralCertificates(certificates.len() + 1));
        };
        let info = CertificateInfo::parse(&certificate)?;
        if !info.is_ca {
            return Err(AuthorityError::NotAnAuthority(info.subject));
        }
        let mut der = moorline_pki::private_key_from_pem(key_pem.as_bytes()).map_err(AuthorityError::Key)?;
        let key = KeyPair::try_from(&der).map_err(AuthorityError::Unusable);
        der.zeroize();
        let key = key?;
        if key.subject_public_key_info() != info.public_key {
            return Err(AuthorityError::Mismatch);
        }
        Ok(Self { certificate, pem: certificate_pem.to_owned(), info, key })
    }

    /// The authority's certificate, which peers are told to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate in DER form.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What the authority's certificate says.
    #[must_use]
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// The private key, PKCS#8, to be kept where nobody else reads it.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Signs a certificate for a server, with a new key. `life` ends with the authority's at the latest.
    ///
    /// # Errors
    /// [`IssueError`]; a name that is not ASCII is one.
    pub fn issue_server(&self, names: &[SubjectName], now: Timestamp, life: Duration) -> Result<Issued, IssueError> {
        if names.is_empty() {
            return Err(IssueError::NoName);
        }
        self.issue(profile::server(names, self.life(now, life)?)?)
    }

    /// Signs a certificate for the agent of a cluster, with a new key: usable by TLS clients only.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_agent(
        &self,
        cluster: &ClusterName,
        uid: &ClusterUid,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        self.issue(profile::agent(cluster, uid, self.life(now, life)?)?)
    }

    /// Signs a client certificate for a user, with a new key. Sign these with another authority than agents'.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_user(
        &self,
        user: &str,
        groups: &[String],
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        if user.is_empty() {
            return Err(IssueError::NoUser);
        }
        let group = match groups {
            [] => None,
            [group] => Some(group.as_str()),
            several => return Err(IssueError::SeveralGroups(several.len())),
        };
        self.issue(profile::user(user, group, self.life(now, life)?))
    }

    fn life(&self, now: Timestamp, length: Duration) -> Result<Life, IssueError> {
        check_validity(&self.info, now)
            .map_err(|reason| IssueError::AuthorityTime { name: self.info.subject.clone(), reason })?;
        Ok(Life::starting(now, length).within(self.info.not_after))
    }

    fn issue(&self, params: CertificateParams) -> Result<Issued, IssueError> {
        let key = Wiped(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let signed = params.signed_by(&key.0, &issuer)?;
        let info = CertificateInfo::parse(signed.der()).map_err(|_unreadable| IssueError::Unreadable)?;
        // The signing library folds repeated parts of a name together; a chain with that name would not hold.
        if info.issuer != self.info.subject || info.is_ca {
            return Err(IssueError::Unreadable);
        }
        Ok(Issued {
            certificate_pem: signed.pem(),
            key_pem: Zeroizing::new(key.0.serialize_pem()),
            fingerprint: info.fingerprint,
            not_after: info.not_after,
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.info.subject)
            .field("not_after", &self.info.not_after)
            .field("fingerprint", &self.info.fingerprint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("fingerprint", &self.fingerprint)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A new key that is overwritten once its PEM text was made.
struct Wiped(KeyPair);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

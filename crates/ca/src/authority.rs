//! A certificate authority: a key that signs, and the certificate that says whose key it is.

use std::{fmt, time::Duration};

use moorline_model::{ClusterName, ClusterUid, Fingerprint, Timestamp};
use moorline_pki::{CertificateInfo, CertificateRequest, InvalidCertificate, InvalidTime, PemError, check_validity};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
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

/// A certificate that was just signed over a key that somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The certificate alone, without its authority.
    pub certificate_pem: String,
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
        self.issue(&profile::server(names, self.life(now, life)?)?)
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
        self.issue(&profile::agent(cluster, uid, self.life(now, life)?)?)
    }

    /// Signs a certificate for a cluster whose agent is Calico's Guardian, with a new key. It says so
    /// (`moorline:dialect:guardian`) besides what [`Authority::issue_agent`] would say.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_guardian(
        &self,
        cluster: &ClusterName,
        uid: &ClusterUid,
        now: Timestamp,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        self.issue(&profile::guardian(cluster, uid, self.life(now, life)?)?)
    }

    /// Signs a certificate for the agent of a cluster, over the key of its request. It says what
    /// [`Authority::issue_agent`] would say; nothing but the key comes from the request.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_agent_for(
        &self,
        cluster: &ClusterName,
        uid: &ClusterUid,
        request: &CertificateRequest,
        now: Timestamp,
        life: Duration,
    ) -> Result<Certified, IssueError> {
        let key = SubjectPublicKeyInfo::from_der(request.public_key())?;
        self.sign(&profile::agent(cluster, uid, self.life(now, life)?)?, &key)
    }

    /// This authority's name and key in a certificate that `other` signs: shown beside what this one has signed, it leads
    /// whoever trusts only `other` to it. Ends with whichever of the two ends first.
    ///
    /// # Errors
    /// [`IssueError`]: most often `other` is not in its time.
    pub fn cross_signed_by(&self, other: &Self, now: Timestamp) -> Result<String, IssueError> {
        check_validity(&other.info, now)
            .map_err(|reason| IssueError::AuthorityTime { name: other.info.subject.clone(), reason })?;
        let life =
            Life::starting(now, 10 * profile::CLOCK_SKEW).until(self.info.not_after).within(other.info.not_after);
        let name = self.info.common_name().ok_or(IssueError::Unreadable)?;
        let issuer = Issuer::from_ca_cert_der(&other.certificate, &other.key)?;
        let signed = profile::intermediate(name, life).signed_by(&self.key, &issuer)?;
        let info = CertificateInfo::parse(signed.der()).map_err(|_unreadable| IssueError::Unreadable)?;
        let meant = info.issuer == other.info.subject && info.subject == self.info.subject && info.is_ca;
        if meant { Ok(signed.pem()) } else { Err(IssueError::Unreadable) }
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
        self.issue(&profile::user(user, group, self.life(now, life)?))
    }

    fn life(&self, now: Timestamp, length: Duration) -> Result<Life, IssueError> {
        check_validity(&self.info, now)
            .map_err(|reason| IssueError::AuthorityTime { name: self.info.subject.clone(), reason })?;
        Ok(Life::starting(now, length).within(self.info.not_after))
    }

    fn issue(&self, params: &CertificateParams) -> Result<Issued, IssueError> {
        let key = Wiped(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let Certified { certificate_pem, fingerprint, not_after } = self.sign(params, &key.0)?;
        Ok(Issued { certificate_pem, key_pem: Zeroizing::new(key.0.serialize_pem()), fingerprint, not_after })
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certified, IssueError> {
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let signed = params.signed_by(key, &issuer)?;
        let info = CertificateInfo::parse(signed.der()).map_err(|_unreadable| IssueError::Unreadable)?;
        // The signing library folds repeated parts of a name together; a chain with that name would not hold.
        if info.issuer != self.info.subject || info.is_ca {
            return Err(IssueError::Unreadable);
        }
        Ok(Certified { certificate_pem: signed.pem(), fingerprint: info.fingerprint, not_after: info.not_after })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::CLOCK_SKEW;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_795_233_180)
    }

    fn authority() -> Authority {
        Authority::generate("moorline tunnel", now(), 100 * DAY).unwrap()
    }

    fn read(issued: &Issued) -> CertificateInfo {
        let der = moorline_pki::certificates_from_pem(issued.certificate_pem.as_bytes()).unwrap();
        moorline_pki::private_key_from_pem(issued.key_pem.as_bytes()).unwrap();
        CertificateInfo::parse(&der[0]).unwrap()
    }

    #[test]
    fn an_authority_signs_and_nothing_else() {
        let authority = authority();
        let info = authority.info();
        assert!(info.is_ca);
        assert_eq!((info.common_name(), info.dns_names.len()), (Some("moorline tunnel"), 0));
        assert_eq!(info.not_before, now().saturating_sub(CLOCK_SKEW));
        assert_eq!(info.not_after, now().saturating_add(100 * DAY));
        let named = Authority::generate_for_server("t", Some("moorline-tunnel"), now(), DAY).unwrap();
        assert_eq!(named.info().dns_names, ["moorline-tunnel"]);
    }

    #[test]
    fn a_server_gets_its_names_and_one_purpose() {
        let names = ["a.example", "10.0.0.1", "::1"].map(SubjectName::from_host);
        let issued = authority().issue_server(&names, now(), DAY).unwrap();
        let info = read(&issued);
        assert_eq!(info.dns_names, ["a.example"]);
        assert_eq!(info.ip_addresses.len(), 2);
        assert!(info.for_servers && !info.for_clients && !info.is_ca);
        assert_eq!((info.fingerprint, info.not_after), (issued.fingerprint, issued.not_after));
        assert!(matches!(authority().issue_server(&[], now(), DAY), Err(IssueError::NoName)));
        let odd = [SubjectName::Dns("b\u{fc}cher.example".to_owned())];
        assert!(matches!(authority().issue_server(&odd, now(), DAY), Err(IssueError::Signing(_))));
    }

    #[test]
    fn an_agent_is_named_by_its_cluster_and_is_no_server() {
        let uid = ClusterUid::from_bytes([7; 16]);
        let info = read(&authority().issue_agent(&"east".parse().unwrap(), &uid, now(), DAY).unwrap());
        assert_eq!(info.common_name(), Some("east"));
        assert_eq!(info.uris, ["moorline:cluster:east".to_owned(), format!("moorline:cluster-uid:{uid}")]);
        assert!(info.for_clients && !info.for_servers && !info.is_ca);
        assert!(info.organizations.is_empty() && info.dns_names.is_empty());
        let mut guardians = read(&authority().issue_guardian(&"east".parse().unwrap(), &uid, now(), DAY).unwrap());
        assert_eq!(guardians.uris.pop().as_deref(), Some("moorline:dialect:guardian"));
        assert_eq!((guardians.uris, guardians.for_servers), (info.uris, false));
    }

    #[test]
    fn an_agent_may_keep_its_key_and_says_nothing_but_that() {
        let (key, uid) = (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), ClusterUid::from_bytes([7; 16]));
        let mut wishes = CertificateParams::new(vec!["moorline-tunnel".to_owned()]).unwrap();
        wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wishes.distinguished_name.push(rcgen::DnType::CommonName, "west");
        let request = CertificateRequest::from_der(wishes.serialize_request(&key).unwrap().der()).unwrap();
        let authority = authority();
        let made = authority.issue_agent_for(&"east".parse().unwrap(), &uid, &request, now(), DAY).unwrap();
        let der = moorline_pki::certificates_from_pem(made.certificate_pem.as_bytes()).unwrap();
        let info = CertificateInfo::parse(&der[0]).unwrap();
        assert_eq!(info.public_key, key.subject_public_key_info());
        assert_eq!((info.fingerprint, info.not_after), (made.fingerprint, made.not_after));
        let other = read(&authority.issue_agent(&"east".parse().unwrap(), &uid, now(), DAY).unwrap());
        let said =
            |info: CertificateInfo| (info.subject, info.issuer, info.dns_names, info.uris, info.is_ca, info.not_after);
        assert_eq!(said(info), said(other));
    }

    #[test]
    fn of_a_short_life_the_margin_for_slow_clocks_is_a_small_part_too() {
        let issued = authority().issue_user("jane", &[], now(), Duration::from_secs(60)).unwrap();
        let info = read(&issued);
        assert_eq!(info.not_after.since(info.not_before), Duration::from_secs(66));
    }

    #[test]
    fn one_authority_vouches_for_the_next() {
        let old = authority();
        let new = Authority::generate("moorline tunnel 2", now().saturating_add(DAY), 1_000 * DAY).unwrap();
        let pem = new.cross_signed_by(&old, now().saturating_add(DAY)).unwrap();
        let der = moorline_pki::certificates_from_pem(pem.as_bytes()).unwrap();
        let info = CertificateInfo::parse(&der[0]).unwrap();
        assert_eq!((&info.issuer, &info.subject), (&old.info().subject, &new.info().subject));
        assert_eq!(info.public_key, new.info().public_key);
        assert_eq!(info.not_after, old.info().not_after, "it does not outlive the one that vouches");
        assert!(info.is_ca && info.dns_names.is_empty());
        let late = now().saturating_add(200 * DAY);
        assert!(matches!(new.cross_signed_by(&old, late), Err(IssueError::AuthorityTime { .. })));
    }

    #[test]
    fn a_user_is_named_as_kubernetes_reads_it() {
        let issued = authority().issue_user("jane", &["dev".to_owned()], now(), DAY).unwrap();
        let der = moorline_pki::certificates_from_pem(issued.certificate_pem.as_bytes()).unwrap();
        let identity = moorline_pki::identity_of(&der[0]).unwrap();
        assert_eq!((identity.user(), identity.groups()[0].as_str()), ("jane", "dev"));
        let several = ["a".to_owned(), "b".to_owned()];
        assert!(matches!(authority().issue_user("jane", &several, now(), DAY), Err(IssueError::SeveralGroups(2))));
        assert!(matches!(authority().issue_user("", &[], now(), DAY), Err(IssueError::NoUser)));
    }

    #[test]
    fn serial_numbers_and_keys_are_never_the_same() {
        let authority = authority();
        let issue = || authority.issue_user("jane", &[], now(), DAY).unwrap();
        let (one, two) = (issue(), issue());
        assert_ne!(*one.key_pem, *two.key_pem);
        assert_ne!(read(&one).serial, read(&two).serial);
        assert_eq!(read(&one).serial.len(), 32);
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let authority = authority();
        let issued = authority.issue_user("jane", &[], now(), 1_000 * DAY).unwrap();
        assert_eq!(issued.not_after, authority.info().not_after);
        let later = now().saturating_add(103 * DAY);
        let error = authority.issue_user("jane", &[], later, DAY).unwrap_err();
        assert!(error.to_string().contains("expired 3 days ago"), "{error}");
    }

    #[test]
    fn comes_back_from_its_files_and_from_no_others() {
        let (one, two) = (authority(), authority());
        let again = Authority::from_pem(one.certificate_pem(), &one.key_pem()).unwrap();
        assert_eq!(again.certificate_der(), one.certificate_der());
        read(&again.issue_user("jane", &[], now(), DAY).unwrap());
        let mixed = Authority::from_pem(one.certificate_pem(), &two.key_pem());
        assert!(matches!(mixed, Err(AuthorityError::Mismatch)));
        let leaf = one.issue_user("jane", &[], now(), DAY).unwrap();
        let error = Authority::from_pem(&leaf.certificate_pem, &leaf.key_pem).unwrap_err();
        assert!(matches!(error, AuthorityError::NotAnAuthority(_)), "{error}");
        let both = format!("{}{}", one.certificate_pem(), two.certificate_pem());
        assert!(matches!(Authority::from_pem(&both, &one.key_pem()), Err(AuthorityError::SeveralCertificates(2))));
        assert!(matches!(Authority::from_pem("", ""), Err(AuthorityError::Certificate(_))));
        assert!(matches!(Authority::from_pem(one.certificate_pem(), ""), Err(AuthorityError::Key(_))));
    }

    #[test]
    fn an_rsa_authority_made_elsewhere_signs_too() {
        // Made by `openssl req -x509 -newkey rsa:2048 -days 36500`; nothing trusts it.
        let certificate = include_str!("../fixtures/rsa-ca.crt");
        let key = include_str!("../fixtures/rsa-ca.key");
        let authority = Authority::from_pem(certificate, key).unwrap();
        let within = authority.info().not_before.saturating_add(DAY);
        let issued = authority.issue_user("jane", &[], within, DAY).unwrap();
        assert_eq!(read(&issued).issuer, authority.info().subject);
    }

    #[test]
    fn debug_shows_no_key() {
        let authority = authority();
        let issued = authority.issue_user("jane", &[], now(), DAY).unwrap();
        let (one, two) = (format!("{authority:?}"), format!("{issued:?}"));
        assert!(one.contains("moorline tunnel") && !one.to_lowercase().contains("key"), "{one}");
        assert!(!two.to_lowercase().contains("key"), "{two}");
    }
}

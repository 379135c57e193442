//! What each kind of certificate says: names, purposes, life. Called by `authority` only.

use std::{net::IpAddr, time::Duration};

use moorline_model::{ClusterName, ClusterUid, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, SanType, SerialNumber, string::Ia5String,
};
use time::OffsetDateTime;

/// How much earlier than `now` a certificate begins, so that a peer whose clock is a little slow accepts it at once.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A name that a server certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A DNS name; a wildcard as its first label is allowed.
    Dns(String),
    /// An address that clients connect to by number.
    Ip(IpAddr),
}

impl From<IpAddr> for SubjectName {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

impl SubjectName {
    /// An address where the text is one, else a DNS name.
    #[must_use]
    pub fn from_host(host: &str) -> Self {
        host.parse().map_or_else(|_not_an_address| Self::Dns(host.to_owned()), Self::Ip)
    }
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Life {
    /// Begins [`CLOCK_SKEW`] before `now`, or a tenth of `length` where that is less, and ends `length` after it: who
    /// renews by the age of a certificate would otherwise renew a short one at once.
    pub(crate) fn starting(now: Timestamp, length: Duration) -> Self {
        let skew = CLOCK_SKEW.min(length / 10);
        Self { not_before: now.saturating_sub(skew), not_after: now.saturating_add(length) }
    }

    /// As long as somebody else.
    pub(crate) fn until(self, end: Timestamp) -> Self {
        Self { not_after: end, ..self }
    }

    /// A certificate that outlives its authority would only fail later and more puzzlingly.
    pub(crate) fn within(self, authority_end: Timestamp) -> Self {
        Self { not_after: self.not_after.min(authority_end), ..self }
    }
}

pub(crate) fn authority(
    common_name: &str,
    server_name: Option<&str>,
    life: Life,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base(common_name, life);
    // Room for one below: a successor that is vouched for while agents move to it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    params.subject_alt_names = server_name.map(dns).transpose()?.into_iter().collect();
    Ok(params)
}

pub(crate) fn intermediate(common_name: &str, life: Life) -> CertificateParams {
    let mut params = base(common_name, life);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn server(names: &[SubjectName], life: Life) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base("moorline-server", life);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names
        .iter()
        .map(|name| match name {
            SubjectName::Dns(name) => dns(name),
            SubjectName::Ip(address) => Ok(SanType::IpAddress(*address)),
        })
        .collect::<Result<_, _>>()?;
    Ok(params)
}

pub(crate) fn agent(cluster: &ClusterName, uid: &ClusterUid, life: Life) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base(cluster.as_str(), life);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![
        SanType::URI(Ia5String::try_from(format!("moorline:cluster:{cluster}"))?),
        SanType::URI(Ia5String::try_from(format!("moorline:cluster-uid:{uid}"))?),
    ];
    Ok(params)
}

/// As an agent's, and it says that it is none of ours: nobody is to take its holder for one.
pub(crate) fn guardian(cluster: &ClusterName, uid: &ClusterUid, life: Life) -> Result<CertificateParams, rcgen::Error> {
    let mut params = agent(cluster, uid, life)?;
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from("moorline:dialect:guardian")?));
    Ok(params)
}

pub(crate) fn user(name: &str, group: Option<&str>, life: Life) -> CertificateParams {
    let mut params = base(name, life);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

/// Every field is set, so that no default of the library (year 4096, its own name as the subject, a serial number
/// made from the key) gets into a certificate.
fn base(common_name: &str, life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = moment(life.not_before);
    params.not_after = moment(life.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::Sha256;
    params
}

/// 128 bits of which 126 are random. The first two are fixed so that the number is positive and never shorter.
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = (serial[0] & 0x3f) | 0x40;
    serial
}

fn dns(name: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::DnsName(Ia5String::try_from(name)?))
}

fn moment(timestamp: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(timestamp.unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

//! What a certificate says, as plain values. Says nothing about whether it is to be trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moorline_model::{Fingerprint, Timestamp};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName},
    prelude::FromDer as _,
    time::ASN1Time,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::key_kind::KeyKind;

/// The SHA-256 of a certificate in DER form.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(Sha256::digest(der).into())
}

/// Bytes that are not an X.509 certificate we can read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidCertificate {
    /// Not DER, not X.509, or cut off.
    #[error("not an X.509 certificate: {0}")]
    Encoding(String),
    /// There is more after the certificate.
    #[error("{0} bytes follow the certificate")]
    TrailingBytes(usize),
    /// An extension occurs twice or cannot be read.
    #[error("the {0} extension of the certificate cannot be read")]
    Extension(&'static str),
    /// A name is in a character set that nobody has used for decades.
    #[error("a name in the certificate is not plain text")]
    NotText,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The common names of the subject: one, most often.
    pub common_names: Vec<String>,
    /// The organizations of the subject, which Kubernetes reads as groups.
    pub organizations: Vec<String>,
    /// The subject in one line, for people.
    pub subject: String,
    /// The issuer in one line, for people.
    pub issuer: String,
    /// The serial number as lower-case hexadecimal bytes.
    pub serial: String,
    /// The DNS names it is for.
    pub dns_names: Vec<String>,
    /// The IP addresses it is for.
    pub ip_addresses: Vec<IpAddr>,
    /// The URIs it is for.
    pub uris: Vec<String>,
    /// First second in which it is valid.
    pub not_before: Timestamp,
    /// Last second in which it is valid.
    pub not_after: Timestamp,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
    /// Whether a TLS client may present it: it names that purpose, or no purpose at all.
    pub for_clients: bool,
    /// Whether a TLS server may present it: it names that purpose, or no purpose at all.
    pub for_servers: bool,
    /// The public key as DER (`SubjectPublicKeyInfo`), to compare with another.
    pub public_key: Vec<u8>,
    /// What kind of key that is.
    pub key_kind: KeyKind,
    /// The SHA-256 of the whole.
    pub fingerprint: Fingerprint,
}

impl CertificateInfo {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// [`InvalidCertificate`] when the bytes are anything but exactly one readable certificate.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| InvalidCertificate::Encoding(error.to_string()))?;
        if !rest.is_empty() {
            return Err(InvalidCertificate::TrailingBytes(rest.len()));
        }
        let names = AlternativeNames::read(&certificate)?;
        let constraints =
            certificate.basic_constraints().map_err(|_twice| InvalidCertificate::Extension("basic constraints"))?;
        let usage =
            certificate.extended_key_usage().map_err(|_twice| InvalidCertificate::Extension("extended key usage"))?;
        let serves = |wanted: fn(&ExtendedKeyUsage<'_>) -> bool| {
            usage.as_ref().is_none_or(|usage| usage.value.any || wanted(usage.value))
        };
        Ok(Self {
            common_names: texts(certificate.subject().iter_common_name())?,
            organizations: texts(certificate.subject().iter_organization())?,
            subject: one_line(certificate.subject()),
            issuer: one_line(certificate.issuer()),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            dns_names: names.dns,
            ip_addresses: names.ip,
            uris: names.uri,
            not_before: timestamp(certificate.validity().not_before),
            not_after: timestamp(certificate.validity().not_after),
            is_ca: constraints.is_some_and(|constraints| constraints.value.ca),
            for_clients: serves(|usage| usage.client_auth),
            for_servers: serves(|usage| usage.server_auth),
            public_key: certificate.public_key().raw.to_vec(),
            key_kind: KeyKind::of(certificate.public_key()),
            fingerprint: fingerprint(der),
        })
    }

    /// The first common name, which is what people call the certificate by.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_names.first().map(String::as_str)
    }
}

#[derive(Default)]
struct AlternativeNames {
    dns: Vec<String>,
    ip: Vec<IpAddr>,
    uri: Vec<String>,
}

impl AlternativeNames {
    /// Kinds of names that nothing in Moorline looks at (mail, directory, registered ids) are passed over.
    fn read(certificate: &X509Certificate<'_>) -> Result<Self, InvalidCertificate> {
        const BROKEN: InvalidCertificate = InvalidCertificate::Extension("subject alternative name");
        let mut names = Self::default();
        let Some(extension) = certificate.subject_alternative_name().map_err(|_twice| BROKEN)? else {
            return Ok(names);
        };
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.dns.push((*name).to_owned());
            } else if let GeneralName::URI(uri) = name {
                names.uri.push((*uri).to_owned());
            } else if let GeneralName::IPAddress(bytes) = name {
                names.ip.push(address(bytes).ok_or(BROKEN)?);
            } else if let GeneralName::Invalid(..) = name {
                return Err(BROKEN);
            }
        }
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|_not_v4| <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))).ok()
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<Vec<String>, InvalidCertificate> {
    attributes
        .map(|attribute| attribute.as_str().map(str::to_owned).map_err(|_x| InvalidCertificate::NotText))
        .collect()
}

/// For logs: control characters in a stranger's certificate must not reach a terminal.
fn one_line(name: &X509Name<'_>) -> String {
    name.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_unix_seconds(time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

    use super::*;

    fn minted() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "10.1.2.3".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("moorline:cluster:a".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x0a, 0xff]));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_what_was_minted() {
        let der = minted();
        let info = CertificateInfo::parse(&der).unwrap();
        assert_eq!(info.common_name(), Some("jane"));
        assert_eq!(info.organizations, ["dev"]);
        assert_eq!(info.dns_names, ["a.example"]);
        assert_eq!(info.ip_addresses, [IpAddr::from([10, 1, 2, 3])]);
        assert_eq!(info.uris, ["moorline:cluster:a"]);
        assert_eq!(info.serial, "0aff");
        assert_eq!(info.not_before.unix_seconds(), 1_700_000_000);
        assert_eq!(info.not_after.unix_seconds(), 1_800_000_000);
        assert!(info.for_clients && !info.for_servers && !info.is_ca);
        assert_eq!(info.fingerprint, fingerprint(&der));
    }

    #[test]
    fn an_authority_is_told_from_a_leaf() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let info = CertificateInfo::parse(&der).unwrap();
        assert!(info.is_ca && info.for_clients && info.for_servers);
    }

    #[test]
    fn nothing_may_follow() {
        let mut der = minted();
        der.push(0);
        assert_eq!(CertificateInfo::parse(&der), Err(InvalidCertificate::TrailingBytes(1)));
    }

    #[test]
    fn the_fingerprint_is_plain_sha256() {
        // Test vector of FIPS 180-2.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(b"abc").to_string(), expected);
    }

    proptest! {
        /// Every byte of a real certificate damaged in every way that a single flip can.
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()) {
            let mut der = minted();
            let at = at.index(der.len());
            der[at] = to;
            drop(CertificateInfo::parse(&der));
            der.truncate(cut.index(der.len()));
            drop(CertificateInfo::parse(&der));
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(CertificateInfo::parse(&bytes).is_err());
        }
    }
}

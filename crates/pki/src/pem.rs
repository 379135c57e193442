//! PEM files into certificates and keys, with errors that say what was found instead.

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use thiserror::Error;

use crate::certificate::{CertificateInfo, InvalidCertificate};

/// Why a PEM file is of no use. Never holds any of its content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PemError {
    /// The text is damaged.
    #[error("not a valid PEM file: {0}")]
    Syntax(String),
    /// No certificate in it.
    #[error("holds no certificate (a section that begins with \"-----BEGIN CERTIFICATE-----\"){}", found(.0))]
    NoCertificate(Vec<String>),
    /// A certificate in it cannot be read. Counted from 1.
    #[error("certificate {number}: {reason}")]
    Certificate {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: InvalidCertificate,
    },
    /// No private key in it.
    #[error("holds no private key (PKCS#8, SEC1 or PKCS#1){}", found(.0))]
    NoKey(Vec<String>),
    /// More than one private key in it.
    #[error("holds {0} private keys; keep exactly one in the file")]
    SeveralKeys(usize),
    /// The private key is behind a passphrase.
    #[error(
        "the private key is encrypted with a passphrase; store it decrypted (openssl pkey -in OLD -out NEW), readable by its owner only"
    )]
    EncryptedKey,
}

/// All certificates of a PEM file, in its order: a chain begins with the leaf, a trust bundle has any order.
///
/// # Errors
/// [`PemError`] when the file is damaged, holds none, or one of them is not X.509.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| syntax(&error))?;
    if certificates.is_empty() {
        return Err(PemError::NoCertificate(labels(pem)));
    }
    for (index, certificate) in certificates.iter().enumerate() {
        CertificateInfo::parse(certificate).map_err(|reason| PemError::Certificate { number: index + 1, reason })?;
    }
    Ok(certificates)
}

/// The one private key of a PEM file: PKCS#8, SEC1 (elliptic curves) or PKCS#1 (RSA). Certificates beside it are fine.
/// The returned value zeroes nothing by itself: hand it to the TLS library and forget it.
///
/// # Errors
/// [`PemError`] when the file is damaged or does not hold exactly one key in the clear.
pub fn private_key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let labels = labels(pem);
    let legacy_encryption = pem.windows(ENCRYPTED_HEADER.len()).any(|window| window == ENCRYPTED_HEADER);
    if legacy_encryption || labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") {
        return Err(PemError::EncryptedKey);
    }
    let mut keys: Vec<PrivateKeyDer<'static>> =
        PrivateKeyDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| syntax(&error))?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(PemError::SeveralKeys(others + 1)),
        (None, _) => Err(PemError::NoKey(labels)),
    }
}

/// How OpenSSL's older format marks an encrypted key (RFC 1421).
const ENCRYPTED_HEADER: &[u8] = b"Proc-Type: 4,ENCRYPTED";

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are non-exhaustive; the rest is told in its words"
)]
fn syntax(error: &pem::Error) -> PemError {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    PemError::Syntax(match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line \"-----END {}-----\" is missing", text(end_marker))
        }
        // The line itself could be anything, a piece of a key included.
        pem::Error::IllegalSectionStart { .. } => "a section begins with a malformed line".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        pem::Error::SectionTooLarge => "a section is too large".to_owned(),
        other => other.to_string(),
    })
}

/// The kinds of sections in a file, for error messages: words between fixed markers, and nothing but letters.
fn labels(pem: &[u8]) -> Vec<String> {
    const MOST: usize = 8;
    let text = String::from_utf8_lossy(pem);
    let begins = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let plain =
        begins.filter(|label| label.len() <= 40 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '));
    plain.take(MOST).map(str::to_owned).collect()
}

fn found(labels: &[String]) -> String {
    if labels.is_empty() {
        ", nor anything else in PEM form".to_owned()
    } else {
        format!(", only: {}", labels.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Throw-away keys of every encoding, made by `openssl` for these tests; nothing trusts them.
    const SEC1: &str = include_str!("../fixtures/sec1.pem");
    const PKCS1: &str = include_str!("../fixtures/pkcs1.pem");
    const PKCS8_ENCRYPTED: &str = include_str!("../fixtures/pkcs8-encrypted.pem");
    const PKCS1_ENCRYPTED: &str = include_str!("../fixtures/pkcs1-encrypted.pem");

    fn minted() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn reads_a_chain_in_order_beside_other_sections() {
        let (one, key) = minted();
        let (two, _) = minted();
        let read = certificates_from_pem(format!("{key}\nsome words\n{one}{two}").as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[..1], certificates_from_pem(one.as_bytes()).unwrap());
    }

    #[test]
    fn reads_keys_of_every_encoding() {
        let (certificate, key) = minted();
        let mixed = format!("{certificate}{key}");
        assert!(matches!(private_key_from_pem(mixed.as_bytes()), Ok(PrivateKeyDer::Pkcs8(_))));
        assert!(matches!(private_key_from_pem(SEC1.as_bytes()), Ok(PrivateKeyDer::Sec1(_))));
        assert!(matches!(private_key_from_pem(PKCS1.as_bytes()), Ok(PrivateKeyDer::Pkcs1(_))));
    }

    #[test]
    fn says_what_was_found_instead() {
        let (certificate, key) = minted();
        assert_eq!(
            certificates_from_pem(key.as_bytes()).unwrap_err().to_string(),
            "holds no certificate (a section that begins with \"-----BEGIN CERTIFICATE-----\"), only: PRIVATE KEY"
        );
        assert_eq!(
            private_key_from_pem(certificate.as_bytes()).unwrap_err().to_string(),
            "holds no private key (PKCS#8, SEC1 or PKCS#1), only: CERTIFICATE"
        );
        assert_eq!(
            private_key_from_pem(b"").unwrap_err().to_string(),
            "holds no private key (PKCS#8, SEC1 or PKCS#1), nor anything else in PEM form"
        );
        let twice = private_key_from_pem(format!("{key}{key}").as_bytes()).unwrap_err();
        assert_eq!(twice, PemError::SeveralKeys(2));
    }

    #[test]
    fn encrypted_keys_get_a_remedy() {
        for pem in [PKCS8_ENCRYPTED, PKCS1_ENCRYPTED] {
            assert_eq!(private_key_from_pem(pem.as_bytes()).unwrap_err(), PemError::EncryptedKey);
        }
    }

    #[test]
    fn damage_is_told_without_showing_content() {
        let (_, key) = minted();
        let cut = key.replace("-----END PRIVATE KEY-----", "");
        let error = private_key_from_pem(cut.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "not a valid PEM file: the line \"-----END PRIVATE KEY-----\" is missing");
        let garbled = key.replace("\nM", "\n!M");
        assert_eq!(
            private_key_from_pem(garbled.as_bytes()).unwrap_err().to_string(),
            "not a valid PEM file: a section is not base64"
        );
        let (one, _) = minted();
        let not_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = certificates_from_pem(format!("{one}{not_x509}").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("certificate 2: not an X.509 certificate"), "{error}");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), to: u8) {
            for pem in [SEC1, PKCS8_ENCRYPTED] {
                let mut bytes = pem.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] = to;
                drop(private_key_from_pem(&bytes));
                drop(certificates_from_pem(&bytes));
            }
        }
    }
}

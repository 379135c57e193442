//! Requests for certificates (PKCS#10): whether one is well-formed, over a key of the one accepted kind, and made by
//! whoever holds that key.
//!
//! Called by the server before `ca` signs. What a request says of names is not even read: whose certificate it becomes
//! is decided by who asks.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use moorline_model::Fingerprint;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer as _,
};

use crate::certificate::fingerprint;

/// The longest request that is looked at, in bytes of PEM. Ours have about 400.
pub const MAX_REQUEST: usize = 8 * 1024;

/// A request whose maker holds its key: nothing else makes one of these.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    public_key: Vec<u8>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRequest {
    /// Too long to be one.
    #[error("has {0} bytes; a certificate request has {MAX_REQUEST} at most")]
    TooLong(usize),
    /// No PEM, or a section of another kind.
    #[error("holds no certificate request in PEM (\"-----BEGIN CERTIFICATE REQUEST-----\")")]
    Pem,
    /// Not DER, not PKCS#10, or followed by something.
    #[error("is not a certificate request (PKCS#10)")]
    Encoding,
    /// Another kind of key or of signature than the one that is accepted.
    #[error("is over a key of another kind: ECDSA on P-256, signed with SHA-256, is the one that is accepted")]
    Kind,
    /// Its maker does not hold the key.
    #[error("is not signed by the key that it asks a certificate for")]
    Signature,
}

impl CertificateRequest {
    /// Reads a request and verifies its signature.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidRequest> {
        if pem.len() > MAX_REQUEST {
            return Err(InvalidRequest::TooLong(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_no_pem| InvalidRequest::Pem)?;
        Self::from_der(&der)
    }

    /// As [`CertificateRequest::from_pem`], of a request in DER form.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidRequest> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_not_pkcs10| InvalidRequest::Encoding)?;
        if !rest.is_empty() {
            return Err(InvalidRequest::Encoding);
        }
        let info = &request.certification_request_info;
        let key = &info.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
            || curve != Some(OID_EC_P256)
            || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        {
            return Err(InvalidRequest::Kind);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.subject_public_key.data)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_wrong| InvalidRequest::Signature)?;
        Ok(Self { public_key: key.raw.to_vec() })
    }

    /// The public key as DER (`SubjectPublicKeyInfo`).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The SHA-256 of the public key, by which one is told from another.
    #[must_use]
    pub fn key_fingerprint(&self) -> Fingerprint {
        fingerprint(&self.public_key)
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertificateRequest").field(&self.key_fingerprint()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _,
    };

    use super::*;

    fn minted(key: &KeyPair) -> (Vec<u8>, String) {
        let request = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap().serialize_request(key).unwrap();
        (request.der().to_vec(), request.pem().unwrap())
    }

    #[test]
    fn tells_the_key_of_whoever_asks() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (der, pem) = minted(&key);
        let request = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(request.public_key(), key.subject_public_key_info());
        assert_eq!(request.key_fingerprint(), fingerprint(&key.subject_public_key_info()));
        assert_eq!(CertificateRequest::from_der(&der), Ok(request));
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let (der, _) = minted(&KeyPair::generate_for(kind).unwrap());
            assert_eq!(CertificateRequest::from_der(&der), Err(InvalidRequest::Kind));
        }
    }

    #[test]
    fn only_the_holder_of_the_key_may_ask() {
        let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (der, _) = minted(&mine);
        let ours = mine.subject_public_key_info();
        let at = der.windows(ours.len()).position(|window| window == ours).unwrap();
        let mut forged = der.clone();
        forged[at..at + ours.len()].copy_from_slice(&theirs.subject_public_key_info());
        assert_eq!(CertificateRequest::from_der(&forged), Err(InvalidRequest::Signature));
        let mut cut = der.clone();
        cut.pop();
        assert_eq!(CertificateRequest::from_der(&cut), Err(InvalidRequest::Encoding));
        let longer = [der, vec![0]].concat();
        assert_eq!(CertificateRequest::from_der(&longer), Err(InvalidRequest::Encoding));
    }

    #[test]
    fn what_is_no_request_is_told() {
        assert_eq!(CertificateRequest::from_pem(b"hello"), Err(InvalidRequest::Pem));
        assert_eq!(
            CertificateRequest::from_pem(&[b'x'; MAX_REQUEST + 1]),
            Err(InvalidRequest::TooLong(MAX_REQUEST + 1))
        );
        let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert_eq!(CertificateRequest::from_pem(certificate.as_bytes()), Err(InvalidRequest::Pem));
    }

    proptest! {
        #[test]
        fn damage_never_passes_and_never_panics(at in any::<prop::sample::Index>(), to: u8) {
            let key = KeyPair::generate().unwrap();
            let (mut der, _) = minted(&key);
            let at = at.index(der.len());
            prop_assume!(der[at] != to);
            der[at] = to;
            // The one part that no signature covers is how its own numbers are encoded.
            if let Ok(request) = CertificateRequest::from_der(&der) {
                prop_assert_eq!(request.public_key(), key.subject_public_key_info());
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(CertificateRequest::from_der(&bytes).is_err());
            prop_assert!(CertificateRequest::from_pem(&bytes).is_err());
        }
    }
}

//! Verifying peers of which one thing is to be known: that they hold the key of the certificate that they show.
//!
//! For Calico's Guardian, whose certificate is identified by its fingerprint: it may be of version 1, self-signed,
//! without names, an authority's. [`AnyHolder`] judges it as a client at the tunnel door, [`ThisLeaf`] as a server inside
//! a stream. webpki reads no such certificate, so `pki` does, and signatures are verified with the key alone. Whatever
//! is behind the leaf is not looked at. Called by `config`.

use std::sync::Arc;

use moorline_model::Fingerprint;
use moorline_pki::{CertificateInfo, InvalidCertificate, UnusableKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerMisbehaved,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use thiserror::Error;
use webpki::RawPublicKeyEntity;

use crate::signatures::verify_signatures;

/// The longest leaf that is read, in bytes. One with an RSA key of 8192 bits has about 3,000.
const MAX_LEAF: usize = 16 * 1024;

/// The most certificates behind the leaf, which nobody looks at. The TLS library bounds all of them together at 64 KiB.
const MAX_BEHIND: usize = 8;

/// Why a certificate is of no use although anybody's would do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    #[error("it has {0} bytes, and {MAX_LEAF} at most are read; make a smaller one")]
    Long(usize),
    #[error("{0} others are shown behind it, and {MAX_BEHIND} at most are taken; leave them out")]
    Chain(usize),
    #[error(transparent)]
    Unreadable(#[from] InvalidCertificate),
    #[error(transparent)]
    Key(#[from] UnusableKey),
    #[error("it is {presented}, not {expected}")]
    OtherLeaf { expected: Fingerprint, presented: Fingerprint },
}

impl From<Unfit> for rustls::Error {
    fn from(unfit: Unfit) -> Self {
        CertificateError::Other(OtherError(Arc::new(unfit))).into()
    }
}

/// Believes any client that holds the key of its certificate. Who that is, is not known by it.
#[derive(Debug)]
pub(crate) struct AnyHolder;

impl ClientCertVerifier for AnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        fit(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!(verify_tls12, verify_tls13);
}

/// Believes a server that holds the key of this one certificate and shows exactly it, whatever its name and its time.
#[derive(Debug)]
pub(crate) struct ThisLeaf(pub(crate) Fingerprint);

impl ServerCertVerifier for ThisLeaf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        fit(end_entity, intermediates)?;
        let (expected, presented) = (self.0, moorline_pki::fingerprint(end_entity));
        if presented != expected {
            return Err(Unfit::OtherLeaf { expected, presented }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!(verify_tls12, verify_tls13);
}

fn fit(leaf: &CertificateDer<'_>, behind: &[CertificateDer<'_>]) -> Result<(), Unfit> {
    if leaf.len() > MAX_LEAF {
        return Err(Unfit::Long(leaf.len()));
    }
    if behind.len() > MAX_BEHIND {
        return Err(Unfit::Chain(behind.len()));
    }
    Ok(CertificateInfo::parse(leaf)?.key_kind.check_usable()?)
}

/// TLS 1.3 fixes the curve by the scheme; the library checks that.
fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = key_of(certificate)?;
    let verified = verify_tls13_signature_with_raw_key(message, &key, signature, algorithms);
    // Whatever is wrong between key and signature: the peer did not sign with that key.
    verified.map_err(|error| {
        let unsigned = matches!(error, rustls::Error::InvalidCertificate(_));
        if unsigned { CertificateError::BadSignature.into() } else { error }
    })
}

/// In TLS 1.2 a scheme of ECDSA leaves the curve open: each of its algorithms is tried until one is for such a key.
fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let key = key_of(certificate)?;
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_unreadable| CertificateError::BadEncoding)?;
    let (_, candidates) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signature.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    for algorithm in *candidates {
        match key.verify_signature(*algorithm, message, signature.signature()) {
            Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
            Err(_wrong) => break,
        }
    }
    Err(CertificateError::BadSignature.into())
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    let info = CertificateInfo::parse(certificate).map_err(Unfit::from)?;
    Ok(SubjectPublicKeyInfoDer::from(info.public_key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const FIXTURES: [&str; 6] = [
        include_str!("../tests/fixtures/rsa-2048.crt"),
        include_str!("../tests/fixtures/rsa-2048-v3.crt"),
        include_str!("../tests/fixtures/ecdsa-p256.crt"),
        include_str!("../tests/fixtures/ecdsa-p384.crt"),
        include_str!("../tests/fixtures/ecdsa-p521.crt"),
        include_str!("../tests/fixtures/ed25519.crt"),
    ];

    fn leaf(which: prop::sample::Index) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(FIXTURES[which.index(FIXTURES.len())].as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn damage_never_panics(which: prop::sample::Index, at: prop::sample::Index, to: u8, cut: Option<prop::sample::Index>) {
            let mut der = leaf(which).to_vec();
            let at = at.index(der.len());
            der[at] = to;
            if let Some(cut) = cut {
                der.truncate(cut.index(der.len()));
            }
            let damaged = CertificateDer::from(der);
            if fit(&damaged, &[]).is_ok() {
                // What is fit can be used, whatever for.
                let key = key_of(&damaged).unwrap();
                drop(RawPublicKeyEntity::try_from(&key).map(|key| {
                    for algorithm in crate::config::provider().signature_verification_algorithms.all {
                        assert!(key.verify_signature(*algorithm, b"message", b"signature").is_err());
                    }
                }));
            }
        }

        #[test]
        fn noise_is_nobodys(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let noise = CertificateDer::from(noise);
            prop_assert!(matches!(fit(&noise, &[]), Err(Unfit::Unreadable(_))));
            prop_assert!(key_of(&noise).is_err());
        }
    }
}

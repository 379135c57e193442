//! The part of a verifier that is about signatures, which rustls asks of each.
//!
//! Used by the verifiers of this crate. They differ in whom they believe; that the peer holds the key of what it shows is
//! always verified, by one of two ways to read the key.

/// Writes that part into the `impl` of a verifier: by functions for TLS 1.2 and 1.3 of the form of rustls' own.
macro_rules! verify_signatures {
    ($tls12:path, $tls13:path) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $tls12(message, certificate, signature, &crate::config::provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls_pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            $tls13(message, certificate, signature, &crate::config::provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            crate::config::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

pub(crate) use verify_signatures;

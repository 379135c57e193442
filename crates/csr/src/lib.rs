//! Makes a private key and the request for a certificate over it (PKCS#10). Pure: no clock, no files, no network.
//!
//! Called by the agent when it joins and when it renews its certificate; the server reads requests with `pki` and signs
//! with `ca`. A request names nobody: whose certificate it becomes is for the server to say, which would not believe it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// A key of our own, and what asks for a certificate over it. The key is not part of the `Debug` text.
pub struct Request {
    /// The private key, PKCS#8 in PEM. It never leaves this machine.
    pub key_pem: Zeroizing<String>,
    /// The request, PKCS#10 in PEM, signed by that key.
    pub request_pem: String,
}

/// Why there is no request.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The operating system gives no randomness.
    #[error("cannot make a private key: {0}")]
    Key(#[source] rcgen::Error),
    /// The key that was kept is not one of ours. Holds nothing of it.
    #[error("the private key is none that a request can be made with (ECDSA P-256, PKCS#8 in PEM)")]
    Unusable,
    /// Signing failed.
    #[error("cannot sign the request: {0}")]
    Sign(#[source] rcgen::Error),
}

impl Request {
    /// A new key (P-256) and its request.
    ///
    /// # Errors
    /// [`RequestError::Key`] and [`RequestError::Sign`].
    pub fn generate() -> Result<Self, RequestError> {
        Self::over(&Wiped(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RequestError::Key)?))
    }

    /// A request over a key that was made before: asking again with the same key gets the same certificate's standing,
    /// where the first answer was lost.
    ///
    /// # Errors
    /// [`RequestError::Unusable`] and [`RequestError::Sign`].
    pub fn for_key(key_pem: &str) -> Result<Self, RequestError> {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256);
        Self::over(&Wiped(key.map_err(|_says_too_much| RequestError::Unusable)?))
    }

    fn over(key: &Wiped) -> Result<Self, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key.0).map_err(RequestError::Sign)?;
        let request_pem = request.pem().map_err(RequestError::Sign)?;
        Ok(Self { key_pem: Zeroizing::new(key.0.serialize_pem()), request_pem })
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

/// A key that is overwritten once its PEM text was made.
struct Wiped(KeyPair);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use moorline_pki::CertificateRequest;

    use super::*;

    #[test]
    fn every_request_has_a_key_of_its_own() {
        let (one, two) = (Request::generate().unwrap(), Request::generate().unwrap());
        let read = |request: &Request| CertificateRequest::from_pem(request.request_pem.as_bytes()).unwrap();
        assert_ne!(read(&one).public_key(), read(&two).public_key());
        assert_ne!(*one.key_pem, *two.key_pem);
        assert_eq!(format!("{one:?}"), "Request { .. }");
    }

    #[test]
    fn a_key_that_was_kept_asks_for_the_same() {
        let first = Request::generate().unwrap();
        let again = Request::for_key(&first.key_pem).unwrap();
        let read = |request: &Request| CertificateRequest::from_pem(request.request_pem.as_bytes()).unwrap();
        assert_eq!(read(&first).public_key(), read(&again).public_key());
        assert_eq!(first.key_pem, again.key_pem);
        let error = Request::for_key("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap_err();
        assert!(matches!(error, RequestError::Unusable) && !format!("{error:?} {error}").contains("c2Vj"));
    }
}

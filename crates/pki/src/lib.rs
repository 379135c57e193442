//! Reads and checks certificates, keys, fingerprints and trust bundles. Pure: no clock (`now` is an argument), no
//! files, no network, and no cryptography but hashing and the one signature of a certificate request: chains are
//! verified by the TLS library.
//!
//! Called by `ca` and `mtls`, by the server and the agent while they read their configuration, and by the command
//! line. Everything here takes bytes from strangers: it returns errors in words and never panics.

mod certificate;
mod identity;
mod key_kind;
mod pem;
mod request;
mod validity;

pub use certificate::{CertificateInfo, InvalidCertificate, fingerprint};
pub use identity::{AUTHENTICATED_GROUP, IdentityError, identity_of};
pub use key_kind::{KeyKind, MAX_RSA_BITS, MIN_RSA_BITS, UnusableKey};
pub use pem::{PemError, certificates_from_pem, private_key_from_pem};
pub use request::{CertificateRequest, InvalidRequest, MAX_REQUEST};
pub use rustls_pki_types::{CertificateDer, PrivateKeyDer};
pub use validity::{InvalidTime, Span, check_validity};

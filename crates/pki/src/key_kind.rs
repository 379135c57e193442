//! What kind of public key a certificate holds, and whether TLS here can do anything with it.
//!
//! Asked where a certificate is nobody's but its holder's: the TLS library judges the keys of a chain by itself.

use std::fmt;

use thiserror::Error;
use x509_parser::{
    der_parser::asn1_rs::Oid,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519,
    },
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// The least bits of an RSA key (NIST SP 800-131A).
pub const MIN_RSA_BITS: usize = 2048;

/// The most bits of an RSA key: what the TLS library verifies, and a bound on what a stranger's signature costs.
pub const MAX_RSA_BITS: usize = 8192;

/// The longest object identifier that is told in words; those in use have half of it.
const LONGEST_NAME: usize = 40;

/// A kind of public key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyKind {
    /// RSA.
    Rsa {
        /// The length of the modulus.
        bits: usize,
    },
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// Any other, by its object identifier.
    Other(String),
}

/// A key that TLS here has no use for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "its key is {0}; make a new one: RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
)]
pub struct UnusableKey(KeyKind);

impl KeyKind {
    pub(crate) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_SIG_ED25519 {
            return Self::Ed25519;
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            return match curve {
                Some(curve) if curve == OID_EC_P256 => Self::EcdsaP256,
                Some(curve) if curve == OID_NIST_EC_P384 => Self::EcdsaP384,
                Some(curve) if curve == OID_NIST_EC_P521 => Self::EcdsaP521,
                Some(curve) => Self::other(&curve),
                None => Self::other(algorithm),
            };
        }
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if *algorithm == OID_PKCS1_RSAENCRYPTION => Self::Rsa { bits: bits(rsa.modulus) },
            _ => Self::other(algorithm),
        }
    }

    /// Whether TLS here can verify signatures of such a key.
    ///
    /// # Errors
    /// [`UnusableKey`], with what to make instead.
    pub fn check_usable(&self) -> Result<(), UnusableKey> {
        match self {
            Self::Rsa { bits } if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(bits) => Ok(()),
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::Ed25519 => Ok(()),
            Self::Rsa { .. } | Self::Other(_) => Err(UnusableKey(self.clone())),
        }
    }

    fn other(oid: &Oid<'_>) -> Self {
        Self::Other(oid.to_id_string().chars().take(LONGEST_NAME).collect())
    }
}

/// The length of a big-endian number without the zeros before it.
fn bits(number: &[u8]) -> usize {
    let mut significant = number.iter().skip_while(|byte| **byte == 0);
    let Some(first) = significant.next() else { return 0 };
    let of_the_first = u8::BITS - first.leading_zeros();
    of_the_first as usize + significant.count() * u8::BITS as usize
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA of {bits} bits"),
            Self::EcdsaP256 => f.write_str("ECDSA on P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA on P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA on P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "of a kind that is not known here ({oid})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_number_is_that_of_its_value() {
        for (number, expected) in
            [(&[][..], 0), (&[0, 0], 0), (&[1], 1), (&[0, 0x80], 8), (&[0x80, 0], 16), (&[0, 0x7f, 0xff], 15)]
        {
            assert_eq!(bits(number), expected, "{number:?}");
        }
        assert_eq!(bits(&[0xff; 256]), 2048);
    }

    #[test]
    fn weak_and_odd_keys_are_refused_with_a_remedy() {
        for bits in [MIN_RSA_BITS, 3072, 4096, MAX_RSA_BITS] {
            assert_eq!(KeyKind::Rsa { bits }.check_usable(), Ok(()));
        }
        for bits in [0, 1024, MIN_RSA_BITS - 1, MAX_RSA_BITS + 1] {
            assert!(KeyKind::Rsa { bits }.check_usable().is_err());
        }
        assert_eq!(
            KeyKind::Rsa { bits: 1024 }.check_usable().unwrap_err().to_string(),
            "its key is RSA of 1024 bits; make a new one: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or \
             Ed25519"
        );
        assert!(KeyKind::Other("1.2.3".to_owned()).check_usable().is_err());
    }
}

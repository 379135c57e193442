//! The secret of a join token: 256 random bits, which one side shows and the other knows by their hash.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a secret.
const BYTES: usize = 32;

/// The secret of a join token. Wiped when dropped; not part of any `Debug` text.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret(Zeroizing<[u8; BYTES]>);

/// A text that is not the secret of a join token. Says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is not the secret of a join token")]
pub struct InvalidSecret;

impl JoinSecret {
    /// Wraps bytes that were drawn at random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be hashed and to be sent to a server that was verified.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

impl FromStr for JoinSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let decoded = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_says_too_much| InvalidSecret)?;
        let bytes: [u8; BYTES] = decoded.as_slice().try_into().map_err(|_length| InvalidSecret)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

impl Serialize for JoinSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.0)))
    }
}

impl<'de> Deserialize<'de> for JoinSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(D::Error::custom)
    }
}

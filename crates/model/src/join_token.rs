//! What the server keeps of a token with which an agent may join: everything but its secret.

use serde::{Deserialize, Serialize};

use crate::{Fingerprint, Timestamp};

/// Join tokens of one cluster that a record keeps, used and expired ones included.
pub const MAX_JOIN_TOKENS: usize = 8;

/// A join token as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Names it in lists and for revocation; not secret.
    pub id: String,
    /// The SHA-256 of its secret, which has 256 random bits.
    pub hash: Fingerprint,
    /// When it was made.
    pub created: Timestamp,
    /// The last second in which it can be used.
    pub expires: Timestamp,
    /// Who asked for it.
    pub created_by: String,
    /// When it was used; it cannot be used for another key any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// The SHA-256 of the public key that it was used for: whoever lost the answer may ask again for the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_for: Option<Fingerprint>,
    /// The certificate that was the answer, in PEM: what whoever asks again gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

//! The identity of a request, as it travels from the server to the agent: base64url of JSON in one header.
//!
//! One header rather than one for each part, so that "exactly one" can be checked, and base64 so that no byte of a user
//! name can mean anything to an HTTP parser.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use moorline_model::Identity;
use thiserror::Error;

use crate::{headers, limits};

/// The value of the [`headers::IDENTITY`] header for this identity; at most [`limits::IDENTITY_HEADER`] bytes, and
/// marked as sensitive so that nobody logs or compresses it.
#[must_use]
#[expect(clippy::expect_used, reason = "an identity is strings, and base64url is within the header alphabet")]
pub fn write_identity(identity: &Identity) -> HeaderValue {
    let json = serde_json::to_vec(identity).expect("an identity is plain data");
    let mut value = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(json)).expect("base64url is a header value");
    value.set_sensitive(true);
    value
}

/// Reads the identity of a request. There is no default: without exactly one sound header the request must be refused,
/// since a request without a user would run as the agent itself.
///
/// # Errors
/// The header is absent, repeated, too large or not as [`write_identity`] writes it. Where two headers carry the same
/// value they are still refused: somebody else wrote one of them.
pub fn read_identity(request: &HeaderMap) -> Result<Identity, IdentityError> {
    let mut values = request.get_all(headers::IDENTITY).iter();
    let value = values.next().ok_or(IdentityError::Missing)?;
    if values.next().is_some() {
        return Err(IdentityError::Repeated);
    }
    if value.len() > limits::IDENTITY_HEADER {
        return Err(IdentityError::TooLarge { length: value.len() });
    }
    let json = URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(IdentityError::NotBase64)?;
    serde_json::from_slice(&json).map_err(IdentityError::NotAnIdentity)
}

/// Why a request has no identity. Messages never repeat what was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no identity header.
    #[error("the request carries no identity")]
    Missing,
    /// There is more than one identity header.
    #[error("the request carries more than one identity")]
    Repeated,
    /// The header is longer than any identity is.
    #[error("the identity header has {length} bytes, more than the {max} allowed", max = limits::IDENTITY_HEADER)]
    TooLarge {
        /// How long it is.
        length: usize,
    },
    /// The header is not base64url without padding.
    #[error("the identity header is not base64url")]
    NotBase64(#[source] base64::DecodeError),
    /// The JSON is broken or not an identity: no user, a control character, a field that this version does not know.
    #[error("the identity header does not hold an identity")]
    NotAnIdentity(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests;

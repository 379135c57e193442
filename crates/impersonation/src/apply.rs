//! Makes a request somebody's.

use http::{HeaderMap, HeaderName, HeaderValue, header::MaxSizeReached};
use moorline_model::Identity;
use thiserror::Error;

use crate::{extra, names, strip};

/// Removes whatever says who the request is from (see [`strip`]), then writes this identity, and nothing else.
///
/// The user name is written first. Names go out as UTF-8 bytes, as kube-apiserver expects them.
///
/// # Errors
/// The head would hold more headers than a [`HeaderMap`] can. The head is then empty: it must not be sent, since
/// without a user it would speak for the agent.
pub fn apply(headers: &mut HeaderMap, identity: &Identity) -> Result<(), ApplyError> {
    strip(headers);
    let written = write(headers, identity);
    if written.is_err() {
        headers.clear();
    }
    written
}

/// Why an identity cannot be written. Messages do not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The head would hold more headers than can be.
    #[error("the request has too many headers")]
    TooManyHeaders,
    /// A part of the identity is not a header; [`Identity`] does not let that happen.
    #[error("the identity cannot be written as headers")]
    NotAHeader,
}

impl From<MaxSizeReached> for ApplyError {
    fn from(_: MaxSizeReached) -> Self {
        Self::TooManyHeaders
    }
}

fn write(headers: &mut HeaderMap, identity: &Identity) -> Result<(), ApplyError> {
    append(headers, HeaderName::from_static(names::IMPERSONATE_USER), identity.user())?;
    if let Some(uid) = identity.uid() {
        append(headers, HeaderName::from_static(names::IMPERSONATE_UID), uid)?;
    }
    for group in identity.groups() {
        append(headers, HeaderName::from_static(names::IMPERSONATE_GROUP), group)?;
    }
    for (key, values) in identity.extra() {
        let name = extra::header_name(key).ok_or(ApplyError::NotAHeader)?;
        for value in values {
            append(headers, name.clone(), value)?;
        }
    }
    Ok(())
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), ApplyError> {
    let value = HeaderValue::from_bytes(value.as_bytes()).ok().ok_or(ApplyError::NotAHeader)?;
    headers.try_append(name, value)?;
    Ok(())
}

#[cfg(test)]
mod tests;

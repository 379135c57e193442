//! What a caller asks for by `Impersonate-*` (`kubectl --as`). Only `access` says whether they may have it.

use http::{HeaderMap, HeaderValue};
use moorline_model::{Identity, InvalidIdentity};
use thiserror::Error;

use crate::{
    extra,
    names::{IMPERSONATE, IMPERSONATE_EXTRA, IMPERSONATE_GROUP, IMPERSONATE_UID, IMPERSONATE_USER},
};

/// Whom a caller wants to act as; none where no impersonation header is there. Every group, uid and extra value in
/// the result was asked for, so each has to be authorised.
///
/// # Errors
/// The headers do not make one identity; answer with 400. Stricter than kube-apiserver, which takes the first of
/// several user names, takes an empty one for none, and ignores headers that it does not know: each would give the
/// caller another identity than one of two readers expects.
pub fn requested(headers: &HeaderMap) -> Result<Option<Identity>, RequestedError> {
    if !headers.keys().any(|name| name.as_str().starts_with(IMPERSONATE)) {
        return Ok(None);
    }
    let user = single(headers, IMPERSONATE_USER)?.ok_or(RequestedError::NoUser)?;
    let mut identity = Identity::new(user)?;
    if let Some(uid) = single(headers, IMPERSONATE_UID)? {
        identity = identity.with_uid(uid)?;
    }
    identity = identity.with_groups(texts(headers, IMPERSONATE_GROUP)?)?;
    for name in headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with(IMPERSONATE)) {
        if let Some(encoded) = name.strip_prefix(IMPERSONATE_EXTRA) {
            let key = extra::key(encoded).ok_or(RequestedError::NotText)?;
            identity = identity.with_extra(key, texts(headers, name)?)?;
        } else if ![IMPERSONATE_USER, IMPERSONATE_UID, IMPERSONATE_GROUP].contains(&name) {
            return Err(RequestedError::UnknownHeader);
        }
    }
    Ok(Some(identity))
}

/// Why the impersonation headers of a request do not make an identity. Messages are for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestedError {
    /// Groups, uid or extra without a user.
    #[error("Impersonate-Group, Impersonate-Uid and Impersonate-Extra-* need an Impersonate-User")]
    NoUser,
    /// Two users or two uids.
    #[error("Impersonate-User and Impersonate-Uid must not be repeated")]
    Repeated,
    /// Bytes that are not UTF-8.
    #[error("an Impersonate-* header is not UTF-8")]
    NotText,
    /// A header that begins with `Impersonate-` and is none that is known.
    #[error("unknown Impersonate-* header; known are Impersonate-User, -Group, -Uid and -Extra-*")]
    UnknownHeader,
    /// A part is empty, too long, or holds a control character.
    #[error("cannot impersonate: {0}")]
    Invalid(InvalidIdentity),
}

impl From<InvalidIdentity> for RequestedError {
    fn from(invalid: InvalidIdentity) -> Self {
        Self::Invalid(invalid)
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, RequestedError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(text).transpose()?;
    if values.next().is_some() {
        return Err(RequestedError::Repeated);
    }
    Ok(first)
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, RequestedError> {
    headers.get_all(name).iter().map(text).collect()
}

fn text(value: &HeaderValue) -> Result<&str, RequestedError> {
    str::from_utf8(value.as_bytes()).ok().ok_or(RequestedError::NotText)
}

#[cfg(test)]
mod tests;

//! Second step: who asks. A verified client certificate, or a bearer token.
//!
//! Called by `serve` for every request, never once for a connection: a token that is taken out of the file stops working
//! with the next request, also on a connection that is already open, and so does a certificate that expires.
//!
//! Where a request has both, the certificate decides and the token is not looked at, which is what kube-apiserver does.
//! There is no anonymous user: a wrong token never falls through to anything.

use std::sync::Arc;

use http::{HeaderMap, header};
use moorline_access::StaticTokens;
use moorline_model::{Identity, Timestamp};
use moorline_mtls::VerifiedPeer;
use thiserror::Error;

use crate::clock;

use super::metrics::Metrics;

/// A user who has shown who they are.
pub(super) struct Authenticated {
    identity: Identity,
}

/// The user that the client certificate of a connection names.
pub(super) struct CertificateUser {
    identity: Identity,
    not_after: Timestamp,
}

/// Why nobody knows who asks. Never repeats what was sent.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AuthnError {
    /// Neither a certificate nor a token.
    #[error("the request has neither a client certificate nor a bearer token")]
    Missing,
    /// Several `Authorization` headers.
    #[error("the request has more than one Authorization header")]
    Repeated,
    /// `Authorization` holds something else than a bearer token.
    #[error("the Authorization header does not hold a bearer token")]
    NotBearer,
    /// Nobody has that token.
    #[error("the bearer token is not known")]
    WrongToken,
    /// The certificate was valid when the connection began.
    #[error("the client certificate has expired since the connection began")]
    Expired,
}

impl Authenticated {
    /// Finds the user of a request.
    ///
    /// # Errors
    /// [`AuthnError`]; the user is told only that there is no entry.
    pub(super) fn find(
        certificate: Option<&CertificateUser>,
        tokens: &StaticTokens,
        headers: &HeaderMap,
        metrics: &Metrics,
    ) -> Result<Self, AuthnError> {
        if let Some(certificate) = certificate {
            if clock::now() > certificate.not_after {
                return Err(AuthnError::Expired);
            }
            metrics.by_certificate.inc();
            return Ok(Self { identity: certificate.identity.clone() });
        }
        let token = bearer(headers)?;
        let identity = tokens.authenticate(token).ok_or(AuthnError::WrongToken)?;
        metrics.by_token.inc();
        Ok(Self { identity })
    }

    pub(super) fn into_identity(self) -> Identity {
        self.identity
    }
}

impl CertificateUser {
    /// The user of a connection, if its certificate names one. One that names none counts as no certificate: its
    /// holder may still have a token.
    pub(super) fn of(peer: &VerifiedPeer) -> Option<Arc<Self>> {
        match peer.identity() {
            Ok(identity) => Some(Arc::new(Self { identity, not_after: peer.not_after() })),
            Err(error) => {
                tracing::info!(%error, fingerprint = %peer.fingerprint(), "a client certificate names no user");
                None
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, AuthnError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthnError::Missing)?;
    if values.next().is_some() {
        return Err(AuthnError::Repeated);
    }
    let text = value.to_str().or(Err(AuthnError::NotBearer))?;
    let (scheme, token) = text.trim().split_once(' ').ok_or(AuthnError::NotBearer)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthnError::NotBearer);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token(values: &[&'static str]) -> Result<String, AuthnError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn a_bearer_token_is_the_only_thing_read() {
        for good in ["Bearer abc", "bearer abc", "BEARER   abc  "] {
            assert_eq!(token(&[good]).unwrap(), "abc", "{good}");
        }
        assert_eq!(token(&[]), Err(AuthnError::Missing));
        assert_eq!(token(&["Bearer a", "Bearer b"]), Err(AuthnError::Repeated));
        for bad in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc", "Negotiate x"] {
            assert_eq!(token(&[bad]), Err(AuthnError::NotBearer), "{bad}");
        }
    }
}

//! Second step: who asks. A verified client certificate, or a bearer token.
//!
//! The order is kube-apiserver's: the client certificate, the table of static tokens, then the [`Chain`] of whoever is
//! asked elsewhere (OpenID Connect, then Kubernetes' `TokenReview`). The first who knows the user decides. One that
//! cannot be asked hides nobody's success; where nobody else knows the token, the answer is 503 rather than
//! kube-apiserver's 401, since a 401 makes clients throw away credentials that are good.
//!
//! Called by `serve` for every request, never once for a connection: a token that is taken out of the file stops working
//! with the next request, also on a connection that is already open, and so does a certificate that expires.
//!
//! Where a request has both, the certificate decides and the token is not looked at, which is what kube-apiserver does.
//! Who sends no credential at all is nobody, unless `--anonymous-auth` makes them `system:anonymous`, which has no right
//! of its own. A credential that is wrong in any way, a certificate without a name included, never falls through to that.

use std::{pin::Pin, sync::Arc};

use http::{HeaderMap, header};
use moorline_access::{Authenticator, AuthenticatorUnavailable, StaticTokens};
use moorline_model::{Identity, Timestamp};
use moorline_mtls::VerifiedPeer;
use thiserror::Error;

use crate::clock;

use super::metrics::Metrics;

/// A user who has shown who they are.
pub(super) struct Authenticated {
    identity: Identity,
    anonymous: bool,
}

/// The user that the client certificate of a connection names; `None` where it names none.
pub(super) struct CertificateUser {
    identity: Option<Identity>,
    not_after: Timestamp,
}

/// Whom to ask about tokens that the table does not have, in this order.
#[derive(Default)]
pub(crate) struct Chain {
    links: Vec<Box<dyn Link>>,
}

/// An [`Authenticator`] behind a pointer. What it boxes is made only for tokens that the table does not have.
trait Link: Send + Sync {
    fn ask<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
}

type Answer = Result<Option<Identity>, AuthenticatorUnavailable>;

impl<A: Authenticator> Link for A {
    fn ask<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(self.authenticate(token))
    }
}

impl Chain {
    /// Adds one that is asked after all others.
    pub(crate) fn push(&mut self, authenticator: impl Authenticator + 'static) {
        self.links.push(Box::new(authenticator));
    }

    async fn find(&self, token: &str) -> Result<Identity, AuthnError> {
        let mut unavailable = None;
        for link in &self.links {
            match link.ask(token).await {
                Ok(Some(identity)) => return Ok(identity),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "asking the next authenticator");
                    unavailable.get_or_insert(error);
                }
            }
        }
        Err(unavailable.map_or(AuthnError::WrongToken, AuthnError::Unavailable))
    }
}

/// Where users are looked up.
pub(super) struct Sources<'a> {
    /// The table of static tokens.
    pub(super) tokens: &'a StaticTokens,
    /// Who is asked about all other tokens.
    pub(super) chain: &'a Chain,
    /// Whether those without a credential are a user, too.
    pub(super) anonymous: bool,
    /// Where it is counted; nowhere if it is not the first time for this request.
    pub(super) metrics: Option<&'a Metrics>,
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
    /// It is now somebody else's, or its user has other groups than when the request began.
    #[error("the credential now stands for another identity")]
    Changed,
    /// Whoever might know the token cannot be asked.
    #[error(transparent)]
    Unavailable(AuthenticatorUnavailable),
}

impl Authenticated {
    /// Finds the user of a request.
    ///
    /// # Errors
    /// [`AuthnError`]; the user is told only that there is no entry.
    pub(super) async fn find(
        certificate: Option<&CertificateUser>,
        sources: &Sources<'_>,
        headers: &HeaderMap,
    ) -> Result<Self, AuthnError> {
        if let Some((certificate, identity)) = certificate.and_then(|known| Some((known, known.identity.as_ref()?))) {
            if clock::now() > certificate.not_after {
                return Err(AuthnError::Expired);
            }
            if let Some(metrics) = sources.metrics {
                metrics.by_certificate.inc();
            }
            return Ok(Self { identity: identity.clone(), anonymous: false });
        }
        let nothing = certificate.is_none() && !moorline_impersonation::has_bearer_subprotocol(headers);
        let token = match bearer(headers) {
            Err(AuthnError::Missing) if nothing && sources.anonymous => {
                if let Some(metrics) = sources.metrics {
                    metrics.anonymous.inc();
                }
                return Ok(Self { identity: moorline_access::anonymous(), anonymous: true });
            }
            found => found?,
        };
        let identity = match sources.tokens.authenticate(token) {
            Some(identity) => identity,
            None => sources.chain.find(token).await?,
        };
        if let Some(metrics) = sources.metrics {
            metrics.by_token.inc();
        }
        Ok(Self { identity, anonymous: false })
    }

    /// Whether they have shown nothing at all.
    pub(super) fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn into_identity(self) -> Identity {
        self.identity
    }
}

impl CertificateUser {
    /// The user of a connection, if its certificate names one. The holder of one that names none may still have a token.
    pub(super) fn of(peer: &VerifiedPeer) -> Arc<Self> {
        let identity = peer.identity().map_err(|error| {
            tracing::info!(%error, fingerprint = %peer.fingerprint(), "a client certificate names no user");
        });
        Arc::new(Self { identity: identity.ok(), not_after: peer.not_after() })
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
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(char::is_whitespace) {
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
        for bad in
            ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc", "Negotiate x", "Bearer a b", "Bearer a\tb"]
        {
            assert_eq!(token(&[bad]), Err(AuthnError::NotBearer), "{bad}");
        }
    }

    async fn nameless(certificate: Option<&CertificateUser>, headers: &HeaderMap) -> Result<String, AuthnError> {
        let tokens = StaticTokens::parse("secret,ann,,\n").unwrap();
        let sources = Sources { tokens: &tokens, chain: &Chain::default(), anonymous: true, metrics: None };
        let found = Authenticated::find(certificate, &sources, headers).await?;
        assert_eq!(found.is_anonymous(), found.identity().user() == "system:anonymous");
        Ok(found.into_identity().user().to_owned())
    }

    #[tokio::test]
    async fn only_who_shows_nothing_at_all_is_anonymous() {
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
        };
        let nothing = HeaderMap::new();
        assert_eq!(nameless(None, &nothing).await.unwrap(), "system:anonymous");
        assert_eq!(
            nameless(None, &with("sec-websocket-protocol", "v5.channel.k8s.io")).await.unwrap(),
            "system:anonymous"
        );
        assert_eq!(nameless(None, &with("authorization", "Bearer secret")).await.unwrap(), "ann");
        for wrong in ["", "Bearer", "Bearer wrong", "Basic abc", "Bearer a b"] {
            assert!(nameless(None, &with("authorization", wrong)).await.is_err(), "{wrong:?}");
        }
        let hidden = with("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2Vj");
        assert_eq!(nameless(None, &hidden).await, Err(AuthnError::Missing));
        let later = Timestamp::from_unix_seconds(clock::now().unix_seconds() + 60);
        let certificate = |identity| CertificateUser { identity, not_after: later };
        assert_eq!(nameless(Some(&certificate(None)), &nothing).await, Err(AuthnError::Missing));
        assert_eq!(nameless(Some(&certificate(None)), &with("authorization", "Bearer secret")).await.unwrap(), "ann");
        let bob = certificate(Some(Identity::new("bob").unwrap()));
        assert_eq!(nameless(Some(&bob), &nothing).await.unwrap(), "bob");
        let ended = CertificateUser { not_after: Timestamp::from_unix_seconds(0), ..bob };
        assert_eq!(nameless(Some(&ended), &nothing).await, Err(AuthnError::Expired));
    }

    struct Scripted(Result<Option<&'static str>, &'static str>);

    impl Authenticator for Scripted {
        async fn authenticate(&self, _token: &str) -> Answer {
            match self.0 {
                Ok(user) => Ok(user.map(|user| Identity::new(user).unwrap())),
                Err(why) => Err(AuthenticatorUnavailable(why.to_owned())),
            }
        }
    }

    async fn found(scripts: impl IntoIterator<Item = Scripted>) -> Result<String, AuthnError> {
        let mut chain = Chain::default();
        scripts.into_iter().for_each(|script| chain.push(script));
        chain.find("token").await.map(|identity| identity.user().to_owned())
    }

    #[tokio::test]
    async fn one_that_fails_hides_nobodys_success_and_lets_nobody_in() {
        let (nobody, down) = (|| Scripted(Ok(None)), || Scripted(Err("down")));
        let (ann, bob) = (|| Scripted(Ok(Some("ann"))), || Scripted(Ok(Some("bob"))));
        assert_eq!(found([]).await, Err(AuthnError::WrongToken));
        assert_eq!(found([nobody(), nobody()]).await, Err(AuthnError::WrongToken));
        assert_eq!(found([ann(), bob()]).await.unwrap(), "ann");
        assert_eq!(found([nobody(), bob()]).await.unwrap(), "bob");
        assert_eq!(found([down(), bob()]).await.unwrap(), "bob");
        assert_eq!(found([ann(), down()]).await.unwrap(), "ann");
        for scripts in [[down(), nobody()], [nobody(), down()]] {
            let error = AuthnError::Unavailable(AuthenticatorUnavailable("down".to_owned()));
            assert_eq!(found(scripts).await, Err(error));
        }
    }
}

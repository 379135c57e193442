//! Whose a token is: the issuers, and what was verified a moment ago.
//!
//! Made and asked by the server.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use moka::sync::Cache;
use moorline_access::{Authenticator, AuthenticatorUnavailable};
use moorline_model::Identity;
use moorline_mtls::{HttpsConnector, HttpsTrust, Roots, RootsError};
use thiserror::Error;

use crate::{
    clock,
    config::Configuration,
    issuer::Issuer,
    token::{MAX_TOKEN, Presented, Rejected},
};

/// Bytes of tokens whose users are remembered; a user takes no more than the token that names it. Only tokens that
/// were verified are remembered, so that garbage takes nothing.
const MAX_REMEMBERED: u64 = 32 * 1024 * 1024;

/// What remembering costs besides, in bytes.
const OVERHEAD: usize = 512;

/// An authenticator of OpenID Connect tokens.
pub struct Oidc {
    issuers: Vec<Issuer>,
    key: hmac::Key,
    remembered: Cache<[u8; 32], Arc<Remembered>>,
}

struct Remembered {
    identity: Identity,
    bytes: usize,
    issuer: usize,
    generation: u64,
    expires: u64,
}

/// Why there is no authenticator.
#[derive(Debug, Error)]
pub enum OidcError {
    /// The authorities that an issuer's certificate must chain to.
    #[error("the authorities of the issuer {issuer}: {error}")]
    Authorities {
        /// Which issuer.
        issuer: String,
        /// What is wrong with them.
        error: RootsError,
    },
    /// The operating system gives no randomness.
    #[error("no random key can be made")]
    Randomness,
}

impl Oidc {
    /// An authenticator that believes nobody before [`Oidc::keep_keys`] runs. A user is remembered for at most
    /// `remember` and never longer than its token and the keys of its issuer last. Reads the system's authorities where
    /// an issuer has none of its own, so it blocks.
    ///
    /// # Errors
    /// [`OidcError`].
    pub fn new(configuration: Configuration, remember: Duration) -> Result<Self, OidcError> {
        let mut issuers = Vec::new();
        for config in configuration.issuers {
            let trust = match &config.authorities {
                Some(pem) => Roots::from_pem(pem.as_bytes()).map(|roots| HttpsTrust::Roots(roots.into())),
                None => HttpsTrust::system(),
            };
            let trust = trust.map_err(|error| OidcError::Authorities { issuer: config.url.clone(), error })?;
            issuers.push(Issuer::new(config, HttpsConnector::new(trust, None, &[])));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new());
        let remembered = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .weigher(|_key, value: &Arc<Remembered>| u32::try_from(value.bytes).unwrap_or(u32::MAX))
            .time_to_live(remember)
            .build();
        Ok(Self { issuers, key: key.map_err(|_unspecified| OidcError::Randomness)?, remembered })
    }

    /// Keeps the keys of all issuers fresh. Never ends; to be run as long as tokens are to be believed.
    pub async fn keep_keys(&self) {
        join_all(self.issuers.iter().map(Issuer::keep)).await;
    }

    async fn find(&self, token: &str) -> Result<Option<Identity>, AuthenticatorUnavailable> {
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let Some(presented) = Presented::read(token) else { return Ok(None) };
        let Some(index) = self.issuers.iter().position(|issuer| issuer.config().url == presented.issuer()) else {
            return Ok(None);
        };
        let Some(issuer) = self.issuers.get(index) else { return Ok(None) };
        let key = self.hash(token);
        if let Some(known) = self.remembered.get(&key)
            && known.issuer == index
            && Some(known.generation) == issuer.generation()
            && clock::now() < known.expires
        {
            return Ok(Some(known.identity.clone()));
        }
        let outcome = issuer.verify(&presented).await?.and_then(|found| {
            let identity = issuer.config().mapping.identity(&found.verified.claims).map_err(Rejected::from)?;
            Ok((identity, found))
        });
        match outcome {
            Err(reason) => {
                tracing::debug!(issuer = issuer.config().url, %reason, "a token is not believed");
                Ok(None)
            }
            Ok((identity, found)) => {
                let remembered = Remembered {
                    identity: identity.clone(),
                    bytes: token.len() + OVERHEAD,
                    issuer: index,
                    generation: found.generation,
                    expires: found.verified.expires,
                };
                self.remembered.insert(key, Arc::new(remembered));
                Ok(Some(identity))
            }
        }
    }

    fn hash(&self, token: &str) -> [u8; 32] {
        let mut hash = [0; 32];
        let tag = hmac::sign(&self.key, token.as_bytes());
        for (to, from) in hash.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl Authenticator for Oidc {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> impl Future<Output = Result<Option<Identity>, AuthenticatorUnavailable>> + Send + 'a {
        self.find(token)
    }
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuers", &self.issuers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

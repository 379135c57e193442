//! One issuer: its keys, kept fresh by one task, and waited for by those who need newer ones.
//!
//! Made and asked by `authenticator`. Only [`Issuer::keep`] fetches, so that any number of requests with an unknown key
//! cost the issuer one fetch in ten seconds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use moorline_access::AuthenticatorUnavailable;
use moorline_mtls::HttpsConnector;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    clock,
    config::{IssuerConfig, https},
    fetch::{self, FetchError},
    keys::{InvalidKeySet, KeySet},
    token::{Presented, Rejected, Verified},
};

/// How often keys are fetched anew: a key that the issuer withdraws counts for so long at most.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// Between two fetches, whoever asks for them.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// After a fetch that failed.
const RETRY: Duration = Duration::from_secs(30);

/// How long keys count while the issuer cannot be reached. After that nobody is believed until it can be.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request waits for a fetch: both documents, and the hand-over.
const WAIT: Duration = Duration::from_secs(12);

pub(crate) struct Issuer {
    config: IssuerConfig,
    connector: HttpsConnector,
    state: watch::Sender<State>,
    wanted: Notify,
}

/// What the last fetches brought.
#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    /// Fetches that came to an end.
    attempts: u64,
    last: Option<Instant>,
    /// When it began, in seconds since 1970.
    began: u64,
    /// Why the last one failed.
    failure: Option<String>,
}

struct Keys {
    set: KeySet,
    document: Bytes,
    fetched: Instant,
    /// Differs where the document does.
    generation: u64,
}

/// What [`Issuer::verify`] found, and with which generation of keys.
pub(crate) struct Found {
    pub(crate) verified: Verified,
    pub(crate) generation: u64,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the discovery document cannot be read: {0}")]
    Discovery(#[from] serde_json::Error),
    #[error("the discovery document is of the issuer {0:?}")]
    OtherIssuer(String),
    #[error("the discovery document names its keys at {0:?}, which is no https URL")]
    Location(String),
    #[error(transparent)]
    Keys(#[from] InvalidKeySet),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    pub(crate) fn new(config: IssuerConfig, connector: HttpsConnector) -> Self {
        Self { config, connector, state: watch::Sender::default(), wanted: Notify::new() }
    }

    pub(crate) const fn config(&self) -> &IssuerConfig {
        &self.config
    }

    /// The generation of the keys in use; none while there are none that count.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.state.borrow().usable().map(|keys| keys.generation)
    }

    /// Fetches keys: at once, every ten minutes, and when somebody wants newer ones. Never ends.
    pub(crate) async fn keep(&self) {
        loop {
            self.refresh().await;
            let pause = if self.state.borrow().failure.is_some() { RETRY } else { REFRESH };
            tokio::time::sleep(MIN_INTERVAL).await;
            // Either way the keys are fetched.
            drop(tokio::time::timeout(pause.saturating_sub(MIN_INTERVAL), self.wanted.notified()).await);
        }
    }

    /// Checks a token with the keys there are, and with newer ones where none of these fits.
    ///
    /// # Errors
    /// There are no keys, or newer ones might fit and could not be had.
    pub(crate) async fn verify(
        &self,
        token: &Presented<'_>,
    ) -> Result<Result<Found, Rejected>, AuthenticatorUnavailable> {
        let mut state = self.state.borrow().clone();
        if state.attempts == 0 {
            state = self.after(0).await?;
        } else if state.usable().is_none() && state.may_fetch() {
            state = self.newer(&state).await?;
        }
        let outcome = self.with(&state, token)?;
        if !matches!(outcome, Err(Rejected::UnknownKey)) {
            return Ok(outcome);
        }
        if state.may_fetch() {
            state = self.newer(&state).await?;
            let outcome = self.with(&state, token)?;
            if !matches!(outcome, Err(Rejected::UnknownKey)) {
                return Ok(outcome);
            }
        }
        // A good token must not be called wrong because its key is newer than the last fetch: clients throw away what
        // is answered with 401, and come back after 503.
        match &state.failure {
            Some(failure) => Err(self.unavailable(failure)),
            None if state.may_be_behind(token) => {
                Err(self.unavailable("a new key may have signed the token, and its keys were fetched a moment ago"))
            }
            None => Ok(outcome),
        }
    }

    fn with(&self, state: &State, token: &Presented<'_>) -> Result<Result<Found, Rejected>, AuthenticatorUnavailable> {
        let missing = || self.unavailable(state.failure.as_deref().unwrap_or("its keys are too old"));
        let keys = state.usable().ok_or_else(missing)?;
        let verified = token.verify(&self.config, &keys.set);
        Ok(verified.map(|verified| Found { verified, generation: keys.generation }))
    }

    /// What the next fetch brings.
    async fn newer(&self, state: &State) -> Result<State, AuthenticatorUnavailable> {
        self.wanted.notify_one();
        self.after(state.attempts).await
    }

    /// What is known after more fetches than `attempts`.
    async fn after(&self, attempts: u64) -> Result<State, AuthenticatorUnavailable> {
        let mut state = self.state.subscribe();
        match tokio::time::timeout(WAIT, state.wait_for(|state| state.attempts > attempts)).await {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_closed)) => Err(self.unavailable("nobody fetches its keys any more")),
            Err(_elapsed) => Err(self.unavailable("its keys did not come in time")),
        }
    }

    fn unavailable(&self, why: &str) -> AuthenticatorUnavailable {
        AuthenticatorUnavailable(format!("issuer {}: {why}", self.config.url))
    }

    async fn refresh(&self) {
        let began = clock::now();
        let fetched = self.fetch().await;
        let issuer = &self.config.url;
        self.state.send_modify(|state| {
            state.attempts += 1;
            state.last = Some(Instant::now());
            state.began = began;
            match fetched {
                Ok((document, set)) => {
                    if set.len() == 0 {
                        tracing::warn!(issuer, "the issuer publishes no key that can be used: nobody is believed");
                    }
                    let former = state.keys.as_ref();
                    let changed = former.is_none_or(|keys| keys.document != document);
                    let generation = former.map_or(0, |keys| keys.generation) + u64::from(changed);
                    if changed || state.failure.is_some() {
                        tracing::info!(issuer, keys = set.len(), "the signing keys of the issuer are known");
                    }
                    state.keys = Some(Arc::new(Keys { set, document, fetched: Instant::now(), generation }));
                    state.failure = None;
                }
                Err(error) => {
                    tracing::warn!(issuer, %error, "the signing keys of the issuer cannot be fetched");
                    state.failure = Some(error.to_string());
                }
            }
        });
    }

    async fn fetch(&self) -> Result<(Bytes, KeySet), RefreshError> {
        let document = fetch::get(&self.connector, &self.config.discovery).await?;
        let discovery: Discovery = serde_json::from_slice(&document)?;
        if discovery.issuer != self.config.url {
            return Err(RefreshError::OtherIssuer(discovery.issuer));
        }
        let location: Uri = https(&discovery.jwks_uri).map_err(|_why| RefreshError::Location(discovery.jwks_uri))?;
        let document = fetch::get(&self.connector, &location).await?;
        let set = KeySet::parse(&document)?;
        Ok((document, set))
    }
}

impl State {
    fn usable(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref().filter(|keys| keys.fetched.elapsed() < MAX_AGE)
    }

    /// Whether the key of a token may have been published since the last fetch.
    fn may_be_behind(&self, token: &Presented<'_>) -> bool {
        !self.may_fetch() && self.keys.as_ref().is_some_and(|keys| token.may_be_newer_than(self.began, &keys.set))
    }

    fn may_fetch(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= MIN_INTERVAL)
    }
}

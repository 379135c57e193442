//! Whether a request that runs long may still go on: its user and their right are looked at again while it runs.
//!
//! Made by `serve` for watches, followed logs and upgrades; carried and polled by whatever passes their bytes. Short
//! requests are not looked at again: they are over before it would be time.
//!
//! What it asks may be remembered ([`moorline_kube::Lives`]) or read from a file now and then, so a right outlives its
//! end by that time and one interval at most.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, header};
use moorline_access::{Denied, Permit};
use moorline_model::{ClusterName, Identity};
use rand::RngExt as _;
use tokio::time::Instant;

use super::{
    authn::{Authenticated, AuthnError, CertificateUser, Sources},
    respond::Cause,
};
use crate::state::State;

/// How long a request may go on while nobody can be asked: longer than a kube-apiserver takes to be replaced by another
/// one. New requests are refused all the while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Resolves, with why, when the request must end.
pub(super) type Vigil = Pin<Box<dyn Future<Output = Cause> + Send>>;

/// What is needed to ask again.
pub(super) struct Asked {
    certificate: Option<Arc<CertificateUser>>,
    headers: HeaderMap,
    authenticated: Identity,
    cluster: ClusterName,
}

impl Asked {
    /// What a request was permitted by. Of its headers those are kept that said who asks, and as whom.
    pub(super) fn new(certificate: Option<&Arc<CertificateUser>>, headers: &HeaderMap, permit: &Permit) -> Self {
        let said = headers
            .iter()
            .filter(|(name, _)| **name == header::AUTHORIZATION || name.as_str().starts_with("impersonate"));
        Self {
            certificate: certificate.cloned(),
            headers: said.map(|(name, value)| (name.clone(), value.clone())).fold(
                HeaderMap::new(),
                |mut kept, (name, value)| {
                    kept.append(name, value);
                    kept
                },
            ),
            authenticated: permit.authenticated().clone(),
            cluster: permit.cluster().clone(),
        }
    }

    /// Asks again every `interval`, for as long as the answer is yes.
    pub(super) fn watch(self, state: Arc<State>, interval: Duration) -> Vigil {
        Box::pin(async move {
            let mut confirmed = Instant::now();
            loop {
                // Not all at once, of those that began at once.
                let after = interval.mul_f64(rand::rng().random_range(0.8..1.0));
                tokio::time::sleep(after).await;
                match self.ask(&state).await {
                    Ok(()) => confirmed = Instant::now(),
                    Err(cause) if is_unanswered(&cause) && confirmed.elapsed() < PATIENCE => {}
                    Err(cause) => {
                        let (user, cluster) = (self.authenticated.user(), &self.cluster);
                        tracing::info!(user, %cluster, ?cause, "ending a request that is not permitted any more");
                        return cause;
                    }
                }
            }
        })
    }

    async fn ask(&self, state: &State) -> Result<(), Cause> {
        let tokens = state.tokens.load_full();
        let (chain, anonymous) = (&state.authenticators, state.gateway.anonymous);
        let sources = Sources { tokens: &tokens, chain, anonymous, metrics: None };
        let found = Authenticated::find(self.certificate.as_deref(), &sources, &self.headers).await;
        let identity = found.map_err(Cause::Unauthenticated)?.into_identity();
        if identity != self.authenticated {
            // What runs, runs as whom they were.
            return Err(Cause::Unauthenticated(AuthnError::Changed));
        }
        let as_whom = moorline_impersonation::requested(&self.headers).map_err(Cause::Impersonation)?;
        let cluster = self.cluster.clone();
        let permit = moorline_access::reach(&state.judge(), &state.api_group, identity, as_whom, cluster).await;
        permit.map(drop).map_err(Cause::Denied)
    }
}

fn is_unanswered(cause: &Cause) -> bool {
    matches!(cause, Cause::Unauthenticated(AuthnError::Unavailable(_)) | Cause::Denied(Denied::Unavailable(_)))
}

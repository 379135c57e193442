//! Third step: may this user send requests to this cluster, and as whom do they go on.
//!
//! Called by `serve` for every request. The decision, and the `Permit` that records it, are `access`'s; this file brings
//! it the caller's own `Impersonate-*` headers, and holds the user to what one user may send before the question
//! costs anything. Nothing has been said about which clusters exist when this step refuses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue};
use moorline_access::{Attributes, Authorizer, AuthorizerUnavailable, Decision, Permit, Policy};
use moorline_kube::AccessReviews;
use moorline_model::{ClusterName, Identity};
use tokio::time::Instant;

use super::{
    authn::Authenticated,
    fairness::{Fairness, Places},
    metrics::Metrics,
    respond::Cause,
    slots::Slot,
};

/// A request that may go to its cluster.
pub(super) struct Permitted {
    permit: Permit,
    identity: HeaderValue,
    admitted: Admitted,
}

/// The user's slot of a request, and where it takes more when it goes on.
pub(super) struct Admitted {
    pub(super) slot: Slot,
    pub(super) places: Arc<Places>,
}

impl Permitted {
    /// Who may send what where.
    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The permit, the identity as it travels, and what the request takes up.
    pub(super) fn into_parts(self) -> (Permit, HeaderValue, Admitted) {
        (self.permit, self.identity, self.admitted)
    }
}

/// Whoever decides in this server: the embedded policy, or the Kubernetes that it was told to ask.
pub(crate) enum Judge {
    /// The roles and bindings of the policy file, as they are at the moment.
    Policy(Arc<Policy>),
    /// The roles and bindings of the management cluster.
    Kubernetes {
        /// Where they are asked for.
        reviews: Arc<AccessReviews>,
        /// When all questions of the request must have been answered.
        until: Instant,
    },
}

/// Times that one question may take which all questions of a request may take together: who acts as somebody is asked
/// about value by value.
const TIMES: u32 = 3;

impl Judge {
    /// For one request, which begins now.
    pub(crate) fn kubernetes(reviews: &Arc<AccessReviews>) -> Self {
        Self::Kubernetes { reviews: Arc::clone(reviews), until: Instant::now() + reviews.timeout() * TIMES }
    }
}

impl Authorizer for Judge {
    async fn decide<'a>(
        &'a self,
        who: &'a Identity,
        what: &'a Attributes<'a>,
    ) -> Result<Decision, AuthorizerUnavailable> {
        match self {
            Self::Policy(policy) => Ok(policy.decide(who, what)),
            Self::Kubernetes { reviews, until } => {
                let decided = tokio::time::timeout_at(*until, reviews.decide(who, what)).await;
                decided.unwrap_or_else(|_elapsed| {
                    Err(AuthorizerUnavailable(
                        "the questions that the request takes were not answered in time".to_owned(),
                    ))
                })
            }
        }
    }
}

/// What a decision is made with.
pub(super) struct Rules<'a> {
    /// Who may do what.
    pub(super) judge: &'a Judge,
    /// The API group of our own objects.
    pub(super) group: &'a str,
    /// What users may take up.
    pub(super) fairness: &'a Fairness,
    /// Where decisions are counted.
    pub(super) metrics: &'a Metrics,
}

/// What a connection remembers of the user it served last, so that the next request of the same one is not encoded and
/// looked up again. Remembers no decision.
#[derive(Default)]
pub(super) struct Memo {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    places: Option<Arc<Places>>,
    encoded: Option<(Identity, HeaderValue)>,
}

impl Authenticated {
    /// Asks for the permit.
    ///
    /// # Errors
    /// The `Impersonate-*` headers make no sense, the user has or sends too many requests, or the policy says no.
    pub(super) async fn authorize(
        self,
        cluster: ClusterName,
        headers: &HeaderMap,
        rules: &Rules<'_>,
        memo: &Memo,
        request_id: &HeaderValue,
    ) -> Result<Permitted, Cause> {
        let as_whom = moorline_impersonation::requested(headers).map_err(Cause::Impersonation)?;
        let identity = self.into_identity();
        // Of the user who was authenticated, not of whom they act for: that would be a way to take up somebody else's room.
        let places = memo.places(identity.user(), &cluster, rules.fairness);
        let slot = rules.fairness.admit(&places)?;
        let asked = Asked { user: identity.user().to_owned(), cluster: cluster.clone() };
        let permit = match moorline_access::reach(rules.judge, rules.group, identity, as_whom, cluster).await {
            Ok(permit) => permit,
            Err(denied) => {
                rules.metrics.denied.inc();
                tracing::info!(
                    request_id = request_id.to_str().unwrap_or_default(),
                    user = asked.user,
                    cluster = %asked.cluster,
                    %denied,
                    "denied"
                );
                return Err(Cause::Denied(denied));
            }
        };
        rules.metrics.allowed.inc();
        tracing::debug!(
            request_id = request_id.to_str().unwrap_or_default(),
            user = permit.authenticated().user(),
            as_user = permit.identity().user(),
            cluster = %permit.cluster(),
            rule = permit.rule(),
            "allowed"
        );
        let identity = memo.encoded(&permit);
        Ok(Permitted { permit, identity, admitted: Admitted { slot, places } })
    }
}

/// For the log line of a refusal.
struct Asked {
    user: String,
    cluster: ClusterName,
}

impl Memo {
    fn places(&self, user: &str, cluster: &ClusterName, fairness: &Fairness) -> Arc<Places> {
        let mut last = self.locked();
        if let Some(known) = last.places.as_ref().filter(|places| places.are_of(user, cluster)) {
            return Arc::clone(known);
        }
        Arc::clone(last.places.insert(fairness.of(user, cluster)))
    }

    /// The identity as it travels.
    fn encoded(&self, permit: &Permit) -> HeaderValue {
        let mut last = self.locked();
        if let Some((_, known)) = last.encoded.as_ref().filter(|(identity, _)| identity == permit.identity()) {
            return known.clone();
        }
        let header = moorline_wire::write_identity(permit.identity());
        last.encoded = Some((permit.identity().clone(), header.clone()));
        header
    }

    fn locked(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

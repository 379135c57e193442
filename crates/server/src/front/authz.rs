//! Third step: may this user send requests to this cluster, and as whom do they go on.
//!
//! Called by `serve` for every request. The decision, and the `Permit` that records it, are `access`'s; this file brings
//! it the caller's own `Impersonate-*` headers and holds the user to the number of requests that one user may have
//! running. Nothing has been said about which clusters exist when this step refuses.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue};
use moorline_access::{Attributes, Authorizer, AuthorizerUnavailable, Decision, Permit, Policy};
use moorline_kube::AccessReviews;
use moorline_model::{ClusterName, Identity};

use super::{
    authn::Authenticated,
    metrics::Metrics,
    respond::Cause,
    slots::{Slot, Slots, SlotsByName},
};

/// A request that may go to its cluster.
pub(super) struct Permitted {
    permit: Permit,
    identity: HeaderValue,
    slot: Slot,
}

impl Permitted {
    /// Who may send what where.
    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The permit, the identity as it travels, and the user's slot.
    pub(super) fn into_parts(self) -> (Permit, HeaderValue, Slot) {
        (self.permit, self.identity, self.slot)
    }
}

/// Whoever decides in this server: the embedded policy, or the Kubernetes that it was told to ask.
pub(crate) enum Judge {
    /// The roles and bindings of the policy file, as they are at the moment.
    Policy(Arc<Policy>),
    /// The roles and bindings of the management cluster.
    Kubernetes(Arc<AccessReviews>),
}

impl Authorizer for Judge {
    async fn decide<'a>(
        &'a self,
        who: &'a Identity,
        what: &'a Attributes<'a>,
    ) -> Result<Decision, AuthorizerUnavailable> {
        match self {
            Self::Policy(policy) => Ok(policy.decide(who, what)),
            Self::Kubernetes(reviews) => reviews.decide(who, what).await,
        }
    }
}

/// What a decision is made with.
pub(super) struct Rules<'a> {
    /// Who may do what.
    pub(super) judge: &'a Judge,
    /// The API group of our own objects.
    pub(super) group: &'a str,
    /// The requests that run, by user.
    pub(super) users: &'a SlotsByName,
    /// Where decisions are counted.
    pub(super) metrics: &'a Metrics,
}

/// What a connection remembers of the user it served last, so that the next request of the same one is not encoded and
/// looked up again. Remembers no decision.
#[derive(Default)]
pub(super) struct Memo {
    last: Mutex<Option<Last>>,
}

struct Last {
    user: String,
    slots: Arc<Slots>,
    identity: Identity,
    header: HeaderValue,
}

impl Authenticated {
    /// Asks for the permit.
    ///
    /// # Errors
    /// The `Impersonate-*` headers make no sense, the policy says no, or the user has too many requests running.
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
        let (identity, slot) = memo.recall(&permit, rules.users);
        let slot = slot.ok_or(Cause::UserBusy)?;
        Ok(Permitted { permit, identity, slot })
    }
}

/// For the log line of a refusal.
struct Asked {
    user: String,
    cluster: ClusterName,
}

impl Memo {
    /// The identity as it travels, and a slot of the user who was authenticated (not of whom they act for: that would
    /// be a way to take up somebody else's room).
    fn recall(&self, permit: &Permit, users: &SlotsByName) -> (HeaderValue, Option<Slot>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .as_ref()
            .filter(|last| last.user == permit.authenticated().user() && last.identity == *permit.identity());
        if let Some(known) = known {
            return (known.header.clone(), known.slots.take());
        }
        let header = moorline_wire::write_identity(permit.identity());
        let slots = users.of(permit.authenticated().user());
        let slot = slots.take();
        *last = Some(Last {
            user: permit.authenticated().user().to_owned(),
            slots,
            identity: permit.identity().clone(),
            header: header.clone(),
        });
        (header, slot)
    }
}

//! What somebody may do, by `SubjectAccessReview`: the roles and bindings of the management cluster decide.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use moorline_access::{Attributes, Authorizer, AuthorizerUnavailable, Decision};
use moorline_model::Identity;

use crate::{
    Connection, Lives,
    cache::{Cache, Remembered},
    call::{CallError, Turns},
};

/// An authorizer that asks Kubernetes.
pub struct AccessReviews {
    connection: Connection,
    turns: Turns,
    cache: Cache<Decision>,
}

impl AccessReviews {
    /// Asks over this connection and remembers answers for so long.
    #[must_use]
    pub fn new(connection: Connection, lives: Lives) -> Self {
        Self { connection, turns: Turns::default(), cache: Cache::new(lives) }
    }

    /// How long one question may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.connection.timeout
    }

    async fn ask(&self, who: &Identity, what: &Attributes<'_>) -> Result<Decision, CallError> {
        let spec = spec(who, what);
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self
            .connection
            .review(&self.turns, &review)
            .await?
            .status
            .ok_or(CallError::Garbage("SubjectAccessReview"))?;
        if !status.allowed || status.denied == Some(true) {
            return Ok(Decision::NoOpinion);
        }
        let reason = status.reason.filter(|reason| !reason.is_empty());
        Ok(Decision::Allow { rule: reason.unwrap_or_else(|| "SubjectAccessReview".to_owned()) })
    }
}

impl Authorizer for AccessReviews {
    async fn decide<'a>(
        &'a self,
        who: &'a Identity,
        what: &'a Attributes<'a>,
    ) -> Result<Decision, AuthorizerUnavailable> {
        let key = self.cache.key(|key| {
            key.identity(who);
            for text in [what.verb, what.api_group, what.resource] {
                key.text(text);
            }
            for text in [what.subresource, what.namespace, what.name, what.non_resource_path] {
                key.maybe(text);
            }
        });
        let decision = self.connection.in_time(self.cache.get(key, || self.ask(who, what))).await;
        decision.map_err(|error| AuthorizerUnavailable(format!("SubjectAccessReview: {error}")))
    }
}

fn spec(who: &Identity, what: &Attributes<'_>) -> SubjectAccessReviewSpec {
    let text = |text: &str| Some(text.to_owned());
    let (resource_attributes, non_resource_attributes) = match what.non_resource_path {
        Some(path) => (None, Some(NonResourceAttributes { path: text(path), verb: text(what.verb) })),
        None => {
            let attributes = ResourceAttributes {
                verb: text(what.verb),
                group: text(what.api_group),
                version: text("*"),
                resource: text(what.resource),
                subresource: what.subresource.map(str::to_owned),
                namespace: what.namespace.map(str::to_owned),
                name: what.name.map(str::to_owned),
                ..ResourceAttributes::default()
            };
            (Some(attributes), None)
        }
    };
    SubjectAccessReviewSpec {
        user: text(who.user()),
        uid: who.uid().map(str::to_owned),
        groups: Some(who.groups().to_vec()),
        extra: Some(who.extra().clone()),
        resource_attributes,
        non_resource_attributes,
    }
}

impl Remembered for Decision {
    fn is_yes(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    fn size(&self) -> usize {
        match self {
            Self::Allow { rule } => rule.len(),
            Self::NoOpinion => 0,
        }
    }
}

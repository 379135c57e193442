//! Whoever decides: the embedded [`Policy`], or Kubernetes.

use std::future::{Future, ready};

use moorline_model::Identity;
use thiserror::Error;

use crate::{Attributes, Policy};

/// An answer. There is no "deny": as in RBAC, what nothing allows is forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow {
        /// By which rule, for the audit log.
        rule: String,
    },
    /// Nothing says that it may.
    NoOpinion,
}

/// Nobody can be asked at the moment. The request must be refused, as one to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the authorizer cannot be asked: {0}")]
pub struct AuthorizerUnavailable(
    /// Why, for the log.
    pub String,
);

/// Whoever decides.
pub trait Authorizer: Send + Sync {
    /// Whether `who` may do `what`.
    ///
    /// # Errors
    /// No answer could be had. Never to be taken for a yes.
    fn decide<'a>(
        &'a self,
        who: &'a Identity,
        what: &'a Attributes<'a>,
    ) -> impl Future<Output = Result<Decision, AuthorizerUnavailable>> + Send + 'a;
}

impl Authorizer for Policy {
    fn decide<'a>(
        &'a self,
        who: &'a Identity,
        what: &'a Attributes<'a>,
    ) -> impl Future<Output = Result<Decision, AuthorizerUnavailable>> + Send + 'a {
        ready(Ok(Self::decide(self, who, what)))
    }
}

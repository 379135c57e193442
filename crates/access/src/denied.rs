//! A refusal, in the words that kubectl users know.

use std::fmt;

use moorline_model::{Identity, Reason, Status};
use thiserror::Error;

use crate::{Attributes, AuthorizerUnavailable, acting::MAX_PARTS};

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denied {
    /// No rule allows it.
    #[error("{0}")]
    Forbidden(Box<Forbidden>),
    /// More groups and extra values to impersonate than are checked.
    #[error("cannot impersonate more than {MAX_PARTS} groups and extra values")]
    TooManyParts,
    /// The authorizer gave no answer.
    #[error("no decision")]
    Unavailable(#[source] AuthorizerUnavailable),
}

impl Denied {
    /// What the user may read: who may not do what, as kube-apiserver words it. Says nothing of whether the cluster
    /// exists.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Forbidden(_) | Self::TooManyParts => self.to_string(),
            Self::Unavailable(_) => "access cannot be decided at the moment; try again".to_owned(),
        }
    }

    /// The answer to the user: 403, or 503 where the authorizer gave none.
    #[must_use]
    pub fn status(&self) -> Status {
        let (reason, message) = (self.reason(), self.public_message());
        let status = Status::failure(reason.code(), reason, message);
        match self {
            Self::Forbidden(forbidden) => {
                status.about(&forbidden.api_group, &forbidden.resource, forbidden.name.as_deref().unwrap_or_default())
            }
            Self::TooManyParts => status,
            Self::Unavailable(_) => status.retry_after(1),
        }
    }

    const fn reason(&self) -> Reason {
        match self {
            Self::Forbidden(_) => Reason::Forbidden,
            Self::TooManyParts => Reason::BadRequest,
            Self::Unavailable(_) => Reason::ServiceUnavailable,
        }
    }

    pub(crate) fn forbidden(who: &Identity, what: &Attributes<'_>) -> Self {
        Self::Forbidden(Box::new(Forbidden {
            user: who.user().to_owned(),
            verb: what.verb.to_owned(),
            api_group: what.api_group.to_owned(),
            resource: what.resource.to_owned(),
            subresource: what.subresource.map(str::to_owned),
            namespace: what.namespace.map(str::to_owned),
            name: what.name.map(str::to_owned),
        }))
    }
}

/// Who may not do what. Displayed as kube-apiserver words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    user: String,
    verb: String,
    api_group: String,
    resource: String,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, verb, api_group, resource, subresource, namespace, name } = self;
        f.write_str(resource)?;
        if !api_group.is_empty() {
            write!(f, ".{api_group}")?;
        }
        if let Some(name) = name {
            write!(f, " {name:?}")?;
        }
        let part = subresource.as_ref().map(|subresource| format!("/{subresource}")).unwrap_or_default();
        let full = format!("{resource}{part}");
        write!(f, " is forbidden: User {user:?} cannot {verb} resource {full:?} in API group {api_group:?} ")?;
        match namespace {
            Some(namespace) => write!(f, "in the namespace {namespace:?}"),
            None => f.write_str("at the cluster scope"),
        }
    }
}

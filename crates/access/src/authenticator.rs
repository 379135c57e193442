//! Whoever knows bearer tokens, besides the table of static ones.

use std::{future::Future, sync::Arc};

use moorline_model::Identity;
use thiserror::Error;

/// Nobody could be asked whose token it is. Another authenticator may still know it; where none does, the request must
/// be refused, as one to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the authenticator cannot be asked: {0}")]
pub struct AuthenticatorUnavailable(
    /// Why, for the log. Never holds the token.
    pub String,
);

/// Whoever knows bearer tokens.
pub trait Authenticator: Send + Sync {
    /// Whose token it is; `None` where it is nobody's that this authenticator knows, so that the next one is asked.
    ///
    /// # Errors
    /// No answer could be had. Never to be taken for a user, nor for "not mine".
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> impl Future<Output = Result<Option<Identity>, AuthenticatorUnavailable>> + Send + 'a;
}

impl<A: Authenticator> Authenticator for Arc<A> {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> impl Future<Output = Result<Option<Identity>, AuthenticatorUnavailable>> + Send + 'a {
        A::authenticate(self, token)
    }
}

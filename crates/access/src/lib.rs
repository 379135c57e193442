//! Who may do what: credentials, request attributes, rules, decisions, and the [`Permit`] that only it can mint.
//!
//! Pure: it decides from what it is given. Its two traits, [`Authenticator`] and [`Authorizer`], are asynchronous only so
//! that Kubernetes' reviews and identity providers can stand behind them; nothing here waits for anything else.

mod acting;
mod attributes;
mod authenticator;
mod authorizer;
mod denied;
mod fields;
mod permit;
mod policy;
mod problems;
mod request;
mod tokens;

pub use acting::anonymous;
pub use attributes::{Action, Attributes};
pub use authenticator::{Authenticator, AuthenticatorUnavailable};
pub use authorizer::{Authorizer, AuthorizerUnavailable, Decision};
pub use denied::{Denied, Forbidden};
pub use fields::Object;
pub use permit::{
    Grant, Permit, administer, confer, manage_authorities, manage_join_tokens, manage_users, reach, review,
};
pub use policy::Policy;
pub use problems::{Found, Problem, Problems};
pub use request::RequestAttributes;
pub use tokens::{AddError, StaticTokens, TokenId};

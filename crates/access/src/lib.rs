//! Who may do what: credentials, request attributes, rules, decisions, and the [`Permit`] that only it can mint.
//!
//! Pure: it decides from what it is given. The one trait, [`Authorizer`], is asynchronous only so that Kubernetes'
//! `SubjectAccessReview` can stand behind it; nothing here waits for anything else.

mod acting;
mod attributes;
mod authorizer;
mod denied;
mod permit;
mod policy;
mod problems;
mod request;
mod tokens;

pub use attributes::{Action, Attributes};
pub use authorizer::{Authorizer, AuthorizerUnavailable, Decision};
pub use denied::{Denied, Forbidden};
pub use permit::{Grant, Permit, administer, reach};
pub use policy::Policy;
pub use problems::{Problem, Problems};
pub use request::RequestAttributes;
pub use tokens::StaticTokens;

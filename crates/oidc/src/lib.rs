//! OpenID Connect: issuer discovery, signing keys and their rotation, and whose a token is.
//!
//! The server asks [`Oidc`], an [`Authenticator`](moorline_access::Authenticator), about bearer tokens, and runs
//! [`Oidc::keep_keys`] beside its doors. What is believed, and how claims become a user, is [`Configuration`], in the
//! words of kube-apiserver. It touches the issuers over HTTPS, and the clock; it holds no policy.

mod attestation;
mod authenticator;
mod claims;
mod clock;
mod config;
mod fetch;
mod issuer;
mod keys;
mod token;

pub use attestation::{Expected, NotShown, usable_keys};
pub use authenticator::{Oidc, OidcError};
pub use config::{Configuration, Flags};

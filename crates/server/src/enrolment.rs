//! How agents come by certificates while the server runs, and how these follow one another.
//!
//! Called by the tunnel door for what arrives there; changes records through [`crate::clusters::Clusters`] only.

pub(crate) mod adopt;
pub(crate) mod authorities;
pub(crate) mod dialects;
pub(crate) mod join;
pub(crate) mod renew;
pub(crate) mod requests;
pub(crate) mod tokens;

//! Removes every inbound credential and impersonation header and writes the right ones, nothing else.
//!
//! Impersonation fails open in Kubernetes: a request that reaches the kube-apiserver without `Impersonate-User` runs as
//! whoever holds the connection, which is the agent. So there is one way to make a request somebody's: [`apply`], which
//! removes first, writes second, and takes an identity whose user cannot be empty. The agent calls it for its own
//! requests; for Calico's Guardian, which only passes headers on, the server does.
//!
//! Everything works on the head of a request. **Trailers** are the caller's to drop or to [`strip`]: a trailer must
//! never be merged into a head that was already written.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::string_slice
    )
)]

mod apply;
mod extra;
mod mapping;
mod names;
mod narrowing;
mod passed;
mod possible;
mod requested;
mod strip;
mod upgrade;

pub use apply::{ApplyError, apply};
pub use mapping::{Mapping, Names};
pub use narrowing::{Narrowed, Narrowing};
pub use passed::Passed;
pub use possible::Name;
pub use requested::{RequestedError, requested};
pub use strip::{has_bearer_subprotocol, strip};

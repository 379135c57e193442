//! The agents' side: the tunnel door, admission, sessions and their control streams.
//!
//! The composition root starts it; it brings sessions into the registry and takes them out again.

pub(crate) mod admit;
pub(crate) mod check;
pub(crate) mod control;
mod ending;
mod guardian;
mod heartbeat;
pub(crate) mod listener;
pub(crate) mod orders;
pub(crate) mod session;

/// The DNS name in the certificate of the tunnel door that every agent verifies, whatever address it dialled.
pub(crate) const SERVER_NAME: &str = "moorline-tunnel";

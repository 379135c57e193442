//! Fourth step: a live session of the cluster.
//!
//! Called by `serve` with a permit in hand: only who may reach a cluster learns whether it exists.

use http::HeaderValue;

use crate::registry::{self, Registry, RouteError};

use super::{authz::Permitted, respond::Cause, slots::Slot};

/// A request with a session to go by. `forward` takes nothing else.
pub(super) struct Routed {
    routed: registry::Routed,
    identity: HeaderValue,
    slot: Slot,
}

impl Routed {
    /// The session with its permit, the identity as it travels, and the user's slot.
    pub(super) fn into_parts(self) -> (registry::Routed, HeaderValue, Slot) {
        (self.routed, self.identity, self.slot)
    }
}

impl Permitted {
    /// Finds a session.
    ///
    /// # Errors
    /// No such cluster, or none of its agents is connected.
    pub(super) fn route(self, registry: &Registry) -> Result<Routed, Cause> {
        let (permit, identity, slot) = self.into_parts();
        let routed = registry.route(permit).map_err(|error| match error {
            RouteError::UnknownCluster(cluster) => Cause::UnknownCluster(cluster),
            RouteError::ManagementNotConfigured => Cause::NoManagement,
            RouteError::NotConnected { cluster, reason, retry_after, .. } => {
                Cause::NotConnected { cluster, reason, retry_after }
            }
        })?;
        Ok(Routed { routed, identity, slot })
    }
}

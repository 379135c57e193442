//! Fourth step: a live session of the cluster.
//!
//! Called by `serve` with a permit in hand: only who may reach a cluster learns whether it exists.

use http::HeaderValue;

use crate::registry::{self, Registry, RouteError};

use super::{authz::Permitted, respond::Cause, slots::Slot};

/// A request with a session to go by. `forward` takes nothing else.
pub(super) struct Routed {
    pub(super) routed: registry::Routed,
    pub(super) identity: HeaderValue,
    pub(super) slot: Slot,
}

impl Permitted {
    /// Finds a session.
    ///
    /// # Errors
    /// No such cluster, or none of its agents is connected.
    pub(super) fn route(self, registry: &Registry) -> Result<Routed, Cause> {
        let Self { permit, identity, slot } = self;
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

//! Fourth step: a live session of the cluster.
//!
//! Called by `serve` with a permit in hand: only who may reach a cluster learns whether it exists.

use http::HeaderValue;
use moorline_model::SessionId;

use crate::registry::{self, Registry, RouteError};

use super::{
    authz::{Admitted, Permitted},
    respond::Cause,
};

/// A request with a session to go by. `forward` takes nothing else.
pub(super) struct Routed {
    routed: registry::Routed,
    identity: HeaderValue,
    admitted: Admitted,
}

impl Routed {
    /// By which session it goes.
    pub(super) fn session_id(&self) -> SessionId {
        self.routed.session_id()
    }

    /// The session with its permit, the identity as it travels, and what the request takes up.
    pub(super) fn into_parts(self) -> (registry::Routed, HeaderValue, Admitted) {
        (self.routed, self.identity, self.admitted)
    }
}

impl Permitted {
    /// Finds a session.
    ///
    /// # Errors
    /// No such cluster, or none of its agents is connected.
    pub(super) fn route(self, registry: &Registry) -> Result<Routed, Cause> {
        let (permit, identity, admitted) = self.into_parts();
        let routed = registry.route(permit).map_err(|error| match error {
            RouteError::UnknownCluster(cluster) => Cause::UnknownCluster(cluster),
            RouteError::ManagementNotConfigured => Cause::NoManagement,
            RouteError::NotConnected { cluster, reason, retry_after, .. } => {
                Cause::NotConnected { cluster, reason, retry_after }
            }
        })?;
        Ok(Routed { routed, identity, admitted })
    }
}

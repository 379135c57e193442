//! The other way round: programs inside managed clusters reach services of the management cluster, and only those that
//! are configured for their cluster.
//!
//! Called by the tunnel door with the streams that agents open.

#[expect(dead_code, reason = "what is counted besides refusals comes with the services themselves")]
mod metrics;

use std::sync::Arc;

use moorline_mux::Incoming;

pub(crate) use metrics::Metrics;

use crate::{registry::Cluster, state::State, tunnel::session::Session};

/// Answers the raw streams that Guardian opens, until its session has ended.
pub(crate) async fn serve_guardian(
    state: Arc<State>,
    cluster: Arc<Cluster>,
    session: Arc<Session>,
    mut incoming: Incoming,
) {
    while let Some(stream) = incoming.accept().await {
        state.services.refused("unknown-name");
        tracing::debug!(cluster = %cluster.name(), session = %session.id(), "a stream for a service was reset");
        stream.reset();
    }
}

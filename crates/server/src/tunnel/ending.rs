//! The beginning and the end of every session, whatever its dialect: what is counted, told and let go.
//!
//! Called by the two kinds of control tasks (`control`, `guardian::life`), once each.

use std::sync::Arc;

use moorline_mux::CloseReason as MuxReason;
use moorline_process::Phase;
use moorline_wire::CloseReason;

use super::session::Session;
use crate::{enrolment::renew, events::Happening, registry::Cluster, state::State};

/// Why a session ended.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// By an order: deletion, shutdown, a newer session.
    Ordered(CloseReason),
    /// The agent's certificate ended.
    Expired,
    /// Heartbeats went unanswered.
    HeartbeatMissed,
    /// A newer session arrived and this one did not answer in time.
    Superseded,
    /// The agent went away, as it said.
    Left,
    /// The agent broke the protocol.
    Protocol(String),
    /// The agent does not read its control stream.
    NotReading,
    /// The connection ended.
    Gone(MuxReason),
}

/// A session was taken in.
pub(super) fn begins(state: &Arc<State>, cluster: &Arc<Cluster>) {
    state.metrics.sessions.inc();
    settle_later(state, cluster);
}

impl Ending {
    /// Takes the session out, and says so.
    pub(super) fn of(&self, state: &Arc<State>, cluster: &Arc<Cluster>, session: &Arc<Session>) {
        session.leave();
        session.handle().close(MuxReason::Local(self.label()));
        let left = cluster.detach(session, &self.to_string());
        let (id, lived) = (session.id(), session.age());
        let happening = Happening::Disconnected { session: id, why: self.to_string(), lived, left };
        state.events.emit(cluster, happening);
        state.metrics.sessions.dec();
        state.metrics.end(self.label());
        settle_later(state, cluster);
        tracing::info!(
            cluster = %cluster.name(),
            session = %id,
            remote = %session.about().remote,
            reason = self.label(),
            outstanding = session.outstanding(),
            "session ended: {self}"
        );
    }

    /// A word of a small fixed set, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Ordered(CloseReason::ClusterDeleted) => "cluster-deleted",
            Self::Ordered(CloseReason::Revoked) => "revoked",
            Self::Ordered(CloseReason::Superseded) | Self::Superseded => "superseded",
            Self::Ordered(CloseReason::NotCarrying) => "not-carrying",
            Self::Ordered(_) => "shutdown",
            Self::Expired => "expired",
            Self::HeartbeatMissed => "heartbeat-missed",
            Self::Left => "left",
            Self::Protocol(_) => "protocol-error",
            Self::NotReading => "not-reading",
            Self::Gone(reason) => reason.label(),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ordered(CloseReason::ClusterDeleted) => f.write_str("the cluster was deleted"),
            Self::Ordered(CloseReason::Revoked) => f.write_str("its certificate was revoked"),
            Self::Ordered(CloseReason::Superseded) => f.write_str("it did not answer, and a newer one took its place"),
            Self::Ordered(CloseReason::NotCarrying) => f.write_str("it looked alive and carried no requests"),
            Self::Ordered(_) => f.write_str("this server stops"),
            Self::Expired => f.write_str("the agent's certificate has expired"),
            Self::HeartbeatMissed => f.write_str("the agent did not answer heartbeats"),
            Self::Superseded => f.write_str("a newer session arrived, and this one did not answer in time"),
            Self::Left => f.write_str("the agent went away"),
            Self::Protocol(why) => write!(f, "the agent broke the protocol: {why}"),
            Self::NotReading => f.write_str("the agent does not read what it is sent"),
            Self::Gone(reason) => write!(f, "{reason}"),
        }
    }
}

/// A session began or ended: certificates that were renewed may go.
pub(super) fn settle_later(state: &Arc<State>, cluster: &Arc<Cluster>) {
    if cluster.record().fingerprints.len() > 1 && state.phases.current() < Phase::Draining {
        let (shared, cluster) = (Arc::clone(state), Arc::clone(cluster));
        state.tasks.spawn("settle-certificates", async move { renew::settle(&shared, &cluster).await });
    }
}

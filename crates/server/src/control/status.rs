//! How a cluster stands, and how the server fares, in the shape of the API.

use std::sync::Arc;

use axum::{Extension, extract::State as Shared, response::Response};
use http::StatusCode;
use moorline_api::{Condition, ConditionStatus, ManagedClusterStatus, ServerStatus, Session, Version, condition};

use super::{
    answer::{Answer, json},
    authorize,
};
use crate::{
    clock,
    front::Caller,
    registry::{Cluster, Connection, Standing},
    state::State,
    tunnel::{self, admit::VERSION},
};

/// `GET /v1/status`.
pub(super) async fn status(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    let _granted = authorize(&state, caller, "list", None).await?;
    let clusters = state.registry.clusters();
    let connected = clusters.iter().filter(|cluster| cluster.standing().connection == Connection::Connected).count();
    let sessions: usize = clusters.iter().map(|cluster| cluster.sessions().len()).sum();
    let body = ServerStatus {
        version: VERSION.to_owned(),
        started: state.started,
        clusters: clusters.len() as u64,
        connected_clusters: connected as u64,
        sessions: sessions as u64,
        tunnel_address: Some(state.issuer.address().to_owned()),
        agent_certificate_life_seconds: Some(state.issuer.life().as_secs()),
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /v1/version`: for every authenticated caller.
pub(super) async fn version() -> Response {
    let body = Version { version: VERSION.to_owned(), protocol_version: moorline_wire::PROTOCOL_VERSION };
    json(StatusCode::OK, &body)
}

/// How a cluster stands.
pub(crate) fn of(cluster: &Cluster) -> ManagedClusterStatus {
    let standing = cluster.standing();
    let (agent_version, kubernetes_version) = cluster.versions();
    ManagedClusterStatus {
        connected: standing.connection == Connection::Connected,
        conditions: conditions(&standing),
        sessions: cluster.sessions().iter().rev().map(|session| session_of(session)).collect(),
        kubernetes_version,
        agent_version,
        ..ManagedClusterStatus::default()
    }
}

fn conditions(standing: &Standing) -> Vec<Condition> {
    let connection = standing.connection;
    let connected = match connection {
        Connection::Connected => ConditionStatus::True,
        Connection::Probing => ConditionStatus::Unknown,
        Connection::UpstreamFailing
        | Connection::NotCarrying
        | Connection::NeverConnected
        | Connection::Disconnected => ConditionStatus::False,
    };
    let (reachable, reason) = match connection {
        Connection::Connected => (ConditionStatus::True, "ProbeSucceeded"),
        Connection::UpstreamFailing => (ConditionStatus::False, "ProbeFailed"),
        // Nobody can ask it.
        Connection::Probing | Connection::NotCarrying | Connection::NeverConnected | Connection::Disconnected => {
            (ConditionStatus::Unknown, connection.as_str())
        }
    };
    let condition = |kind: &str, status, reason: &str| Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: standing.message.clone(),
        last_transition_time: Some(standing.since),
        last_probe_time: standing.probed,
    };
    vec![
        condition(condition::CONNECTED, connected, connection.as_str()),
        condition(condition::REACHABLE, reachable, reason),
    ]
}

fn session_of(session: &tunnel::session::Session) -> Session {
    let about = session.about();
    Session {
        id: about.id,
        since: about.since,
        last_seen: clock::now().saturating_sub(session.answer_age()),
        agent_version: Some(about.agent_version.clone()),
        remote_address: about.remote.to_string(),
        outstanding: session.outstanding() as u64,
        rtt_ms: session.round_trip().map(|span| span.as_secs_f64() * 1000.0),
    }
}

//! How a cluster stands, and how the server fares, in the shape of the API.

use std::{sync::Arc, time::Duration};

use axum::{Extension, extract::State as Shared, response::Response};
use http::StatusCode;
use moorline_api::{Condition, ConditionStatus, ManagedClusterStatus, ServerStatus, Session, Version, condition};
use moorline_model::{ClusterRecord, Dialect, Timestamp};

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
pub(crate) fn of(state: &State, cluster: &Cluster) -> ManagedClusterStatus {
    let standing = cluster.standing();
    let record = cluster.record();
    let expiring = expiring(&record, state.issuer.life_of(record.dialect), clock::now());
    let (agent_version, kubernetes_version) = cluster.versions();
    ManagedClusterStatus {
        connected: standing.connection == Connection::Connected,
        conditions: conditions(&standing).into_iter().chain(expiring).collect(),
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

/// Whether the certificate should have been renewed by now; none where there is none yet. Its words do not change with
/// the clock, so that whoever keeps them writes twice in a certificate's life.
fn expiring(record: &ClusterRecord, life: Duration, now: Timestamp) -> Option<Condition> {
    /// For a certificate whose life was not chosen here.
    const BROUGHT: Duration = Duration::from_secs(14 * 86_400);
    /// At most, for one that somebody has to replace by hand: long before is too early to be heeded.
    const BY_HAND: Duration = Duration::from_secs(60 * 86_400);
    // While the cluster changes its dialect, what counts is what is to stay; unless nothing of it stands there.
    let of_dialect = record.fingerprints.iter().filter(|active| active.dialect == record.dialect);
    let end = of_dialect.map(|active| active.not_after).max();
    let end = end.or_else(|| record.fingerprints.iter().map(|active| active.not_after).max())?;
    let by_hand = record.dialect == Dialect::Guardian;
    // An agent renews at two thirds, and tries again and again.
    let soon = end.saturating_sub(match (&record.certificate, by_hand) {
        (Some(_), _) => BROUGHT,
        (None, true) => BY_HAND.min(life / 6),
        (None, false) => life / 6,
    });
    let remedy = match (&record.certificate, by_hand) {
        (Some(_), _) => format!(
            "; its owner brought it: put the next one into spec.certificate, or ask for one of ours (moorline cluster \
             migrate {} --dialect {})",
            record.name, record.dialect
        ),
        (None, true) => format!(
            "; Guardian cannot renew it: give it the next one by a manifest (moorline cluster migrate {} --dialect guardian)",
            record.name
        ),
        (None, false) => String::new(),
    };
    let (status, reason, message, since) = if now > end {
        let message =
            format!("the certificate ended at {end}: its agent is refused, and has to be enrolled anew{remedy}");
        (ConditionStatus::True, "CertificateExpired", message, end)
    } else if now >= soon && by_hand {
        let message = format!("the certificate ends at {end}{remedy}");
        (ConditionStatus::True, "CertificateNotRenewed", message, soon)
    } else if now >= soon {
        let message = format!("the certificate ends at {end}, and should have been renewed by now{remedy}");
        (ConditionStatus::True, "CertificateNotRenewed", message, soon)
    } else {
        (ConditionStatus::False, "CertificateValid", format!("the certificate ends at {end}"), record.created)
    };
    Some(Condition {
        kind: condition::EXPIRING.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
        last_transition_time: Some(since),
        last_probe_time: None,
    })
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

#[cfg(test)]
mod tests {
    use moorline_model::{ActiveFingerprint, ClusterUid, Fingerprint};

    use super::*;

    #[test]
    fn a_certificate_that_nobody_renewed_is_told_of() {
        let at = Timestamp::from_unix_seconds;
        let mut record = ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([1; 16]), at(5));
        let told = |record: &ClusterRecord, now| expiring(record, Duration::from_secs(600), at(now));
        assert_eq!(told(&record, 0), None, "not enrolled");
        for end in [800, 1000] {
            let fingerprint = Fingerprint::from_bytes([1; 32]);
            record.fingerprints.push(ActiveFingerprint {
                fingerprint,
                not_after: at(end),
                dialect: Dialect::Moorline,
                renews: None,
            });
        }
        for (now, status, reason, since) in [
            (899, ConditionStatus::False, "CertificateValid", 5),
            (900, ConditionStatus::True, "CertificateNotRenewed", 900),
            (1000, ConditionStatus::True, "CertificateNotRenewed", 900),
            (1001, ConditionStatus::True, "CertificateExpired", 1000),
        ] {
            let condition = told(&record, now).unwrap();
            assert_eq!((condition.status, condition.reason.as_str()), (status, reason), "at {now}");
            assert_eq!(condition.last_transition_time, Some(at(since)));
        }
        record.certificate = Some("theirs".to_owned());
        assert_eq!(told(&record, 0).unwrap().status, ConditionStatus::True, "fourteen days, as nobody knows its life");
    }

    #[test]
    fn a_guardians_owner_is_told_in_time_what_to_do() {
        const DAY: u64 = 86_400;
        let at = Timestamp::from_unix_seconds;
        let mut record = ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([1; 16]), at(5));
        record.dialect = Dialect::Guardian;
        let mut stands = |dialect, end| {
            let fingerprint = Fingerprint::from_bytes([1; 32]);
            record.fingerprints.push(ActiveFingerprint { fingerprint, not_after: at(end), dialect, renews: None });
            record.clone()
        };
        let years = Duration::from_secs(1826 * DAY);
        let told = |record: &ClusterRecord, now| expiring(record, years, at(now)).unwrap();
        let first = stands(Dialect::Moorline, 5_000 * 86_400);
        assert_eq!(told(&first, 0).message, "the certificate ends at 1983-09-10T00:00:00Z", "that of another dialect");
        let both = stands(Dialect::Guardian, 1_000 * 86_400);
        assert_eq!(told(&both, 939 * 86_400).status, ConditionStatus::False);
        let soon = told(&both, 940 * 86_400);
        assert!(soon.message.contains("cluster migrate east --dialect guardian"), "{}", soon.message);
    }
}

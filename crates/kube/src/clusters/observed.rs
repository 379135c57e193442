//! What the server observes of a cluster, as the status of its object shows it. Written apart from what must be
//! remembered, so that neither ever overwrites the other.

use moorline_model::Timestamp;
use serde_json::{Value, json};

use super::resource::{Condition, ManagedClusterStatus};

/// What is seen of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How it stands.
    pub conditions: Vec<ObservedCondition>,
    /// How many sessions its agents have.
    pub sessions: u32,
    /// The version of its kube-apiserver, as last heard.
    pub kubernetes_version: Option<String>,
    /// The version of its newest agent, as last heard.
    pub agent_version: Option<String>,
    /// When an agent was last heard of; none while one is connected, so that it does not change all the time.
    pub last_seen: Option<Timestamp>,
    /// When the last of its certificates ends.
    pub certificate_expiry: Option<Timestamp>,
}

/// A Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedCondition {
    /// Which.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, as one word in camel case.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when the status is what it is.
    pub since: Option<Timestamp>,
}

impl Observed {
    pub(super) fn read(status: &ManagedClusterStatus) -> Self {
        let moment = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let condition = |condition: &Condition| ObservedCondition {
            kind: condition.kind.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: moment(&condition.last_transition_time),
        };
        Self {
            conditions: status.conditions.iter().map(condition).collect(),
            sessions: status.sessions.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
            kubernetes_version: status.kubernetes_version.clone(),
            agent_version: status.agent_version.clone(),
            last_seen: moment(&status.last_seen),
            certificate_expiry: moment(&status.certificate_expiry),
        }
    }
}

/// Replaces what was observed before, in this very object and no other of the same name.
pub(super) fn patch(uid: &str, observed: &Observed) -> Value {
    let text = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
    let condition = |condition: &ObservedCondition| Condition {
        kind: condition.kind.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: text(condition.since),
    };
    let conditions: Vec<Condition> = observed.conditions.iter().map(condition).collect();
    json!({
        "metadata": { "uid": uid },
        "status": {
            "conditions": conditions,
            "sessions": observed.sessions,
            "kubernetesVersion": observed.kubernetes_version,
            "agentVersion": observed.agent_version,
            "lastSeen": text(observed.last_seen),
            "certificateExpiry": text(observed.certificate_expiry),
        },
    })
}

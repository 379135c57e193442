//! A managed cluster as users see it.

use std::collections::BTreeMap;

use moorline_model::{
    ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Dialect, Fingerprint, SessionId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::API_VERSION;

/// The types of conditions.
pub mod condition {
    /// Whether requests reach the cluster's kube-apiserver: the result of a probe through the tunnel, not the mere
    /// existence of a session. The name is Calico Enterprise's.
    pub const CONNECTED: &str = "ManagedClusterConnected";

    /// Whether the agent reaches the cluster's kube-apiserver, as far as anybody can tell.
    pub const REACHABLE: &str = "KubeAPIServerReachable";

    /// Whether the certificate that ends last should have been renewed by now, or has ended.
    pub const EXPIRING: &str = "CertificateExpiring";
}

/// A managed cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedCluster {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ManagedCluster`.
    pub kind: String,
    /// Name, uid and labels.
    pub metadata: ObjectMeta,
    /// What was asked for.
    pub spec: ManagedClusterSpec,
    /// What is.
    #[serde(default)]
    pub status: ManagedClusterStatus,
}

impl ManagedCluster {
    /// A cluster as its record and its present status say. What the record knows of certificates goes into the status.
    #[must_use]
    pub fn new(record: &ClusterRecord, status: ManagedClusterStatus) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "ManagedCluster".to_owned(),
            metadata: ObjectMeta {
                name: record.name.clone(),
                uid: record.uid,
                labels: record.labels.clone(),
                creation_timestamp: record.created,
            },
            spec: ManagedClusterSpec {
                dialect: record.dialect,
                operator_namespace: record.operator_namespace.clone(),
                certificate: record.certificate.clone(),
            },
            status: ManagedClusterStatus {
                certificate_expiry: record.fingerprints.iter().map(|active| active.not_after).max(),
                fingerprints: record.fingerprints.iter().map(|active| active.fingerprint).collect(),
                certificates: record.fingerprints.iter().map(Certificate::from).collect(),
                ..status
            },
        }
    }
}

/// All managed clusters that the caller may list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterList {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ManagedClusterList`.
    pub kind: String,
    /// Empty; there because Kubernetes' lists have it.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The clusters, by name.
    pub items: Vec<ManagedCluster>,
}

impl ManagedClusterList {
    /// A list of these clusters.
    #[must_use]
    pub fn new(items: Vec<ManagedCluster>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "ManagedClusterList".to_owned(),
            metadata: ListMeta::default(),
            items,
        }
    }
}

/// The metadata of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMeta {}

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// The name of the cluster.
    pub name: ClusterName,
    /// Tells it from an earlier cluster of the same name.
    pub uid: ClusterUid,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was registered.
    pub creation_timestamp: Timestamp,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterSpec {
    /// What its agent speaks, or is to speak.
    pub dialect: Dialect,
    /// The namespace of Calico's operator there, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,
    /// The certificate that its owner brought, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What is. The default is a cluster that nothing is known of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedClusterStatus {
    /// Whether requests reach it now.
    pub connected: bool,
    /// The same with reasons and times.
    pub conditions: Vec<Condition>,
    /// The agents' sessions, newest first.
    pub sessions: Vec<Session>,
    /// The version of its kube-apiserver, as last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// The version of its newest agent, as last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// When the last of its certificates ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expiry: Option<Timestamp>,
    /// The SHA-256 fingerprints of the certificates that stand for it.
    pub fingerprints: Vec<Fingerprint>,
    /// The same with their ends; two while a renewal overlaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
}

/// A certificate that stands for a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Its SHA-256.
    pub fingerprint: Fingerprint,
    /// When it ends.
    pub not_after: Timestamp,
    /// What its holder speaks.
    #[serde(default)]
    pub dialect: Dialect,
}

impl From<&ActiveFingerprint> for Certificate {
    fn from(active: &ActiveFingerprint) -> Self {
        Self { fingerprint: active.fingerprint, not_after: active.not_after, dialect: active.dialect }
    }
}

/// A Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which, for instance [`condition::CONNECTED`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word in camel case.
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// Since when `status` is what it is; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// When it was looked at last, with an answer; none where nobody looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
}

/// Whether a condition holds. Written as Kubernetes does: `True`, `False`, `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

/// One session of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id, as in the logs of both ends.
    pub id: SessionId,
    /// When it was accepted.
    pub since: Timestamp,
    /// When the agent was last heard of.
    pub last_seen: Timestamp,
    /// The version of the agent; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Where it comes from: address and port.
    pub remote_address: String,
    /// Requests that it carries now.
    pub outstanding: u64,
    /// The last measured round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_kubernetes_shape() {
        let created = Timestamp::from_unix_seconds(1_795_233_180);
        let record = ClusterRecord {
            labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
            fingerprints: vec![ActiveFingerprint {
                fingerprint: Fingerprint::from_bytes([0xab; 32]),
                not_after: Timestamp::from_unix_seconds(1_826_769_180),
                dialect: Dialect::Moorline,
                renews: None,
            }],
            ..ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([0x11; 16]), created)
        };
        let status = ManagedClusterStatus {
            connected: true,
            conditions: vec![Condition {
                kind: condition::CONNECTED.to_owned(),
                status: ConditionStatus::True,
                reason: "ProbeSucceeded".to_owned(),
                message: String::new(),
                last_transition_time: Some(created),
                last_probe_time: Some(created),
            }],
            sessions: vec![Session {
                id: SessionId::from_bytes([0x22; 16]),
                since: created,
                last_seen: created,
                agent_version: Some("0.1.0".to_owned()),
                remote_address: "192.0.2.1:4711".to_owned(),
                outstanding: 2,
                rtt_ms: Some(12.5),
            }],
            kubernetes_version: Some("v1.35.0".to_owned()),
            agent_version: Some("0.1.0".to_owned()),
            ..ManagedClusterStatus::default()
        };
        let cluster = ManagedCluster::new(&record, status);
        let json = serde_json::to_value(ManagedClusterList::new(vec![cluster.clone()])).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "moorline.io/v1alpha1",
            "kind": "ManagedClusterList",
            "metadata": {},
            "items": [{
                "apiVersion": "moorline.io/v1alpha1",
                "kind": "ManagedCluster",
                "metadata": {
                    "name": "east",
                    "uid": "11111111-1111-1111-1111-111111111111",
                    "labels": {"zone": "eu"},
                    "creationTimestamp": "2026-11-21T03:53:00Z",
                },
                "spec": {"dialect": "moorline"},
                "status": {
                    "connected": true,
                    "conditions": [{
                        "type": "ManagedClusterConnected",
                        "status": "True",
                        "reason": "ProbeSucceeded",
                        "message": "",
                        "lastTransitionTime": "2026-11-21T03:53:00Z",
                        "lastProbeTime": "2026-11-21T03:53:00Z",
                    }],
                    "sessions": [{
                        "id": "22222222-2222-2222-2222-222222222222",
                        "since": "2026-11-21T03:53:00Z",
                        "lastSeen": "2026-11-21T03:53:00Z",
                        "agentVersion": "0.1.0",
                        "remoteAddress": "192.0.2.1:4711",
                        "outstanding": 2,
                        "rttMs": 12.5,
                    }],
                    "kubernetesVersion": "v1.35.0",
                    "agentVersion": "0.1.0",
                    "certificateExpiry": "2027-11-21T03:53:00Z",
                    "fingerprints": ["ab".repeat(32)],
                    "certificates": [{
                        "fingerprint": "ab".repeat(32), "notAfter": "2027-11-21T03:53:00Z", "dialect": "moorline",
                    }],
                },
            }],
        });
        assert_eq!(json, expected);
        let read: ManagedClusterList = serde_json::from_value(json).unwrap();
        assert_eq!(read.items, [cluster]);
    }

    #[test]
    fn what_a_newer_server_adds_is_ignored() {
        let json = serde_json::json!({
            "apiVersion": "moorline.io/v1beta1", "kind": "ManagedCluster", "new": 1,
            "metadata": {
                "name": "east", "uid": "11111111-1111-1111-1111-111111111111",
                "creationTimestamp": "2026-11-21T03:53:00Z", "resourceVersion": "7",
            },
            "spec": {"dialect": "guardian", "new": 1},
        });
        let cluster: ManagedCluster = serde_json::from_value(json).unwrap();
        assert_eq!((cluster.spec.dialect, cluster.status.connected), (Dialect::Guardian, false));
    }
}

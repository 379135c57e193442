//! What the server knows of a managed cluster. Written by the store, read at each handshake.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterName, ClusterUid, Fingerprint, Timestamp};

/// What a cluster's agent speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Our own agent: a control stream, and HTTP on the streams that the server opens.
    #[default]
    Moorline,
    /// Calico's open-source Guardian, unmodified.
    Guardian,
}

impl Dialect {
    /// The word used in records, flags and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moorline => "moorline",
            Self::Guardian => "guardian",
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A certificate that may stand for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFingerprint {
    /// The SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// When the certificate ends; the handshake checks the certificate itself, this is for people and for renewal.
    pub not_after: Timestamp,
}

/// A managed cluster as the store keeps it. Fields that this version does not know are ignored when read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its name, which never changes.
    pub name: ClusterName,
    /// Tells it from an earlier cluster of the same name.
    pub uid: ClusterUid,
    /// Labels in Kubernetes' grammar (see [`crate::check_labels`]).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its agent speaks.
    #[serde(default)]
    pub dialect: Dialect,
    /// The certificates that may stand for it: one, or two while a renewal overlaps.
    pub fingerprints: Vec<ActiveFingerprint>,
    /// When it was registered.
    pub created: Timestamp,
}

impl ClusterRecord {
    /// Whether a certificate with this fingerprint may stand for the cluster.
    #[must_use]
    pub fn accepts(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprints.iter().any(|active| active.fingerprint == *fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_json_and_ignores_what_later_versions_add() {
        let record = ClusterRecord {
            name: "east".parse().unwrap(),
            uid: ClusterUid::from_bytes([7; 16]),
            labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
            dialect: Dialect::Guardian,
            fingerprints: vec![ActiveFingerprint {
                fingerprint: Fingerprint::from_bytes([1; 32]),
                not_after: Timestamp::from_unix_seconds(2_000_000_000),
            }],
            created: Timestamp::from_unix_seconds(1_000_000_000),
        };
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["dialect"], "guardian");
        json["colour"] = "blue".into();
        assert_eq!(serde_json::from_value::<ClusterRecord>(json).unwrap(), record);
        assert!(record.accepts(&Fingerprint::from_bytes([1; 32])));
        assert!(!record.accepts(&Fingerprint::from_bytes([2; 32])));
    }
}

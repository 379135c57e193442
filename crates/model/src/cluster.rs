//! What the server knows of a managed cluster. Written by the store, read at each handshake.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterName, ClusterUid, Fingerprint, JoinToken, Timestamp};

/// Fingerprints that once stood for a cluster and that a record remembers: the newest.
pub const MAX_RETIRED: usize = 16;

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
    /// What its holder speaks: while a cluster changes from one dialect to the other, certificates of both stand for it,
    /// and neither opens the door of the other.
    #[serde(default)]
    pub dialect: Dialect,
    /// The certificate that its holder renewed, and has kept until it knows that this one works. None where this one was
    /// handed out anew: by a manifest, a join or a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<Fingerprint>,
}

/// How agents of a cluster may join by what its Kubernetes attests, without a secret that somebody carries there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The issuer of the cluster's service-account tokens, as their `iss` says.
    pub issuer: String,
    /// The audience that a token must be for.
    pub audience: String,
    /// The service account: the `sub` of its tokens, `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    /// The issuer's public keys, a JSON Web Key Set; where there is none they are fetched from the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
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
    /// What its agent speaks, or is to speak: certificates of the other dialect may stand for it until one of this dialect
    /// has connected.
    #[serde(default)]
    pub dialect: Dialect,
    /// The certificates that may stand for it: none before it was enrolled, one, or two while a renewal overlaps.
    #[serde(default)]
    pub fingerprints: Vec<ActiveFingerprint>,
    /// Certificates that stood for it and no longer do, the newest last: whoever shows one is told so. At most
    /// [`MAX_RETIRED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Fingerprint>,
    /// When its certificates were revoked; none since it was enrolled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// Tokens with which an agent may join as this cluster. At most [`crate::MAX_JOIN_TOKENS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join_tokens: Vec<JoinToken>,
    /// How agents may join without such a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
    /// The namespace of Calico's operator in the cluster, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,
    /// The certificate that its owner brought, in PEM, instead of one that was signed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// When it was registered.
    pub created: Timestamp,
}

impl ClusterRecord {
    /// A cluster that is registered and not enrolled: no certificate stands for it yet.
    #[must_use]
    pub fn new(name: ClusterName, uid: ClusterUid, created: Timestamp) -> Self {
        Self {
            name,
            uid,
            labels: BTreeMap::new(),
            dialect: Dialect::default(),
            fingerprints: Vec::new(),
            retired: Vec::new(),
            revoked: None,
            join_tokens: Vec::new(),
            attestation: None,
            operator_namespace: None,
            certificate: None,
            created,
        }
    }

    /// Takes certificates out for which `keep` says no, and remembers that they stood for this cluster.
    pub fn retire(&mut self, mut keep: impl FnMut(&ActiveFingerprint) -> bool) {
        let (kept, retired) = std::mem::take(&mut self.fingerprints).into_iter().partition(|active| keep(active));
        self.fingerprints = kept;
        let retired: Vec<ActiveFingerprint> = retired;
        self.retired.extend(retired.iter().map(|active| active.fingerprint));
        self.retired.drain(..self.retired.len().saturating_sub(MAX_RETIRED));
    }

    /// Whether a certificate with this fingerprint may stand for the cluster, in whatever dialect.
    #[must_use]
    pub fn accepts(&self, fingerprint: &Fingerprint) -> bool {
        self.dialect_of(fingerprint).is_some()
    }

    /// What the holder of this certificate speaks, if it may stand for the cluster.
    #[must_use]
    pub fn dialect_of(&self, fingerprint: &Fingerprint) -> Option<Dialect> {
        self.fingerprints.iter().find(|active| active.fingerprint == *fingerprint).map(|active| active.dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_json_and_ignores_what_later_versions_add() {
        let record = ClusterRecord {
            labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
            dialect: Dialect::Guardian,
            fingerprints: vec![ActiveFingerprint {
                fingerprint: Fingerprint::from_bytes([1; 32]),
                not_after: Timestamp::from_unix_seconds(2_000_000_000),
                dialect: Dialect::Guardian,
                renews: None,
            }],
            ..ClusterRecord::new(
                "east".parse().unwrap(),
                ClusterUid::from_bytes([7; 16]),
                Timestamp::from_unix_seconds(1_000_000_000),
            )
        };
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["dialect"], "guardian");
        json["colour"] = "blue".into();
        assert_eq!(serde_json::from_value::<ClusterRecord>(json.clone()).unwrap(), record);
        json["fingerprints"][0].as_object_mut().unwrap().remove("dialect");
        let earlier: ClusterRecord = serde_json::from_value(json).unwrap();
        assert_eq!(earlier.dialect_of(&Fingerprint::from_bytes([1; 32])), Some(Dialect::Moorline));
        assert!(record.accepts(&Fingerprint::from_bytes([1; 32])));
        assert!(!record.accepts(&Fingerprint::from_bytes([2; 32])));
    }

    #[test]
    fn remembers_a_bounded_number_of_what_it_retired() {
        let active = |number| ActiveFingerprint {
            fingerprint: Fingerprint::from_bytes([number; 32]),
            not_after: Timestamp::from_unix_seconds(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: None,
        };
        let mut record = ClusterRecord::new(
            "east".parse().unwrap(),
            ClusterUid::from_bytes([7; 16]),
            Timestamp::from_unix_seconds(1_000_000_000),
        );
        for number in 0..20 {
            record.fingerprints = vec![active(number), active(number + 1)];
            record.retire(|kept| kept.fingerprint != active(number).fingerprint);
            assert_eq!(record.fingerprints, [active(number + 1)]);
        }
        assert_eq!(record.retired.len(), MAX_RETIRED);
        assert_eq!(record.retired.last(), Some(&active(19).fingerprint));
    }
}

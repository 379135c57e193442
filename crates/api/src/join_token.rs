//! Join tokens: what is known of each, and the one answer that holds its secret.

use moorline_model::{ClusterName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{API_VERSION, ListMeta, Secret};

/// A token with which an agent may join as a cluster. Its secret is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `JoinToken`.
    pub kind: String,
    /// Its id, and when it was made.
    pub metadata: JoinTokenMeta,
    /// What it is for.
    pub spec: JoinTokenSpec,
    /// What has become of it.
    pub status: JoinTokenStatus,
}

/// The metadata of a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenMeta {
    /// Its id: no secret.
    pub name: String,
    /// When it was made.
    pub creation_timestamp: Timestamp,
}

/// What a join token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenSpec {
    /// Whose agent may join by it.
    pub cluster: ClusterName,
    /// Who made it.
    pub created_by: String,
    /// The last second in which it counts.
    pub expires: Timestamp,
}

/// What has become of a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenStatus {
    /// Whether it can still be used.
    pub phase: JoinTokenPhase,
    /// When it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
}

/// Whether a join token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinTokenPhase {
    /// It can.
    Valid,
    /// It was: an agent has joined.
    Used,
    /// Its time is over.
    Expired,
}

impl JoinToken {
    /// A token as a cluster's record has it, at this moment.
    #[must_use]
    pub fn new(cluster: &ClusterName, token: &moorline_model::JoinToken, now: Timestamp) -> Self {
        let phase = match token.used {
            Some(_) => JoinTokenPhase::Used,
            None if token.expires < now => JoinTokenPhase::Expired,
            None => JoinTokenPhase::Valid,
        };
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "JoinToken".to_owned(),
            metadata: JoinTokenMeta { name: token.id.clone(), creation_timestamp: token.created },
            spec: JoinTokenSpec {
                cluster: cluster.clone(),
                created_by: token.created_by.clone(),
                expires: token.expires,
            },
            status: JoinTokenStatus { phase, used: token.used },
        }
    }
}

/// All join tokens that the server remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenList {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `JoinTokenList`.
    pub kind: String,
    /// Empty; there because Kubernetes' lists have it.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The tokens, by cluster, the oldest first.
    pub items: Vec<JoinToken>,
}

impl JoinTokenList {
    /// A list of these tokens.
    #[must_use]
    pub fn new(items: Vec<JoinToken>) -> Self {
        let (api_version, kind) = (API_VERSION.to_owned(), "JoinTokenList".to_owned());
        Self { api_version, kind, metadata: ListMeta::default(), items }
    }
}

/// Asks for a new join token. Unknown fields are refused: what is misspelt would silently not be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateJoinToken {
    /// How long it is to count, in seconds: from five minutes to seven days; an hour where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_seconds: Option<u64>,
}

/// The new join token. Its text is given once: the server keeps its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedJoinToken {
    /// What is known of it.
    pub join_token: JoinToken,
    /// What the agent joins by: the text to be handed over.
    pub token: Secret,
    /// What it dials, which is in that text, too: `host:port`.
    pub management_cluster_addr: String,
}

#[cfg(test)]
mod tests {
    use moorline_model::Fingerprint;
    use zeroize::Zeroizing;

    use super::*;

    fn token() -> moorline_model::JoinToken {
        let created = Timestamp::from_unix_seconds(1_795_233_180);
        moorline_model::JoinToken {
            id: "0123456789ab".to_owned(),
            hash: Fingerprint::from_bytes([0xab; 32]),
            created,
            expires: Timestamp::from_unix_seconds(1_795_236_780),
            created_by: "ann".to_owned(),
            used: None,
            used_for: None,
            certificate: None,
        }
    }

    #[test]
    fn a_token_has_kubernetes_shape_and_nothing_secret() {
        let (east, token) = ("east".parse().unwrap(), token());
        let shown = JoinToken::new(&east, &token, token.created);
        let created = CreatedJoinToken {
            join_token: shown,
            token: Zeroizing::new("moorline-join.x".to_owned()).into(),
            management_cluster_addr: "hub:9449".to_owned(),
        };
        let json = serde_json::to_value(&created).unwrap();
        let expected = serde_json::json!({
            "joinToken": {
                "apiVersion": "moorline.io/v1alpha1",
                "kind": "JoinToken",
                "metadata": {"name": "0123456789ab", "creationTimestamp": "2026-11-21T03:53:00Z"},
                "spec": {"cluster": "east", "createdBy": "ann", "expires": "2026-11-21T04:53:00Z"},
                "status": {"phase": "Valid"},
            },
            "token": "moorline-join.x", "managementClusterAddr": "hub:9449",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<CreatedJoinToken>(json).unwrap(), created);
        assert!(!format!("{created:?}").contains("moorline-join.x"));
    }

    #[test]
    fn the_phase_is_that_of_the_moment() {
        let (east, mut token) = ("east".parse().unwrap(), token());
        let at = |token: &moorline_model::JoinToken, seconds| {
            JoinToken::new(&east, token, Timestamp::from_unix_seconds(seconds)).status.phase
        };
        assert_eq!(at(&token, 1_795_236_780), JoinTokenPhase::Valid);
        assert_eq!(at(&token, 1_795_236_781), JoinTokenPhase::Expired);
        token.used = Some(token.created);
        assert_eq!(at(&token, 1_795_236_781), JoinTokenPhase::Used);
        assert!(serde_json::from_str::<CreateJoinToken>(r#"{"ttl": 1}"#).is_err());
    }
}

//! How a cluster is registered, and the one answer that holds a private key.

use std::collections::BTreeMap;

use moorline_model::{Attestation, ClusterName, Fingerprint};
use serde::{Deserialize, Serialize};

use crate::{CreateJoinToken, ManagedCluster, Secret};

/// Asks for a new cluster. Unknown fields are refused: what is misspelt would silently not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    /// Its name.
    pub name: ClusterName,
    /// Its labels; the server checks them with [`moorline_model::check_labels`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Asks for a join token instead of a certificate and a key: the answer is then a [`crate::CreatedJoinToken`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<CreateJoinToken>,
    /// How its agent may join without a join token. Where nothing else is asked for, the answer is a
    /// [`JoinableCluster`], and no certificate is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// The new cluster, whose agent joins by what its Kubernetes attests. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinableCluster {
    /// The cluster.
    pub cluster: ManagedCluster,
    /// Where its agent is to dial: `host:port`.
    pub management_cluster_addr: String,
    /// The SHA-256 of the public keys of the tunnel's authorities, by which the agent knows the server.
    pub ca_pins: Vec<Fingerprint>,
}

/// The new cluster, and what its agent needs. Given once: the server does not keep the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreatedCluster {
    /// The cluster.
    pub cluster: ManagedCluster,
    /// What its agent needs.
    pub enrolment: Enrolment,
}

/// What an agent needs, under the names that the files have in its certificate directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Where to dial: `host:port`.
    #[serde(rename = "managementClusterAddr")]
    pub management_cluster_addr: String,
    /// The tunnel CA, in PEM.
    #[serde(rename = "management-cluster.crt")]
    pub management_cluster_crt: String,
    /// The agent's certificate, in PEM.
    #[serde(rename = "managed-cluster.crt")]
    pub managed_cluster_crt: String,
    /// The key of that certificate, in PEM.
    #[serde(rename = "managed-cluster.key")]
    pub managed_cluster_key: Secret,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn the_key_travels_but_does_not_print() {
        let enrolment = Enrolment {
            management_cluster_addr: "host:9449".to_owned(),
            management_cluster_crt: "ca".to_owned(),
            managed_cluster_crt: "leaf".to_owned(),
            managed_cluster_key: Zeroizing::new("secret".to_owned()).into(),
        };
        let json = serde_json::to_value(&enrolment).unwrap();
        let expected = serde_json::json!({
            "managementClusterAddr": "host:9449",
            "management-cluster.crt": "ca",
            "managed-cluster.crt": "leaf",
            "managed-cluster.key": "secret",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Enrolment>(json).unwrap(), enrolment);
        assert!(!format!("{enrolment:?}").contains("secret"));
    }

    #[test]
    fn a_misspelt_request_is_refused() {
        let read = |json: &str| serde_json::from_str::<CreateCluster>(json);
        assert_eq!(read(r#"{"name":"east"}"#).unwrap().labels.len(), 0);
        assert_eq!(read(r#"{"name":"east","labels":{"a":"b"}}"#).unwrap().labels["a"], "b");
        for bad in [r#"{"name":"East"}"#, r#"{"name":"east","label":{}}"#, r#"{"labels":{}}"#, "{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

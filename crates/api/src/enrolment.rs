//! How a cluster is registered, and the one answer that holds a private key.

use std::collections::BTreeMap;

use moorline_model::{Attestation, ClusterName, Dialect, Fingerprint};
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
    /// What its agent speaks. Calico's Guardian neither joins nor attests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dialect: Dialect,
    /// The certificate that a Guardian's owner brings, in PEM, instead of one that is signed here: the answer is then a
    /// [`BroughtCluster`]. Never a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The namespace of Calico's operator there, where it is not the usual one.
    #[serde(default, rename = "operatorNamespace", skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,
}

impl CreateCluster {
    /// Asks for a cluster of this name, with a certificate and nothing else.
    #[must_use]
    pub const fn new(name: ClusterName) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            join: None,
            attestation: None,
            dialect: Dialect::Moorline,
            certificate: None,
            operator_namespace: None,
        }
    }
}

fn is_default(dialect: &Dialect) -> bool {
    *dialect == Dialect::default()
}

/// Asks for a cluster's next agent to be let in, which may speak another dialect, beside the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateCluster {
    /// What the next agent speaks.
    pub dialect: Dialect,
    /// The namespace of Calico's operator there, where it is not what the record says.
    #[serde(default, rename = "operatorNamespace", skip_serializing_if = "Option::is_none")]
    pub operator_namespace: Option<String>,
}

/// The cluster whose agent shows the certificate that its owner brought. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BroughtCluster {
    /// The cluster.
    pub cluster: ManagedCluster,
    /// Where its agent is to dial: `host:port`.
    #[serde(rename = "managementClusterAddr")]
    pub management_cluster_addr: String,
    /// The tunnel CA, in PEM.
    #[serde(rename = "management-cluster.crt")]
    pub management_cluster_crt: String,
}

/// What comes of an enrolment: a certificate and its key, or what the owner's own certificate takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Enrolled {
    /// A certificate was signed, and its key is handed out now.
    Issued(Box<CreatedCluster>),
    /// The owner brought one.
    Brought(Box<BroughtCluster>),
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
    fn what_was_signed_is_told_from_what_was_brought() {
        let cluster = serde_json::json!({
            "apiVersion": "v", "kind": "k", "spec": {"dialect": "guardian"},
            "metadata": {"name": "east", "uid": "11111111-1111-1111-1111-111111111111",
                         "creationTimestamp": "2026-11-21T03:53:00Z"},
        });
        let brought = serde_json::json!({
            "cluster": cluster, "managementClusterAddr": "host:9449", "management-cluster.crt": "ca",
        });
        assert!(matches!(serde_json::from_value(brought).unwrap(), Enrolled::Brought(_)));
        let enrolment = serde_json::json!({
            "managementClusterAddr": "host:9449", "management-cluster.crt": "ca",
            "managed-cluster.crt": "leaf", "managed-cluster.key": "secret",
        });
        let issued = serde_json::json!({"cluster": cluster, "enrolment": enrolment});
        assert!(matches!(serde_json::from_value(issued).unwrap(), Enrolled::Issued(_)));
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

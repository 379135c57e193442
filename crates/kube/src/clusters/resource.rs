//! `ManagedCluster` as Kubernetes keeps it: the Rust types that the custom resource definition is generated from.
//!
//! What people ask for is in `spec` and in the labels; what the server must remember (fingerprints, hashes of join
//! tokens, revocation) and what it observes (conditions, sessions, versions) is in `status`. Who may write the status of
//! a cluster says which certificates stand for it: that right is the server's alone.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked for of a managed cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "moorline.io",
    version = "v1alpha1",
    kind = "ManagedCluster",
    plural = "managedclusters",
    singular = "managedcluster",
    shortname = "mcl",
    category = "moorline",
    status = "ManagedClusterStatus",
    derive = "PartialEq",
    doc = "A Kubernetes cluster that is reached through the tunnel of its agent.",
    validation = Rule::new("self.metadata.name != 'management'")
        .message("the name management stands for the management cluster itself"),
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("the name of a cluster is a DNS label: at most 63 lower-case letters, digits and '-'; it cannot be \
                  changed later"),
    printcolumn(
        name = "Connected",
        type_ = "string",
        description = "Whether requests reach the cluster now",
        json_path = ".status.conditions[?(@.type==\"ManagedClusterConnected\")].status"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        description = "The version of its kube-apiserver",
        json_path = ".status.kubernetesVersion"
    ),
    printcolumn(
        name = "Dialect",
        type_ = "string",
        description = "What its agent speaks",
        json_path = ".spec.dialect"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"ManagedClusterConnected\")].reason"
    ),
    printcolumn(name = "Sessions", type_ = "integer", priority = 1, json_path = ".status.sessions"),
    printcolumn(name = "Agent", type_ = "string", priority = 1, json_path = ".status.agentVersion"),
    printcolumn(name = "Expiry", type_ = "string", priority = 1, json_path = ".status.certificateExpiry")
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManagedClusterSpec {
    /// What the cluster's agent speaks, or is to speak: Moorline's own agent, or Calico's open-source Guardian.
    #[serde(default)]
    pub(crate) dialect: Dialect,
    /// The namespace of Calico's operator in the managed cluster, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub(crate) operator_namespace: Option<String>,
    /// A certificate of your own (PEM) that stands for the cluster, besides those that the server signs. That of a Guardian
    /// may be of any make: self-signed, or of X.509 version 1. That of Moorline's own agent must chain to an authority
    /// that the tunnel trusts. Never a private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    #[x_kube(
        validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')").message("write a certificate in PEM"),
        validation = Rule::new("!self.contains('PRIVATE KEY')")
            .message("never put a private key here: write the certificate only")
    )]
    pub(crate) certificate: Option<String>,
    /// Lets an agent join by a service account token of its own cluster instead of a join token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attestation: Option<Attestation>,
}

/// What an agent speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Dialect {
    /// Moorline's own agent.
    #[default]
    Moorline,
    /// Calico's open-source Guardian.
    Guardian,
}

impl From<moorline_model::Dialect> for Dialect {
    fn from(dialect: moorline_model::Dialect) -> Self {
        match dialect {
            moorline_model::Dialect::Moorline => Self::Moorline,
            moorline_model::Dialect::Guardian => Self::Guardian,
        }
    }
}

impl From<Dialect> for moorline_model::Dialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Moorline => Self::Moorline,
            Dialect::Guardian => Self::Guardian,
        }
    }
}

/// Which service account of the managed cluster may join, and by whose signature it is known.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) struct Attestation {
    /// The issuer of the managed cluster's service account tokens.
    #[schemars(length(min = 1, max = 2048))]
    pub(crate) issuer: String,
    /// The audience that the token must be for.
    #[schemars(length(min = 1, max = 253))]
    pub(crate) audience: String,
    /// The service account, as `system:serviceaccount:NAMESPACE:NAME`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('system:serviceaccount:')")
        .message("write system:serviceaccount:NAMESPACE:NAME"))]
    pub(crate) subject: String,
    /// The issuer's public keys, as a JSON Web Key Set; fetched from the issuer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub(crate) jwks: Option<String>,
}

/// What is, and what the server must remember. Written by the server only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub(crate) struct ManagedClusterStatus {
    /// Tells the cluster from an earlier one of the same name; the object's own uid when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// When the cluster was registered, where that was before this object was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<String>,
    /// The certificates that stand for the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub(crate) fingerprints: Vec<Certificate>,
    /// SHA-256 fingerprints of certificates that stood for the cluster and do no more, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub(crate) retired: Vec<String>,
    /// Since when the cluster is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<String>,
    /// Join tokens, by hash: nobody can join with what is here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub(crate) join_tokens: Vec<JoinToken>,
    /// How the cluster stands, with reasons and times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub(crate) conditions: Vec<Condition>,
    /// How many sessions its agents have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<i32>,
    /// The version of its kube-apiserver, as last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes_version: Option<String>,
    /// The version of its newest agent, as last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_version: Option<String>,
    /// When an agent was last heard of, where none is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<String>,
    /// When the last of its certificates ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_expiry: Option<String>,
}

/// A certificate that stands for the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) struct Certificate {
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub(crate) fingerprint: String,
    /// When it ends.
    pub(crate) not_after: String,
    /// What its holder speaks.
    #[serde(default)]
    pub(crate) dialect: Dialect,
    /// The one that its holder renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renews: Option<String>,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) struct JoinToken {
    /// By which people name it.
    pub(crate) id: String,
    /// The SHA-256 of its secret.
    pub(crate) hash: String,
    /// When it was made.
    pub(crate) created: String,
    /// Until when it can be used.
    pub(crate) expires: String,
    /// Who made it.
    pub(crate) created_by: String,
    /// When it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<String>,
    /// The SHA-256 of the public key that it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used_for: Option<String>,
    /// The certificate that was the answer, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<String>,
}

/// A Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(crate) struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// Why, as one word in camel case.
    pub(crate) reason: String,
    /// Why, for people.
    #[serde(default)]
    pub(crate) message: String,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_transition_time: Option<String>,
}

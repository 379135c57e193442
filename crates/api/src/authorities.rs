//! The authority that agents' certificates and the tunnel's door are signed by, and its rotation.

use moorline_model::{Fingerprint, Timestamp};
use serde::{Deserialize, Serialize};

/// How the tunnel's authority stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthoritiesStatus {
    /// The one that signs.
    pub signing: Authority,
    /// The one that is believed as well, until everybody has left it; none where no rotation is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Authority>,
    /// Since when there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The clusters that would be lost if the rotation were finished now, by name.
    #[serde(default)]
    pub behind: Vec<BehindCluster>,
}

/// An authority's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Its subject, for people.
    pub subject: String,
    /// Its SHA-256.
    pub fingerprint: Fingerprint,
    /// Its last second.
    pub not_after: Timestamp,
}

/// A cluster that has not left the authority that is being left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BehindCluster {
    /// Which.
    pub name: String,
    /// Whether it has a session now.
    pub connected: bool,
    /// For people.
    pub why: String,
    /// Whether the rotation may be finished without it; a connected agent that can move is waited for.
    pub may_be_abandoned: bool,
}

/// Finishes a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishRotation {
    /// Clusters that are given up: they come back by a new token or manifest only.
    #[serde(default)]
    pub abandon: Vec<String>,
}

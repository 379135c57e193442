//! What the server says of itself.

use moorline_model::Timestamp;
use serde::{Deserialize, Serialize};

/// How the server fares, in numbers that need no right on any single cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// The version of the server program.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Registered clusters.
    pub clusters: u64,
    /// Those that requests reach now.
    pub connected_clusters: u64,
    /// Sessions of agents.
    pub sessions: u64,
    /// What agents dial; none where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_address: Option<String>,
    /// How long the certificate of an agent lives, in seconds; none where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_certificate_life_seconds: Option<u64>,
}

/// Which server this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The version of the server program.
    pub version: String,
    /// The newest version of the tunnel protocol that it speaks.
    pub protocol_version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_camel_case() {
        let status = ServerStatus {
            version: "0.1.0".to_owned(),
            started: Timestamp::from_unix_seconds(0),
            clusters: 2,
            connected_clusters: 1,
            sessions: 1,
            tunnel_address: Some("hub:9449".to_owned()),
            agent_certificate_life_seconds: None,
        };
        let expected = serde_json::json!({
            "version": "0.1.0", "started": "1970-01-01T00:00:00Z", "clusters": 2, "connectedClusters": 1, "sessions": 1,
            "tunnelAddress": "hub:9449",
        });
        assert_eq!(serde_json::to_value(status).unwrap(), expected);
        let version = Version { version: "0.1.0".to_owned(), protocol_version: 1 };
        let expected = serde_json::json!({"version": "0.1.0", "protocolVersion": 1});
        assert_eq!(serde_json::to_value(version).unwrap(), expected);
    }
}

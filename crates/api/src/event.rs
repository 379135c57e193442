//! What happened to a cluster, in the shape of Kubernetes' events.

use moorline_model::{ClusterName, ClusterUid, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{API_VERSION, ListMeta};

/// Whether somebody should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// This is how things go.
    Normal,
    /// Somebody may have to act.
    Warning,
}

impl EventType {
    /// The word, as Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to a cluster, once or several times in the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterEvent {
    /// Whether somebody should look at it.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What, as one word in camel case: `Connected`, `Disconnected`, `Refused`, …
    pub reason: String,
    /// What, for people.
    pub message: String,
    /// To which cluster.
    pub involved_object: InvolvedObject,
    /// How often.
    pub count: u32,
    /// When first.
    pub first_timestamp: Timestamp,
    /// When last.
    pub last_timestamp: Timestamp,
}

/// The cluster that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvolvedObject {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ManagedCluster`.
    pub kind: String,
    /// Its name.
    pub name: ClusterName,
    /// Tells it from an earlier cluster of the same name.
    pub uid: ClusterUid,
}

impl InvolvedObject {
    /// The cluster of this name.
    #[must_use]
    pub fn cluster(name: ClusterName, uid: ClusterUid) -> Self {
        Self { api_version: API_VERSION.to_owned(), kind: "ManagedCluster".to_owned(), name, uid }
    }
}

/// What happened to one cluster, oldest first; or what a webhook is told of at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterEventList {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ClusterEventList`.
    pub kind: String,
    /// Empty; there because Kubernetes' lists have it.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The events.
    pub items: Vec<ClusterEvent>,
}

impl ClusterEventList {
    /// A list of these events.
    #[must_use]
    pub fn new(items: Vec<ClusterEvent>) -> Self {
        let (api_version, kind) = (API_VERSION.to_owned(), "ClusterEventList".to_owned());
        Self { api_version, kind, metadata: ListMeta::default(), items }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_kubernetes_shape() {
        let moment = Timestamp::from_unix_seconds(0);
        let event = ClusterEvent {
            kind: EventType::Warning,
            reason: "Refused".to_owned(),
            message: "why".to_owned(),
            involved_object: InvolvedObject::cluster("east".parse().unwrap(), ClusterUid::from_bytes([0x11; 16])),
            count: 3,
            first_timestamp: moment,
            last_timestamp: moment,
        };
        let json = serde_json::to_value(ClusterEventList::new(vec![event.clone()])).unwrap();
        let expected = serde_json::json!({
            "apiVersion": "moorline.io/v1alpha1",
            "kind": "ClusterEventList",
            "metadata": {},
            "items": [{
                "type": "Warning",
                "reason": "Refused",
                "message": "why",
                "involvedObject": {
                    "apiVersion": "moorline.io/v1alpha1",
                    "kind": "ManagedCluster",
                    "name": "east",
                    "uid": "11111111-1111-1111-1111-111111111111",
                },
                "count": 3,
                "firstTimestamp": "1970-01-01T00:00:00Z",
                "lastTimestamp": "1970-01-01T00:00:00Z",
            }],
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<ClusterEventList>(json).unwrap().items, [event]);
    }
}

//! Kubernetes Events on `ManagedCluster` objects, as `kubectl describe` shows them.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff,
};
use kube::{Api, Resource, api::PostParams};
use moorline_model::ClusterName;

use super::{ClusterObjects, FIELD_MANAGER, ObjectError, resource::ManagedCluster};

/// The namespace in which events of objects without one are kept, by Kubernetes' own rule.
const NAMESPACE: &str = "default";

/// Bytes of a note that Kubernetes takes.
const MAX_NOTE: usize = 1024;

/// Something that happened to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub warning: bool,
    /// What, as one word in camel case.
    pub reason: String,
    /// What, for people. Cut where it is longer than Kubernetes takes.
    pub note: String,
}

impl ClusterObjects {
    /// Leaves an event on the object of a cluster.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn tell(&self, name: &ClusterName, uid: &str, notice: &Notice) -> Result<(), ObjectError> {
        let events: Api<Event> = Api::namespaced(self.connection.client.clone(), NAMESPACE);
        self.call(events.create(&PostParams::default(), &event(name, uid, notice))).await.map(drop)
    }
}

fn event(name: &ClusterName, uid: &str, notice: &Notice) -> Event {
    let now = jiff::Timestamp::now();
    let mut note = notice.note.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    Event {
        metadata: ObjectMeta {
            // As client-go names them.
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(notice.reason.clone()),
        reason: Some(notice.reason.clone()),
        note: Some(note),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(ObjectReference {
            api_version: Some(ManagedCluster::api_version(&()).into_owned()),
            kind: Some(ManagedCluster::kind(&()).into_owned()),
            name: Some(name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(format!("moorline.io/{FIELD_MANAGER}")),
        reporting_instance: Some(FIELD_MANAGER.to_owned()),
        ..Event::default()
    }
}

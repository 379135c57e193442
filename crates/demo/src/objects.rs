//! The objects of the demo as Kubernetes would write them, each with the annotation that says what it is. Pure.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{ANNOTATION, VERSION};

/// The only node.
pub(crate) const NODE: &str = "moorline-demo";
/// The only container of each pod.
pub(crate) const CONTAINER: &str = "demo";

const NOTE: &str = "made up by the Moorline demo API; nothing runs here";

/// The stages in the life of a demo pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Creating,
    Running,
    Completed,
}

/// What a pod is made from.
#[derive(Clone, Debug)]
pub(crate) struct PodPlan<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) app: &'a str,
    pub(crate) created: OffsetDateTime,
    pub(crate) stage: Stage,
    /// When it reached its stage.
    pub(crate) since: OffsetDateTime,
}

pub(crate) fn namespace(name: &str, created: OffsetDateTime) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": metadata(&Scope::cluster("namespace", name), &json!({"kubernetes.io/metadata.name": name}), created),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

pub(crate) fn node(created: OffsetDateTime) -> Value {
    let at = timestamp(created);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": metadata(&Scope::cluster("node", NODE), &json!({"kubernetes.io/hostname": NODE}), created),
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "Demo", "message": NOTE,
                            "lastHeartbeatTime": at, "lastTransitionTime": at}],
            "nodeInfo": {"kubeletVersion": VERSION, "osImage": "Moorline demo", "kernelVersion": "none",
                         "containerRuntimeVersion": "demo://0", "operatingSystem": "demo", "architecture": "demo",
                         "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": ""},
        },
    })
}

pub(crate) fn about(created: OffsetDateTime) -> Value {
    let scope = Scope { kind: "configmap", namespace: "default", name: "about-this-demo" };
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata(&scope, &json!({"app": "moorline-demo"}), created),
        "data": {
            "what": "This is the Moorline demo API: a few made-up objects in memory, behind a real tunnel. \
                     No container runs, and nothing can be changed.",
            "who": "Your requests arrive here as you, by impersonation. See: kubectl auth whoami",
            "next": "Tie a real cluster instead: moorline quickstart --kubeconfig ~/.kube/config",
        },
    })
}

pub(crate) fn pod(plan: &PodPlan<'_>) -> Value {
    let scope = Scope { kind: "pod", namespace: plan.namespace, name: plan.name };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": metadata(&scope, &json!({"app": plan.app}), plan.created),
        "spec": {
            "nodeName": NODE,
            "restartPolicy": if plan.app == "comes-and-goes" { "Never" } else { "Always" },
            "containers": [{"name": CONTAINER, "image": "moorline.invalid/demo:none", "resources": {},
                            "imagePullPolicy": "Never"}],
        },
        "status": pod_status(plan),
    })
}

fn pod_status(plan: &PodPlan<'_>) -> Value {
    let since = timestamp(plan.since);
    let (phase, ready, state) = match plan.stage {
        Stage::Creating => ("Pending", false, json!({"waiting": {"reason": "ContainerCreating"}})),
        Stage::Running => ("Running", true, json!({"running": {"startedAt": since}})),
        Stage::Completed => (
            "Succeeded",
            false,
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": since,
                                  "startedAt": timestamp(plan.created)}}),
        ),
    };
    let condition = |name: &str, holds: bool| json!({"type": name, "status": if holds { "True" } else { "False" }, "lastTransitionTime": since});
    json!({
        "phase": phase,
        "startTime": timestamp(plan.created),
        "qosClass": "BestEffort",
        "conditions": [condition("PodScheduled", true), condition("Initialized", true),
                       condition("ContainersReady", ready), condition("Ready", ready)],
        "containerStatuses": [{
            "name": CONTAINER, "ready": ready, "started": ready, "restartCount": 0, "state": state, "lastState": {},
            "image": "moorline.invalid/demo:none", "imageID": "", "containerID": "demo://none",
        }],
    })
}

/// An event about a pod. `serial` makes its name unique.
pub(crate) fn event(pod: &Value, serial: u64, reason: &str, message: &str, at: OffsetDateTime) -> Value {
    let about = &pod["metadata"];
    let (namespace, pod_name) =
        (about["namespace"].as_str().unwrap_or_default(), about["name"].as_str().unwrap_or_default());
    let name = format!("{pod_name}.{serial:016x}");
    let at_text = timestamp(at);
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": metadata(&Scope { kind: "event", namespace, name: &name }, &json!({}), at),
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod_name, "uid": about["uid"]},
        "type": "Normal", "reason": reason, "message": format!("{message} (demo)"), "count": 1,
        "firstTimestamp": at_text, "lastTimestamp": at_text, "eventTime": null,
        "source": {"component": "moorline-demo"}, "reportingComponent": "moorline-demo", "reportingInstance": "",
    })
}

/// RFC 3339 in UTC with whole seconds, as `metav1.Time` is written.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    let whole = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
    // RFC 3339 has no form for years beyond 9999, which the clock does not show.
    whole.format(&Rfc3339).unwrap_or_default()
}

/// The time that [`timestamp`] wrote.
pub(crate) fn parse_timestamp(value: &Value) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()
}

struct Scope<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Scope<'a> {
    fn cluster(kind: &'a str, name: &'a str) -> Self {
        Self { kind, namespace: "", name }
    }
}

fn metadata(scope: &Scope<'_>, labels: &Value, created: OffsetDateTime) -> Value {
    let mut metadata = json!({
        "name": scope.name,
        "uid": uid(scope),
        "creationTimestamp": timestamp(created),
        "labels": labels,
        "annotations": {ANNOTATION: NOTE},
    });
    if !scope.namespace.is_empty() {
        metadata["namespace"] = json!(scope.namespace);
    }
    metadata
}

/// The same object has the same uid in every demo and after every start, so that a second start is the same cluster.
fn uid(scope: &Scope<'_>) -> String {
    let digest = Sha256::digest(format!("moorline-demo/{}/{}/{}", scope.kind, scope.namespace, scope.name));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

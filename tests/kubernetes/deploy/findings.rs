//! What kube-score, a published policy check, says of manifests, and which of it is meant so.

use std::process::Stdio;

use moorline_testkit::kubernetes::Tools;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::kube::DEADLINE;

/// The check, the objects, and why they are as they are.
pub(super) const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "container-image-pull-policy",
        "Deployment/",
        "images are named by immutable versions or digests; a node must start its pods while the registry is away",
    ),
    (
        "container-resources",
        "Deployment/",
        "no limit of CPU time: being throttled, a tunnel delays everybody's requests",
    ),
    (
        "deployment-replicas",
        "Deployment/apps/v1/moorline/moorline-server",
        "the state directory is one server's at a time",
    ),
    (
        "deployment-strategy",
        "Deployment/apps/v1/moorline/moorline-server",
        "the same: the old one ends before the new one",
    ),
    ("deployment-replicas", "Deployment/", "one agent is the default; --replicas makes more"),
    ("service-type", "Service/v1/moorline/moorline-", "the variants by which the doors are reached from outside"),
];

/// Something that the check would have otherwise.
#[derive(Debug)]
pub(super) struct Finding {
    check: String,
    object: String,
    /// Held against the message too, so that one explanation does not cover another finding of the same check.
    comments: Vec<String>,
}

impl Finding {
    pub(super) fn is(&self, check: &str, object: &str) -> bool {
        let of_cpu = self.comments.iter().all(|comment| comment.ends_with("CPU limit is not set"));
        self.check == check && self.object.starts_with(object) && (check != "container-resources" || of_cpu)
    }
}

/// Everything that is found in a stream of documents.
pub(super) async fn of(tools: &Tools, yaml: &str) -> Vec<Finding> {
    let mut command = Command::from(tools.kube_score());
    command.args(["score", "--output-format=json", "--kubernetes-version=v1.33"]);
    command.args(["--enable-optional-test=container-seccomp-profile", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let written = async {
        stdin.write_all(yaml.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let both = async { tokio::join!(written, child.wait_with_output()).1.unwrap() };
    let output = tokio::time::timeout(DEADLINE, both).await.expect("kube-score hangs");
    let said = String::from_utf8_lossy(&output.stdout);
    let objects: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(!objects.is_empty());
    objects.iter().flat_map(of_object).collect()
}

fn of_object(object: &Value) -> Vec<Finding> {
    const ALL_OK: u64 = 10;
    let checks = object["checks"].as_array().into_iter().flatten();
    let found = checks.filter(|check| check["skipped"] != true && check["grade"].as_u64() < Some(ALL_OK));
    let summary = |comment: &Value| comment["summary"].as_str().unwrap_or_default().to_owned();
    let finding = |check: &Value| Finding {
        check: check["check"]["id"].as_str().unwrap().to_owned(),
        object: object["object_name"].as_str().unwrap().to_owned(),
        comments: check["comments"].as_array().into_iter().flatten().map(summary).collect(),
    };
    found.map(finding).collect()
}

//! What stands in `deploy/`, and the manifest of an agent: a real kube-apiserver admits all of it, in a namespace of the
//! restricted pod security level, and a published policy check finds nothing that is not explained in `findings`.
//!
//! Nothing runs here: `sources` renders, kubectl and helm being the real ones.

mod findings;
mod guardian;
mod sources;

use std::collections::BTreeMap;

use http::Method;
use moorline_manifest::Node;
use moorline_testkit::kubernetes::{ControlPlane, Kubectl, Options, Tools};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::kube::{DEADLINE, Kube};
use sources::Variant;

/// A control plane that knows the kinds which `deploy/` needs, and a kubectl whose caller may do everything.
struct Stage {
    plane: ControlPlane,
    kube: Kube,
}

impl Stage {
    async fn set(tools: &Tools, name: &str) -> Self {
        let plane = ControlPlane::start(tools, Options { name: name.to_owned(), ..Options::default() }).await.unwrap();
        let kube = Kube {
            tools: tools.clone(),
            version: Kubectl::New,
            kubeconfig: plane.admin_kubeconfig().unwrap(),
            prefix: String::new(),
            namespace: "default".to_owned(),
        };
        Self { plane, kube }
    }

    /// As somebody applies a file: kubectl is told no namespace.
    async fn apply(&self, yaml: &str, more: &[&str]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let mut command = Command::from(self.kube.tools.kubectl(self.kube.version, &self.kube.kubeconfig));
        command.args(["apply", "--filename"]).arg(file.path()).args(more).kill_on_drop(true);
        let ended = tokio::time::timeout(DEADLINE, command.output()).await.expect("kubectl hangs").unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && !err.contains("Warning"), "{err}\n{out}");
        out.into_owned()
    }

    /// The versions of all disruption budgets.
    async fn budgets(&self) -> String {
        let version = "--output=jsonpath={.items[*].metadata.resourceVersion}";
        self.kube.ok(&["get", "poddisruptionbudgets", "--all-namespaces", version]).await
    }

    /// A pod is what the pod security level is about; a Deployment that breaks it is only warned of.
    async fn admits_pods_of(&self, deployment: &Value) {
        let namespace = deployment["metadata"]["namespace"].as_str().unwrap();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "one", "labels": deployment["spec"]["template"]["metadata"]["labels"] },
            "spec": deployment["spec"]["template"]["spec"],
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let answer = self.plane.api().call(Method::POST, &path, Some(&pod)).await.unwrap();
        answer.ok().unwrap_or_else(|refused| panic!("{namespace}: {refused:?}"));
        let mut privileged = pod;
        privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let answer = self.plane.api().call(Method::POST, &path, Some(&privileged)).await.unwrap();
        assert_eq!(answer.status.as_u16(), 403, "the level is not enforced: {answer:?}");
    }
}

/// The documents of a stream.
fn documents(yaml: &str) -> Vec<Value> {
    let parts = yaml.split("\n---\n").map(|part| part.trim_start_matches("---\n"));
    let nodes = parts.map(|part| Node::parse(part).unwrap_or_else(|error| panic!("{error}: {part}")));
    let values = nodes.map(|node| serde_json::to_value(&node).unwrap());
    values.filter(|value| value.get("kind").is_some()).collect()
}

#[tokio::test]
async fn everything_is_admitted_by_a_real_kube_apiserver() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let stage = Stage::set(&tools, "deploy").await;
    stage.apply(sources::SERVICE_MONITORS, &[]).await;
    let variants = sources::all(&tools).await;
    // A dry run finds neither namespace nor kind that only it has made.
    let kinds: Vec<&str> = variants.iter().flat_map(|variant| sources::first(&variant.yaml)).collect();
    for document in kinds {
        stage.apply(document, &[]).await;
    }
    stage.kube.ok(&["wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"]).await;
    for Variant { name, yaml } in &variants {
        let said = stage.apply(yaml, &["--dry-run=server"]).await;
        let documents = documents(yaml);
        assert_eq!(said.lines().count(), documents.len(), "{name}: {said}");
        let mut pods = 0;
        for deployment in documents.iter().filter(|document| document["kind"] == "Deployment") {
            stage.admits_pods_of(deployment).await;
            pods += 1;
        }
        assert_eq!(pods, 1, "{name}");
    }
}

#[tokio::test]
async fn the_chart_of_an_agent_makes_what_the_command_line_prints() {
    let Some(tools) = Tools::require_or_skip() else { return };
    for (stream, chart) in sources::twice(&tools).await {
        let named = |yaml: &str| -> BTreeMap<String, Value> {
            let name = |object: &Value| {
                let metadata = &object["metadata"];
                format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"])
            };
            documents(yaml).into_iter().map(|object| (name(&object), object)).collect()
        };
        let (mut stream, chart) = (named(&stream), named(&chart));
        stream.retain(|_, object| object["kind"] != "Namespace");
        assert!(chart.len() > 10, "{:?}", chart.keys());
        assert_eq!(chart, stream);
    }
}

#[tokio::test]
async fn a_manifest_applied_again_changes_nothing() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let stage = Stage::set(&tools, "deploy-again").await;
    for yaml in [sources::agent(), sources::kustomized(&tools, "deploy/kustomize/server/overlays/nodeport").await] {
        stage.apply(&yaml, &[]).await;
        let before = stage.budgets().await;
        let again = stage.apply(&yaml, &[]).await;
        // Of a budget's selector kubectl always sends the whole, and then says that it changed what it did not.
        let same = |line: &&str| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget");
        let changed: Vec<_> = again.lines().filter(|line| !same(line)).collect();
        assert!(changed.is_empty(), "{changed:?}");
        assert_eq!(stage.budgets().await, before);
    }
    connections_are_checked(&stage).await;
}

/// The definition takes what the agent can use, and nothing else.
async fn connections_are_checked(stage: &Stage) {
    stage.kube.ok(&["wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"]).await;
    let connection = |name: &str, address: &str, ca: &str| {
        json!({
            "apiVersion": "moorline.io/v1alpha1",
            "kind": "ManagementClusterConnection",
            "metadata": { "name": name },
            "spec": { "managementClusterAddr": address, "tls": { "ca": ca } },
        })
        .to_string()
    };
    for (name, address, ca, good) in [
        ("default", "hub.example.com:9449", "Moorline", true),
        ("default", "[2001:db8::1]", "Public", true),
        ("other", "hub.example.com:9449", "Moorline", false),
        ("default", "https://hub.example.com", "Moorline", false),
        ("default", "", "Moorline", false),
        ("default", "hub.example.com:9449", "Tigera", false),
    ] {
        let object = connection(name, address, ca);
        let ended = stage.kube.run_with(&["apply", "--filename=-"], object.as_bytes()).await;
        assert_eq!(ended.code == Some(0), good, "{object}: {ended:?}");
    }
    let shown = stage.kube.ok(&["get", "mcc"]).await;
    assert!(shown.starts_with("NAME") && shown.contains("ADDRESS") && shown.contains("[2001:db8::1]"), "{shown}");
}

#[tokio::test]
async fn a_policy_check_finds_only_what_is_explained() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let mut unused: Vec<_> = findings::EXPLAINED.iter().map(|(what, _, _)| *what).collect();
    unused.dedup();
    for Variant { name, yaml } in sources::all(&tools).await {
        for finding in findings::of(&tools, &yaml).await {
            let explained = findings::EXPLAINED.iter().find(|(check, of, _)| finding.is(check, of));
            let Some((check, _, _)) = explained else { panic!("{name}: {finding:?}") };
            unused.retain(|what| what != check);
        }
    }
    assert!(unused.is_empty(), "explained, and not found any more: {unused:?}");
}

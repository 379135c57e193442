//! All that `deploy/` can be turned into, and agents' manifests as the command line prints them.

use std::path::{Path, PathBuf};

use moorline_impersonation::Narrowing;
use moorline_manifest::agent::{Acting, Address, Certificates, Manifest, Written};
use moorline_testkit::kubernetes::{Kubectl, Tools};
use tokio::process::Command;

use crate::kube::DEADLINE;

/// One stream of documents that somebody may apply.
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) yaml: String,
}

/// Of the Prometheus Operator's definition no more than that there is one: ours is held against its documentation only.
pub(super) const SERVICE_MONITORS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ServiceMonitor, listKind: ServiceMonitorList, plural: servicemonitors, singular: servicemonitor}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

const OVERLAYS: [&str; 7] = [
    "base",
    "overlays/nodeport",
    "overlays/aws",
    "overlays/gcp",
    "overlays/azure",
    "overlays/ingress",
    "overlays/prometheus",
];

/// What the chart is told in each variant, besides the address.
const VALUES: [&[&str]; 4] = [
    &[],
    &["tunnel.type=NodePort", "gateway.type=NodePort", "tlsSans={hub.example.org,192.0.2.1}"],
    &[
        "tunnel.type=LoadBalancer",
        "tunnel.annotations.cloud\\.google\\.com/l4-rbs=enabled",
        "extraArgs={--user-qps=50}",
    ],
    &[
        "ingress.enabled=true",
        "ingress.tunnelHost=tunnel.example.org",
        "ingress.gatewayHost=hub.example.org",
        "serviceMonitor.enabled=true",
        "persistence.storageClassName=fast",
        "nodeSelector.pool=system",
        "imagePullSecrets[0].name=pull",
    ],
];

/// Every variant.
pub(super) async fn all(tools: &Tools) -> Vec<Variant> {
    let mut all = Vec::new();
    for overlay in OVERLAYS {
        let path = format!("deploy/kustomize/server/{overlay}");
        all.push(Variant { yaml: kustomized(tools, &path).await, name: path });
    }
    let path = "deploy/kustomize/agent".to_owned();
    all.push(Variant { yaml: kustomized(tools, &path).await, name: path });
    for values in VALUES {
        all.push(Variant { name: format!("chart with {values:?}"), yaml: chart(tools, values).await });
    }
    all.push(Variant { name: "agent".to_owned(), yaml: agent() });
    all.push(Variant { name: "agent with everything".to_owned(), yaml: manifest(&everything(), "192.0.2.1") });
    all
}

/// The documents of a stream that others need to be there for a dry run.
pub(super) fn first(yaml: &str) -> impl Iterator<Item = &str> {
    let needed =
        |part: &&str| part.contains("\nkind: Namespace\n") || part.contains("\nkind: CustomResourceDefinition\n");
    yaml.split("\n---\n").filter(needed)
}

pub(super) async fn kustomized(tools: &Tools, path: &str) -> String {
    let nowhere = root().join("no-kubeconfig");
    let mut command = Command::from(tools.kubectl(Kubectl::New, &nowhere));
    command.arg("kustomize").arg(root().join(path));
    output(command).await
}

async fn chart(tools: &Tools, values: &[&str]) -> String {
    let mut arguments = vec!["--set=publicTunnelAddress=hub.example.org:9449".to_owned()];
    arguments.extend(values.iter().map(|value| format!("--set={value}")));
    // A chart has no namespace of its own: who installs it makes one, as kustomize's base does.
    let namespace = std::fs::read_to_string(root().join("deploy/kustomize/server/base/namespace.yaml")).unwrap();
    format!("{namespace}---\n{}", templates(tools, "moorline-server", "moorline", &arguments).await)
}

async fn templates(tools: &Tools, chart: &str, namespace: &str, arguments: &[String]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::from(tools.helm(home.path()));
    command.args(["template", "moorline"]).arg(root().join("deploy/helm").join(chart));
    command.args(["--include-crds", "--kube-version=1.33", "--namespace", namespace]).args(arguments);
    output(command).await.trim_start_matches("---\n").to_owned()
}

/// Agents as the command line prints them and as the chart makes them of the values that it prints: the same, but for the
/// namespace, which whoever installs a chart makes.
pub(super) async fn twice(tools: &Tools) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (written, namespace) in [(Written::default(), "moorline"), (everything(), "tunnels")] {
        let (stream, values) =
            with(&written, "192.0.2.1", |manifest| (manifest.stream().unwrap(), manifest.values().unwrap()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), values).unwrap();
        let arguments = ["--values".to_owned(), file.path().display().to_string()];
        pairs.push((stream, templates(tools, "moorline-agent", namespace, &arguments).await));
    }
    pairs
}

/// An agent of defaults.
pub(super) fn agent() -> String {
    manifest(&Written::default(), "hub.example.com:9449")
}

fn everything() -> Written {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Written {
        namespace: Some("tunnels".to_owned()),
        image: Some("registry.example.com/agent:1".to_owned()),
        image_pull_secrets: owned(&["pull"]),
        replicas: Some(3),
        proxy: Some("https://proxy.example.com:3128".to_owned()),
        proxy_secret: Some("proxy".to_owned()),
        apiserver_cidrs: owned(&["10.96.0.1/32"]),
        services: owned(&["store=:9200"]),
        http_services: owned(&["logs=:8443"]),
        node_selector: owned(&["kubernetes.io/os=linux"]),
        tolerations: owned(&["edge:NoSchedule", "spot=yes"]),
        ..Written::default()
    }
}

fn manifest(written: &Written, address: &str) -> String {
    with(written, address, |manifest| manifest.stream().unwrap())
}

/// Narrowed to a service account, so that there are roles of a namespace too.
fn with<T>(written: &Written, address: &str, then: impl FnOnce(&Manifest<'_>) -> T) -> T {
    let allow_users = vec!["ann".to_owned(), "system:serviceaccount:default:till".to_owned()];
    let arguments = allow_users.iter().map(|user| format!("--allow-user={user}")).collect();
    let narrowing = Narrowing { allow_users, ..Narrowing::default() };
    let install = written.resolve("0.1.0", Acting { arguments, narrowing }).unwrap();
    let certificates = Certificates { authorities: "CA\n", certificate: "CERTIFICATE\n", key: "KEY\n" };
    let (cluster, address) = ("west".parse().unwrap(), Address::parse(address, 9449).unwrap());
    then(&Manifest {
        install: &install,
        cluster: &cluster,
        address: &address,
        credential: moorline_manifest::agent::Credential::Certificates(certificates),
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

async fn output(mut command: Command) -> String {
    command.kill_on_drop(true);
    let ended = tokio::time::timeout(DEADLINE, command.output()).await.expect("a program hangs").unwrap();
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

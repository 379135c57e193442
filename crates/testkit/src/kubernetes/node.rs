//! A node with a real kubelet endpoint, and pods on it whose containers are local processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::ControlPlane;
use super::program::Program;

/// How long a node may take to register, and a pod to run.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often they are looked at.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A kubelet that registered a node. The node stays registered when this is dropped, and is then dead.
pub struct Node {
    name: String,
    _kubelet: Program,
}

/// A pod of one container, which is a command on this machine.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its namespace; created when absent.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// What the container runs.
    pub command: Vec<String>,
    /// Whether the container reads from those who attach.
    pub stdin: bool,
    /// Whether the container runs on a terminal.
    pub tty: bool,
}

impl PodSpec {
    /// A pod in `default` that does nothing until it is deleted.
    #[must_use]
    pub fn idle(name: &str) -> Self {
        Self::running(name, &["sleep", "infinity"])
    }

    /// A pod in `default` that runs this command.
    #[must_use]
    pub fn running(name: &str, command: &[&str]) -> Self {
        Self {
            namespace: "default".into(),
            name: name.into(),
            labels: vec![("app".into(), name.into())],
            command: command.iter().map(|&word| word.to_owned()).collect(),
            stdin: false,
            tty: false,
        }
    }

    /// The manifest of this pod on that node.
    #[must_use]
    pub fn manifest(&self, node: &str) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": labels },
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main",
                    "image": "local-process",
                    "command": self.command,
                    "stdin": self.stdin,
                    "tty": self.tty,
                }],
            },
        })
    }
}

impl Node {
    /// The node's name, for `spec.nodeName`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl ControlPlane {
    /// Starts a kubelet for a node of this name and waits until the node is registered.
    pub async fn add_node(&self, name: &str) -> Result<Node> {
        let root = self.directory().join(format!("node-{name}"));
        fs::create_dir_all(&root).context("create the node's directory")?;
        let kubeconfig = self.admin_kubeconfig()?;
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--node={name}"),
            format!("--root={}", root.display()),
        ];
        let mut kubelet = Program::start("kubelet", &self.tools().kubelet, flags, &root, None)?;
        let path = format!("/api/v1/nodes/{name}");
        let deadline = Instant::now() + READY_WITHIN;
        let mut ticks = interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            kubelet.check()?;
            let node = self.api().get(&path).await;
            if let Ok(node) = &node
                && node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").is_some()
            {
                return Ok(Node { name: name.to_owned(), _kubelet: kubelet });
            }
            if Instant::now() >= deadline {
                bail!("node {name} did not register ({node:?}):\n{}", kubelet.quote());
            }
        }
    }

    /// Creates a pod on that node and waits until it runs, or has run.
    pub async fn add_pod(&self, node: &Node, pod: &PodSpec) -> Result<()> {
        let session = self.api().open().await?;
        let namespace = json!({ "metadata": { "name": pod.namespace } });
        session.create("/api/v1/namespaces", &namespace).await?;
        let pods = format!("/api/v1/namespaces/{}/pods", pod.namespace);
        session.create(&pods, &pod.manifest(&node.name)).await?;
        let path = format!("{pods}/{}", pod.name);
        let deadline = Instant::now() + READY_WITHIN;
        let mut ticks = interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            let object = session.call(http::Method::GET, &path, None).await?.ok()?;
            let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
            match phase {
                "Running" | "Succeeded" => return Ok(()),
                "Failed" => bail!("pod {} failed: {}", pod.name, object["status"]),
                _ if Instant::now() >= deadline => {
                    bail!("pod {} does not run: {}", pod.name, object["status"])
                }
                _ => {}
            }
        }
    }
}

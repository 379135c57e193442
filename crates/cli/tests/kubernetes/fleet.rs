//! A server, the management cluster's control plane where it uses one, and managed control planes, as their operators
//! have them: real kubectl, the command line, and agents in the pods that their manifests ask for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
};

use moorline_testkit::{
    eventually,
    kubernetes::{ControlPlane, Image, Kubectl, Options, Pod, Tools},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    DEADLINE,
    program::{Program, moorline},
};

/// The deploy directory of this repository.
pub(crate) const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// What the tests find where a management cluster is.
pub(crate) struct Fleet {
    pub(crate) tools: Tools,
    pub(crate) server: Program,
    pub(crate) gateway: SocketAddr,
    pub(crate) state: tempfile::TempDir,
    pub(crate) management: Option<ControlPlane>,
    home: tempfile::TempDir,
}

/// What a command came to.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it printed, if it ended well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The tools, where pods can be simulated as well. Says loudly what is skipped otherwise.
pub(crate) fn possible() -> Option<Tools> {
    let tools = Tools::require_or_skip()?;
    if Pod::possible() {
        return Some(tools);
    }
    #[expect(clippy::disallowed_methods, reason = "whether it may be skipped is for whoever runs it to say")]
    let required = std::env::var("MOORLINE_REQUIRE_NAMESPACES").is_ok_and(|value| value == "1");
    assert!(!required, "namespaces are required here, and `unshare --mount` does not work");
    moorline_testkit::kubernetes::say_skipped("`unshare --mount` does not work here, which pods are simulated with");
    None
}

impl Fleet {
    /// A server that keeps its clusters in a file.
    pub(crate) async fn embedded() -> Option<Self> {
        Some(Self::start(possible()?, None).await)
    }

    /// A server that keeps them in a management cluster, as a service account with the rights that `deploy/` gives it.
    pub(crate) async fn kubernetes() -> Option<Self> {
        let tools = possible()?;
        let options = Options { name: "management".into(), ..Options::default() };
        let plane = ControlPlane::start(&tools, options).await.unwrap();
        Some(Self::start(tools, Some(plane)).await)
    }

    async fn start(tools: Tools, management: Option<ControlPlane>) -> Self {
        let (state, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directory = state.path().join("state");
        let text = directory.display().to_string();
        let mut arguments: Vec<String> = ["server", "--state-dir", &text].map(str::to_owned).into();
        for door in ["tunnel", "gateway", "admin"] {
            arguments.extend([format!("--{door}-listen"), "127.0.0.1:0".to_owned()]);
        }
        if let Some(plane) = &management {
            let definitions = format!("{DEPLOY}/crds");
            kubectl(&tools, &plane.admin_kubeconfig().unwrap(), &["apply", "-k", &definitions]).await.ok();
            let kubeconfig = plane.admin_kubeconfig().unwrap().display().to_string();
            arguments.extend(["--cluster-store", "kubernetes", "--kubeconfig", &kubeconfig].map(str::to_owned));
        }
        let server = Program::start(moorline(&arguments));
        let gateway = server.address("gateway").await;
        Self { tools, server, gateway, state, management, home }
    }

    /// The command line, as the administrator of this server.
    pub(crate) async fn moorline(&self, arguments: &[&str]) -> Ended {
        self.moorline_with(arguments, "").await
    }

    /// The same, with something on its standard input.
    pub(crate) async fn moorline_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
        command.args(arguments).env_clear().env("HOME", self.home.path());
        command.env("MOORLINE_STATE_DIR", self.state.path().join("state"));
        command.env("MOORLINE_SERVER", format!("https://{}", self.gateway));
        run(command, input).await
    }

    /// `kubectl` in the management cluster.
    pub(crate) async fn manage(&self, arguments: &[&str], input: &str) -> Ended {
        let plane = self.management.as_ref().unwrap();
        kubectl_with(&self.tools, &plane.admin_kubeconfig().unwrap(), arguments, input).await
    }

    /// `kubectl` through the gateway, with the context that `moorline kubeconfig` writes.
    pub(crate) async fn through(&self, cluster: &str, arguments: &[&str]) -> Ended {
        let file = self.home.path().join("kubeconfig");
        let path = file.display().to_string();
        self.moorline(&["kubeconfig", cluster, "--kubeconfig", &path, "--set-current"]).await.ok();
        kubectl(&self.tools, &file, arguments).await
    }

    /// A control plane that nobody has tied yet. This server's administrator may do everything in it, once it is.
    pub(crate) async fn plane(&self, name: &str) -> Managed {
        let managed = Managed::start(&self.tools, name).await;
        managed.plane.grant_everything("admin").await.unwrap();
        managed
    }

    /// Waits until the cluster is connected, as the command line shows it.
    pub(crate) async fn connected(&self, cluster: &str) {
        let connected = eventually(DEADLINE, async || {
            let shown = self.moorline(&["cluster", "get", cluster, "-o", "json"]).await.ok();
            let shown: Value = serde_json::from_str(&shown).unwrap();
            (shown["status"]["connected"] == true).then_some(())
        });
        connected.await.unwrap_or_else(|late| panic!("{cluster} is not connected, {late}"));
    }
}

/// A managed cluster's control plane.
pub(crate) struct Managed {
    pub(crate) plane: ControlPlane,
    tools: Tools,
}

impl Managed {
    /// A control plane of its own.
    pub(crate) async fn start(tools: &Tools, name: &str) -> Self {
        let options = Options { name: name.into(), ..Options::default() };
        Self { plane: ControlPlane::start(tools, options).await.unwrap(), tools: tools.clone() }
    }

    /// `kubectl` as the cluster's administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Ended {
        kubectl_with(&self.tools, &self.plane.admin_kubeconfig().unwrap(), arguments, input).await
    }

    /// The pod that the agent's Deployment asks for.
    pub(crate) async fn agent(&self) -> Pod {
        let image = Image {
            entrypoint: Path::new(env!("CARGO_BIN_EXE_moorline")),
            arguments: &["agent"],
            listens: &[(9092, "MOORLINE_ADMIN_ADDR")],
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        self.plane.run_deployment("moorline", "moorline-agent", image).await.unwrap()
    }
}

/// Waits until a pod is ready, as a kubelet finds out.
pub(crate) async fn ready(pod: &Pod) {
    let ready = eventually(DEADLINE, async || pod.ready().await.unwrap().then_some(())).await;
    ready.unwrap_or_else(|late| panic!("the pod is not ready, {late}: {}", pod.log()));
}

pub(crate) async fn kubectl(tools: &Tools, kubeconfig: &Path, arguments: &[&str]) -> Ended {
    kubectl_with(tools, kubeconfig, arguments, "").await
}

pub(crate) async fn kubectl_with(tools: &Tools, kubeconfig: &Path, arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::from(tools.kubectl(Kubectl::New, kubeconfig));
    command.args(arguments);
    run(command, input).await
}

pub(crate) async fn run(mut command: Command, input: &str) -> Ended {
    use tokio::io::AsyncWriteExt as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // A program that has heard enough closes its end.
        drop(stdin.write_all(input.as_bytes()).await);
    };
    let ended = tokio::time::timeout(DEADLINE, async { tokio::join!(feed, child.wait_with_output()).1 });
    Ended::new(&ended.await.unwrap().unwrap())
}

//! What a scenario is played on: a control plane shared by all tests, a namespace of its own, and kubectls.

use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use moorline_testkit::kubernetes::{ControlPlane, Kubectl, Node, Options, PodSpec, Tools, say_skipped};
use moorline_testkit::logs::Logs;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::kube::Kube;

/// A control plane with one node.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) node: Node,
}

/// Who calls, and what the kube-apiserver must take them for.
pub(crate) struct Caller {
    pub(crate) kubeconfig: PathBuf,
    /// What comes before the paths of `--raw`: it replaces the path of a kubeconfig's server.
    pub(crate) prefix: String,
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    /// The service account that impersonates the user; `None` where nothing is in between.
    pub(crate) via: Option<String>,
}

/// One play: the cluster behind, the callers in front.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    /// One who may do everything in that cluster.
    pub(crate) kube: Kube,
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    /// The service account that impersonates them all.
    pub(crate) via: Option<String>,
    /// One who may do nothing there.
    pub(crate) powerless: Kube,
    pub(crate) powerless_user: String,
    pub(crate) namespace: String,
    /// Fails the play, at its end, when Moorline logged an error or a secret.
    _logs: Option<Logs>,
}

static CLUSTERS: [OnceCell<Option<Cluster>>; 2] = [OnceCell::const_new(), OnceCell::const_new()];

/// The cluster of that number (0 or 1), started by whoever asks first; `None` where the programs are missing.
pub(crate) async fn cluster(number: usize) -> Option<&'static Cluster> {
    CLUSTERS[number]
        .get_or_init(|| async {
            let tools = Tools::require_or_skip()?;
            let options = Options { name: format!("managed-{number}"), ..Options::default() };
            let plane = ControlPlane::start(&tools, options).await.unwrap();
            let node = plane.add_node("node-1").await.unwrap();
            Some(Cluster { plane, node })
        })
        .await
        .as_ref()
}

impl Stage {
    /// A stage with a fresh namespace, or `None` where this kubectl is missing.
    pub(crate) async fn set(
        cluster: &'static Cluster,
        version: Kubectl,
        caller: &Caller,
        powerless: &Caller,
    ) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let tools = cluster.plane.tools();
        if !tools.kubectls().contains(&version) {
            static SAID: Once = Once::new();
            SAID.call_once(|| say_skipped(&format!("there is no {version} kubectl here")));
            return None;
        }
        let namespace = format!("play-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let object = json!({ "metadata": { "name": namespace } });
        cluster.plane.api().create("/api/v1/namespaces", &object).await.unwrap();
        let kube = |caller: &Caller| Kube {
            tools: tools.clone(),
            version,
            kubeconfig: caller.kubeconfig.clone(),
            prefix: caller.prefix.clone(),
            namespace: namespace.clone(),
        };
        Some(Self {
            cluster,
            kube: kube(caller),
            user: caller.user.clone(),
            groups: caller.groups.clone(),
            via: caller.via.clone(),
            powerless: kube(powerless),
            powerless_user: powerless.user.clone(),
            namespace: namespace.clone(),
            _logs: caller.via.is_some().then(Logs::capture),
        })
    }

    /// Creates a pod, past whatever is between kubectl and the cluster.
    pub(crate) async fn pod(&self, pod: PodSpec) {
        let pod = PodSpec { namespace: self.namespace.clone(), ..pod };
        self.cluster.plane.add_pod(&self.cluster.node, &pod).await.unwrap();
    }

    /// The path of a collection of this stage's namespace.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }
}

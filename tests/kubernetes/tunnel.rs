//! The same scenarios through Moorline: real kubectl, one server, two agents, two real kube-apiservers.
//!
//! The house lives on a runtime of its own, which outlives the tests that come and go.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{ControlPlane, Credential, Kubectl, write_kubeconfig};
use moorline_testkit::logs::Logs;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::stage::{Caller, Cluster, Stage, cluster};

/// Names that the managed clusters go by.
pub(crate) const NAMES: [&str; 2] = ["east", "west"];

/// Who the agents are in their clusters: the account may impersonate, and nothing else.
pub(crate) const AGENT: &str = "system:serviceaccount:moorline:agent";

const ADMIN: (&str, &str) = ("admins-token-8b1e5a", "admin");
pub(crate) const ALICE: (&str, &str) = ("alices-token-c0ffee", "alice");
pub(crate) const POWERLESS: (&str, &str) = ("powerless-token-1d2d3d", "powerless");
pub(crate) const ALICES_GROUPS: [&str; 3] = ["developers", "on-call", "system:authenticated"];
pub(crate) const POWERLESS_GROUPS: [&str; 2] = ["developers", "system:authenticated"];
/// May reach no cluster at all.
pub(crate) const STRANGER: (&str, &str) = ("strangers-token-4e5f6a", "stranger");

/// The house: the agents live for as long as it does.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) clusters: [&'static Cluster; 2],
    _agents: [Agent; 2],
}

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static HOUSE: OnceCell<Option<House>> = OnceCell::const_new();

/// The house, built by whoever asks first; `None` where the programs are missing.
pub(crate) async fn house() -> Option<&'static House> {
    HOUSE.get_or_init(|| async { RUNTIME.spawn(build()).await.unwrap() }).await.as_ref()
}

/// The house, if somebody has asked for it.
pub(crate) fn built() -> Option<&'static House> {
    HOUSE.get()?.as_ref()
}

async fn build() -> Option<House> {
    let logs = Logs::capture();
    for (token, _user) in [ADMIN, ALICE, POWERLESS, STRANGER] {
        logs.forbid(token);
    }
    let clusters = [cluster(0).await?, cluster(1).await?];
    let directory = tempfile::tempdir().unwrap();
    write_access(directory.path());
    let server = Server::start_in(directory, |raw| raw.heartbeat_interval = Some("1s".to_owned())).await.unwrap();
    let east = agent(&server, NAMES[0], clusters[0]).await;
    let west = agent(&server, NAMES[1], clusters[1]).await;
    Some(House { server, clusters, _agents: [east, west] })
}

async fn agent(server: &Server, name: &str, cluster: &Cluster) -> Agent {
    for user in [ALICE.1, crate::certificate::CAROL] {
        cluster.plane.grant_everything(user).await.unwrap();
    }
    enroll(server, name, &cluster.plane).await
}

/// Registers a cluster and runs its agent, until requests get through.
pub(crate) async fn enroll(server: &Server, name: &str, plane: &ControlPlane) -> Agent {
    enroll_in(server, name, plane, "moorline").await
}

/// The same, with the agent's account in another namespace: several agents may serve one cluster.
pub(crate) async fn enroll_in(server: &Server, name: &str, plane: &ControlPlane, namespace: &str) -> Agent {
    let token = plane.create_agent_service_account(namespace, "agent").await.unwrap();
    let files = plane.directory().join(format!("agent-of-{namespace}"));
    std::fs::create_dir_all(&files).unwrap();
    let (token_file, ca_file) = (files.join("token"), files.join("ca.crt"));
    moorline_process::write_private(&token_file, token.as_bytes()).unwrap();
    std::fs::write(&ca_file, plane.ca_pem()).unwrap();
    let created = server.create(name).await.unwrap();
    let agent = Agent::start(&created, server.tunnel, &plane.url(), |raw| {
        raw.kube_token_file = Some(token_file);
        raw.kube_ca_file = Some(ca_file);
    })
    .unwrap();
    server.connected(name).await.unwrap();
    agent
}

/// Who everybody is, and who may reach which cluster.
fn write_access(directory: &Path) {
    let line = |(token, user): (&str, &str), groups: &str| format!("{token},{user},{user}-uid,\"{groups}\"\n");
    let tokens = [
        line(ADMIN, "moorline:admins"),
        line(ALICE, "developers,on-call"),
        line(POWERLESS, "developers"),
        line(STRANGER, "visitors"),
    ];
    let role = |name: &str, verbs: &str, group: &str| {
        format!(
            r#"apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules: [{{apiGroups: [moorline.io], resources: [managedclusters], verbs: ["{verbs}"]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "{group}"}}]
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
"#
        )
    };
    let policy = [role("administer", "*", "moorline:admins"), role("reach", "get", "developers")].join("---\n");
    moorline_process::write_private(&directory.join("tokens.csv"), tokens.concat().as_bytes()).unwrap();
    moorline_process::write_private(&directory.join("policy.yaml"), policy.as_bytes()).unwrap();
}

impl House {
    /// A kubeconfig that plain kubectl reaches a cluster of the house with.
    pub(crate) fn kubeconfig(&self, name: &str, (token, user): (&str, &str)) -> PathBuf {
        self.kubeconfig_with(name, user, &Credential::Token(token))
    }

    /// The same with any credential.
    pub(crate) fn kubeconfig_with(&self, name: &str, user: &str, credential: &Credential<'_>) -> PathBuf {
        self.kubeconfig_at(&format!("https://{}/clusters/{name}", self.server.gateway), user, credential)
    }

    /// The same for any way to the gateway.
    pub(crate) fn kubeconfig_at(&self, url: &str, user: &str, credential: &Credential<'_>) -> PathBuf {
        // One file for each play: none is written while another play reads it.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.server.directory().join(format!("{user}-{number}.kubeconfig"));
        let ca = std::fs::read_to_string(self.server.directory().join("gateway-ca.crt")).unwrap();
        write_kubeconfig(&path, url, &ca, credential).unwrap();
        path
    }

    fn caller(&self, name: &str, who: (&str, &str), groups: &[&str]) -> Caller {
        caller(self.kubeconfig(name, who), &format!("/clusters/{name}"), who.1, groups)
    }
}

/// One whom the agents impersonate.
pub(crate) fn caller(kubeconfig: PathBuf, prefix: &str, user: &str, groups: &[&str]) -> Caller {
    Caller {
        kubeconfig,
        prefix: prefix.to_owned(),
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        via: Some(AGENT.to_owned()),
    }
}

/// The machine's kubectl plays in the second cluster, the others in the first.
async fn stage(version: Kubectl) -> Option<Stage> {
    let house = house().await?;
    let number = usize::from(version == Kubectl::Machine);
    let alice = house.caller(NAMES[number], ALICE, &ALICES_GROUPS);
    let powerless = house.caller(NAMES[number], POWERLESS, &POWERLESS_GROUPS);
    Stage::set(house.clusters[number], version, &alice, &powerless).await
}

crate::scenarios::play_all!(crate::tunnel::stage);

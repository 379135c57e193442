//! The walk of Calico Enterprise's guide to multi-cluster management, with what stands here in the place of each of its
//! steps: a management side with a NodePort Service, a cluster that is added, its manifest, a user with rights on both
//! sides, the cluster seen and used, and the way back.
//!
//! Source of the steps: "Create a management cluster", "Create a managed cluster" and "Change a cluster's type" in
//! Calico Enterprise's documentation.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use moorline_testkit::{
    eventually,
    kubernetes::{Credential, Image, Pod, free_port},
};
use tokio::process::Command;

use crate::{
    DEADLINE,
    fleet::{DEPLOY, Ended, Managed, kubectl, possible, ready, run},
};

const CLUSTER: &str = "
apiVersion: moorline.io/v1alpha1
kind: ManagedCluster
metadata: {name: my-managed-cluster}
";

/// Who may reach the one cluster, and in it look at namespaces.
const MAY_REACH: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: mcm-user}
rules:
- {apiGroups: [moorline.io], resources: [managedclusters], resourceNames: [my-managed-cluster], verbs: [get]}
";
const MAY_LOOK: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: mcm-user}
rules:
- {apiGroups: [''], resources: [namespaces], verbs: [get, list, watch]}
";

/// The command line, as the user of the first start's token.
struct Administrator<'a> {
    state: &'a Path,
    gateway: SocketAddr,
}

impl Administrator<'_> {
    async fn moorline(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
        command.args(arguments).env_clear().env("HOME", self.state);
        command.env("MOORLINE_STATE_DIR", self.state).env("MOORLINE_SERVER", format!("https://{}", self.gateway));
        run(command, "").await
    }
}

/// Applies the management side as its user would, and does what a kubelet would.
async fn server(management: &Managed, volume: &Path) -> (Pod, SocketAddr) {
    let (tunnel, gateway) = (free_port().unwrap(), free_port().unwrap());
    let overlay = format!("{DEPLOY}/kustomize/server/overlays/nodeport");
    let manifest = management.kubectl(&["kustomize", &overlay], "").await.ok();
    // The two words that each installation must say for itself.
    let manifest = manifest.replace("node.example.org:30449", &format!("127.0.0.1:{tunnel}"));
    let manifest = manifest.replace("node.example.org", "127.0.0.1");
    management.kubectl(&["apply", "-f", "-"], &manifest).await.ok();
    let service = ["get", "service", "moorline-tunnel", "-n", "moorline", "-o", "jsonpath={.spec.ports[0].nodePort}"];
    assert_eq!(management.kubectl(&service, "").await.ok(), "30449");
    let image = Image {
        entrypoint: Path::new(env!("CARGO_BIN_EXE_moorline")),
        arguments: &["server"],
        listens: &[
            (9449, "MOORLINE_TUNNEL_LISTEN"),
            (9443, "MOORLINE_GATEWAY_LISTEN"),
            (9091, "MOORLINE_ADMIN_LISTEN"),
        ],
        ports: BTreeMap::from([(9449, tunnel), (9443, gateway)]),
        claims: BTreeMap::from([("moorline-server-state".to_owned(), volume.to_owned())]),
    };
    let pod = management.plane.run_deployment("moorline", "moorline-server", image).await.unwrap();
    ready(&pod).await;
    (pod, SocketAddr::from(([127, 0, 0, 1], gateway)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_of_the_original_guide() {
    let Some(tools) = possible() else { return };
    let (management, managed) = tokio::join!(Managed::start(&tools, "hub"), Managed::start(&tools, "leaf"));

    // Create the management side, with a Service of type NodePort for those who dial in.
    let volume = tempfile::tempdir().unwrap();
    let (server, gateway) = server(&management, volume.path()).await;
    let state = volume.path().join("state");
    let administrator = Administrator { state: &state, gateway };

    // Add the cluster, download its manifest, apply it.
    management.kubectl(&["apply", "-f", "-"], CLUSTER).await.ok();
    let manifest = eventually(DEADLINE, async || {
        let ended = administrator.moorline(&["cluster", "manifest", "my-managed-cluster"]).await;
        (ended.code == Some(0)).then_some(ended.stdout)
    });
    let manifest = manifest.await.unwrap();
    managed.kubectl(&["apply", "-f", "-"], &manifest).await.ok();
    let agent = managed.agent().await;
    ready(&agent).await;
    management.kubectl(&["wait", "--for=condition=ManagedClusterConnected", "mcl/my-managed-cluster"], "").await.ok();

    // Give a user rights on both sides.
    management.kubectl(&["create", "serviceaccount", "mcm-user"], "").await.ok();
    management.kubectl(&["apply", "-f", "-"], MAY_REACH).await.ok();
    managed.kubectl(&["apply", "-f", "-"], MAY_LOOK).await.ok();
    let bind = ["create", "clusterrolebinding", "mcm-user", "--clusterrole=mcm-user"];
    let user = "--serviceaccount=default:mcm-user";
    for side in [&management, &managed] {
        side.kubectl(&[&bind[..], &[user]].concat(), "").await.ok();
    }
    let token = management.kubectl(&["create", "token", "mcm-user"], "").await.ok();

    // See the cluster, and use it.
    let seen = management.kubectl(&["get", "managedclusters"], "").await.ok();
    let line = seen.lines().find(|line| line.starts_with("my-managed-cluster ")).unwrap();
    assert!(line.contains("True"), "{seen}");
    let kubeconfig = volume.path().join("mcm-user");
    let authority = std::fs::read_to_string(state.join("gateway-ca.crt")).unwrap();
    let url = format!("https://{gateway}/clusters/my-managed-cluster");
    let credential = Credential::Token(token.trim());
    moorline_testkit::kubernetes::write_kubeconfig(&kubeconfig, &url, &authority, &credential).unwrap();
    let through = async |arguments: &[&str]| kubectl(&tools, &kubeconfig, arguments).await;
    let who = through(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await.ok();
    assert_eq!(who, "system:serviceaccount:default:mcm-user");
    let listed = eventually(DEADLINE, async || {
        let ended = through(&["get", "namespaces", "-o", "name"]).await;
        (ended.code == Some(0)).then_some(ended.stdout)
    });
    assert!(listed.await.unwrap().contains("namespace/moorline\n"));
    let secrets = through(&["get", "secrets", "-A"]).await;
    assert!(secrets.stderr.contains("cannot list resource \"secrets\""), "{}", secrets.stderr);

    // The way back: the cluster is removed here, and its agent learns why before it is removed there.
    management.kubectl(&["delete", "managedcluster", "my-managed-cluster"], "").await.ok();
    let gone = eventually(DEADLINE, async || {
        let ended = through(&["get", "namespaces"]).await;
        ended.stderr.contains("my-managed-cluster").then_some(ended.stderr)
    });
    gone.await.unwrap();
    let reason = r#"jsonpath={.status.conditions[?(@.type=="Available")].reason}"#;
    let told = eventually(DEADLINE, async || {
        let shown = managed.kubectl(&["get", "managementclusterconnection", "default", "-o", reason], "").await.ok();
        ["ClusterDeleted", "CertificateUnknown"].contains(&shown.as_str()).then_some(())
    });
    told.await.unwrap_or_else(|late| panic!("{late}: {}", agent.log()));
    drop(agent);
    managed.kubectl(&["delete", "--wait=false", "-f", "-"], &manifest).await.ok();
    let left = managed.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"], "").await.ok();
    assert!(!left.contains("moorline"), "{left}");
    assert!(!server.log().contains(token.trim()) && !server.log().contains("PRIVATE KEY"));
}

//! A cluster is tied by what its operator does: an object in the management cluster or a command, a manifest or a token,
//! and the agent runs as the manifest says.

use std::time::{Duration, Instant};

use moorline_testkit::eventually;

use crate::{
    DEADLINE,
    fleet::{Fleet, Managed, ready},
    program::{Program, moorline},
};

/// From the making of a pod to a cluster that is connected; a quarter of a second where nothing else runs. A slow machine
/// on which the rings take turns needs far longer to start a program than the five seconds that are promised.
const SOON: Duration = Duration::from_secs(30);

const EAST_AND_WEST: &str = "\
apiVersion: moorline.io/v1alpha1
kind: ManagedCluster
metadata: {name: east, labels: {zone: eu}}
---
apiVersion: moorline.io/v1alpha1
kind: ManagedCluster
metadata: {name: west}
spec: {}
";

/// Applies the manifest, starts what it asks for, and uses the cluster.
async fn tied(fleet: &Fleet, managed: &Managed, cluster: &str, manifest: &str) {
    managed.kubectl(&["apply", "-f", "-"], manifest).await.ok();
    let applied = Instant::now();
    let agent = managed.agent().await;
    fleet.connected(cluster).await;
    let took = applied.elapsed();
    assert!(took < SOON, "{cluster} was connected {took:?} after its pod was made");
    ready(&agent).await;
    let namespaces = fleet.through(cluster, &["get", "namespaces", "-o", "name"]).await.ok();
    assert!(namespaces.contains("namespace/moorline\n"), "{namespaces}");
    // Again, as GitOps does.
    let again = managed.kubectl(&["apply", "-f", "-"], manifest).await.ok();
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    let condition = ["get", "managementclusterconnection", "default", "-o"];
    let available = r#"jsonpath={.status.conditions[?(@.type=="Available")].status}"#;
    let shown = eventually(DEADLINE, async || {
        let shown = managed.kubectl(&[&condition[..], &[available]].concat(), "").await;
        (shown.code == Some(0) && shown.stdout == "True").then_some(())
    });
    shown.await.unwrap_or_else(|late| panic!("{late}: {}", agent.log()));
    for secret in manifest.lines().filter_map(|line| line.trim().strip_prefix("managed-cluster.key: ")) {
        assert!(!agent.log().contains(secret) && fleet.server.said(&[secret]).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_in_the_management_cluster_is_enough_to_tie_a_cluster() {
    let Some(fleet) = Fleet::kubernetes().await else { return };
    let (east, west) = tokio::join!(fleet.plane("east"), fleet.plane("west"));
    fleet.manage(&["apply", "-f", "-"], EAST_AND_WEST).await.ok();
    for (managed, name) in [(&east, "east"), (&west, "west")] {
        let manifest = fleet.moorline(&["cluster", "manifest", name]).await.ok();
        tied(&fleet, managed, name, &manifest).await;
        let twice = fleet.moorline(&["cluster", "manifest", name]).await;
        assert_eq!(twice.code, Some(1), "{}", twice.stdout);
        assert!(twice.stdout.is_empty() && twice.stderr.contains("token create"), "{}", twice.stderr);
    }
    let listed = fleet.manage(&["get", "mcl"], "").await.ok();
    assert!(listed.starts_with("NAME"), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_with_a_token_ties_a_cluster() {
    let Some(fleet) = Fleet::embedded().await else { return };
    let east = fleet.plane("east").await;
    let manifest = fleet.moorline(&["cluster", "add", "east", "--join", "-o", "yaml"]).await.ok();
    tied(&fleet, &east, "east", &manifest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ties_a_cluster() {
    let Some(fleet) = Fleet::embedded().await else { return };
    let east = fleet.plane("east").await;
    let token = fleet.moorline(&["cluster", "add", "east", "--join"]).await.ok();
    let files = tempfile::tempdir().unwrap();
    let certificates = files.path().join("certs").display().to_string();
    let join = ["agent", "join", "-", "--cert-dir", &certificates];
    fleet.moorline_with(&join, &token).await.ok();
    let twice = ["agent", "join", "-", "--cert-dir", &files.path().join("others").display().to_string()];
    let twice = fleet.moorline_with(&twice, &token).await;
    assert_eq!(twice.code, Some(1));
    assert!(twice.stderr.contains("moorline token create east"), "{}", twice.stderr);

    let account = east.plane.create_agent_service_account("moorline", "agent").await.unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        moorline_process::write_private(&path, text.as_bytes()).unwrap();
        path.display().to_string()
    };
    let (account, authority) = (file("token", &account), file("ca.crt", &east.plane.ca_pem()));
    let upstream = ["--kube-apiserver", &east.plane.url(), "--kube-ca-file", &authority, "--kube-token-file", &account];
    let own = ["agent", "--cert-dir", &certificates, "--admin-addr", "127.0.0.1:0"];
    let agent = Program::start(moorline(&[&own[..], &upstream].concat()));
    fleet.connected("east").await;
    let namespaces = fleet.through("east", &["get", "namespaces", "-o", "name"]).await.ok();
    assert!(namespaces.contains("namespace/default\n"), "{namespaces}");
    // What follows the first two words of the token's text.
    let secret = token.trim().rsplit('.').next().unwrap();
    assert!(agent.said(&[secret]).is_empty() && fleet.server.said(&[secret]).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_and_its_manifest_tie_a_cluster() {
    let Some(fleet) = Fleet::embedded().await else { return };
    let east = fleet.plane("east").await;
    let manifest = fleet.moorline(&["cluster", "add", "east"]).await.ok();
    tied(&fleet, &east, "east", &manifest).await;
}

//! Objects: get, list in chunks, watch, apply, patch, delete, and discovery.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::stage::{Cluster, Stage};

/// How many objects a long list has.
const MANY: usize = 5_000;

fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name },
        "data": { "key": value },
    })
}

pub(crate) async fn get(stage: &Stage) {
    let kube = &stage.kube;
    let maps = stage.path("configmaps");
    stage.cluster.plane.api().create(&maps, &config_map("one", "1")).await.unwrap();
    assert_eq!(kube.json(&["get", "configmap", "one"]).await["data"]["key"], "1");
    assert_eq!(kube.ok(&["get", "configmaps", "-o", "name"]).await, "configmap/one\n");
    assert!(kube.ok(&["get", "namespaces"]).await.contains(&stage.namespace));
    assert!(kube.ok(&["describe", "configmap", "one"]).await.contains("one"));
    let absent = kube.run(&["get", "configmap", "two"]).await;
    assert_eq!(absent.code, Some(1));
    assert!(absent.stderr.contains("(NotFound): configmaps \"two\" not found"), "{absent:?}");
}

/// The namespace `many` of each cluster is filled once, by whoever needs it first.
pub(crate) async fn list_in_chunks(stage: &Stage) {
    static FILLED: [OnceCell<()>; 2] = [OnceCell::const_new(), OnceCell::const_new()];
    let number = usize::from(stage.cluster.plane.directory().to_string_lossy().contains("managed-1"));
    FILLED[number].get_or_init(|| fill(stage.cluster)).await;
    let mut kube = stage.kube.clone();
    "many".clone_into(&mut kube.namespace);
    let names = kube.ok(&["get", "configmaps", "--chunk-size=250", "-o", "name"]).await;
    assert_eq!(names.lines().count(), MANY);
    let whole = kube.json(&["get", "configmaps", "--chunk-size=0"]).await;
    assert_eq!(whole["items"].as_array().unwrap().len(), MANY);
}

async fn fill(cluster: &'static Cluster) {
    let session = Arc::new(cluster.plane.api().open().await.unwrap());
    let namespace = json!({ "metadata": { "name": "many" } });
    session.create("/api/v1/namespaces", &namespace).await.unwrap();
    stream::iter(0..MANY)
        .for_each_concurrent(64, |number| {
            let session = Arc::clone(&session);
            async move {
                let map = config_map(&format!("map-{number:04}"), &"x".repeat(200));
                session.create("/api/v1/namespaces/many/configmaps", &map).await.unwrap();
            }
        })
        .await;
}

pub(crate) async fn watch(stage: &Stage) {
    let api = stage.cluster.plane.api().open().await.unwrap();
    let maps = stage.path("configmaps");
    api.create(&maps, &config_map("first", "1")).await.unwrap();
    let mut kubectl = stage.kube.start(&["get", "configmaps", "-w", "--output-watch-events", "--no-headers"]);
    assert!(kubectl.line_with("first").await.starts_with("ADDED"));
    api.create(&maps, &config_map("second", "1")).await.unwrap();
    assert!(kubectl.line_with("second").await.starts_with("ADDED"));
    let change = json!({ "data": { "more": "2" } });
    let second = format!("{maps}/second");
    api.call(http::Method::PATCH, &second, Some(&change)).await.unwrap().ok().unwrap();
    assert!(kubectl.line_with("second").await.starts_with("MODIFIED"));
    api.call(http::Method::DELETE, &second, None).await.unwrap().ok().unwrap();
    assert!(kubectl.line_with("second").await.starts_with("DELETED"));
}

pub(crate) async fn apply(stage: &Stage) {
    let kube = &stage.kube;
    let apply = ["apply", "-f", "-"];
    let text = |value: &str| config_map("applied", value).to_string();
    assert_eq!(kube.ok_with(&apply, text("1").as_bytes()).await, "configmap/applied created\n");
    assert_eq!(kube.ok_with(&apply, text("1").as_bytes()).await, "configmap/applied unchanged\n");
    let changed = kube.run_with(&["diff", "-f", "-"], text("2").as_bytes()).await;
    assert_eq!(changed.code, Some(1), "{changed:?}");
    assert!(changed.text().contains("+  key: \"2\""), "{changed:?}");
    assert_eq!(kube.ok_with(&apply, text("2").as_bytes()).await, "configmap/applied configured\n");
    assert_eq!(kube.json(&["get", "configmap", "applied"]).await["data"]["key"], "2");
}

pub(crate) async fn apply_server_side(stage: &Stage) {
    let kube = &stage.kube;
    let text = |value: &str| config_map("shared", value).to_string();
    let by =
        |manager: &'static str, more: &[&'static str]| [&["apply", "--server-side", "-f", "-", manager], more].concat();
    let first = by("--field-manager=first", &[]);
    assert!(kube.ok_with(&first, text("1").as_bytes()).await.contains("serverside-applied"));
    let second = by("--field-manager=second", &[]);
    let refused = kube.run_with(&second, text("2").as_bytes()).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("conflict with \"first\": .data.key"), "{refused:?}");
    let forced = by("--field-manager=second", &["--force-conflicts"]);
    kube.ok_with(&forced, text("2").as_bytes()).await;
    let shown = kube.json(&["get", "configmap", "shared", "--show-managed-fields"]).await;
    assert_eq!(shown["data"]["key"], "2");
    assert_eq!(shown["metadata"]["managedFields"][0]["operation"], "Apply");
}

pub(crate) async fn patch(stage: &Stage) {
    let kube = &stage.kube;
    let maps = stage.path("configmaps");
    stage.cluster.plane.api().create(&maps, &config_map("patched", "1")).await.unwrap();
    for (kind, patch) in [
        ("merge", r#"{"data":{"merge":"yes"}}"#),
        ("strategic", r#"{"data":{"strategic":"yes"}}"#),
        ("json", r#"[{"op":"add","path":"/data/json","value":"yes"}]"#),
    ] {
        let kind_flag = format!("--type={kind}");
        kube.ok(&["patch", "configmap", "patched", &kind_flag, "-p", patch]).await;
        assert_eq!(kube.json(&["get", "configmap", "patched"]).await["data"][kind], "yes");
    }
    kube.ok(&["label", "configmap", "patched", "colour=blue"]).await;
    let blue = kube.ok(&["get", "configmaps", "-l", "colour=blue", "-o", "name"]).await;
    assert_eq!(blue, "configmap/patched\n");
}

pub(crate) async fn delete(stage: &Stage) {
    let kube = &stage.kube;
    let maps = stage.path("configmaps");
    let api = stage.cluster.plane.api();
    for name in ["a", "b", "c"] {
        api.create(&maps, &config_map(name, "1")).await.unwrap();
    }
    let said = kube.ok(&["delete", "configmap", "a"]).await;
    assert!(said.starts_with("configmap \"a\" deleted"), "{said}");
    kube.ok(&["delete", "configmaps", "--all"]).await;
    assert_eq!(kube.ok(&["get", "configmaps", "-o", "name"]).await, "");
    let again = kube.run(&["delete", "configmap", "a"]).await;
    assert!(again.stderr.contains("NotFound"), "{again:?}");
    // A pod is gone only when its kubelet has confirmed; kubectl waits for that by a watch.
    stage.pod(moorline_testkit::kubernetes::PodSpec::idle("short")).await;
    kube.ok(&["delete", "pod", "short", "--wait"]).await;
    assert_eq!(kube.ok(&["get", "pods", "-o", "name"]).await, "");
}

pub(crate) async fn discover(stage: &Stage) {
    let kube = &stage.kube;
    let resources = kube.ok(&["api-resources", "-o", "name"]).await;
    for wanted in ["configmaps", "pods", "deployments.apps", "clusterroles.rbac.authorization.k8s.io"] {
        assert!(resources.lines().any(|line| line == wanted), "{wanted} in {resources}");
    }
    assert!(kube.ok(&["api-versions"]).await.contains("apps/v1\n"));
    let explained = kube.ok(&["explain", "pods.spec.containers"]).await;
    assert!(explained.contains("imagePullPolicy"), "{explained}");
    assert!(kube.ok(&["version"]).await.contains("v1.36.3"));
    // Before 1.33 or so, `--raw` replaced the path of the kubeconfig's server instead of following it.
    let followed = kube.run(&["get", "--raw", "/version"]).await;
    let version = if followed.code == Some(0) {
        followed.text()
    } else {
        kube.ok(&["get", "--raw", &format!("{}/version", kube.prefix)]).await
    };
    assert!(version.contains("v1.36.3"), "{version}");
}

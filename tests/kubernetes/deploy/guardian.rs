//! What a cluster applies whose agent is Calico's Guardian: a kube-apiserver that knows what Calico's operator defines takes
//! all of it, as often as it is applied, and it gives the right to act as others and no more.

use std::process::Stdio;

use http::Method;
use moorline_manifest::{
    agent::{Address, Certificates},
    guardian::{Credential, Manifest, SECRET, Written},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{DEADLINE, Stage, Tools};

/// Of the definition that Calico's operator installs no more than what we use: it is held against the public documentation
/// of that kind only.
const OPERATOR: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: tigera-operator}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: managementclusterconnections.operator.tigera.io}
spec:
  group: operator.tigera.io
  scope: Cluster
  names:
    kind: ManagementClusterConnection
    listKind: ManagementClusterConnectionList
    plural: managementclusterconnections
    singular: managementclusterconnection
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            properties:
              managementClusterAddr: {type: string}
              tls:
                type: object
                properties: {ca: {type: string, enum: [Tigera, Public]}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

const WHOLE: Credential<'_> =
    Credential::Whole(Certificates { authorities: "CA\n", certificate: "CERTIFICATE\n", key: "KEY\n" });

fn manifest(written: Written, credential: Credential<'_>) -> String {
    let (cluster, address) = ("west".parse().unwrap(), Address::parse("hub.example.com:9449", 9449).unwrap());
    let install = written.resolve().unwrap();
    Manifest { install: &install, cluster: &cluster, address: &address, credential }.stream().unwrap()
}

/// Everybody, and few of them.
fn both() -> [Written; 2] {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let allow_users = owned(&["ann", "system:serviceaccount:shop:till"]);
    [Written::default(), Written { operator_namespace: None, allow_users, allow_groups: owned(&["dev"]) }]
}

async fn stage(tools: &Tools, name: &str) -> Stage {
    let stage = Stage::set(tools, name).await;
    stage.apply(OPERATOR, &[]).await;
    stage.kube.ok(&["wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"]).await;
    stage
}

/// Whether Guardian's account may act as this: `GROUP/RESOURCE/NAME`, or do anything else.
async fn may(stage: &Stage, verb: &str, what: &str, namespace: &str) -> bool {
    let [group, resource, name] = what.splitn(3, '/').collect::<Vec<_>>().try_into().unwrap();
    let (resource, subresource) = resource.split_once(':').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:calico-system:guardian",
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
                "namespace": namespace,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = stage.plane.api().call(Method::POST, path, Some(&review)).await.unwrap();
    answer.ok().unwrap()["status"]["allowed"] == json!(true)
}

#[tokio::test]
async fn a_cluster_with_calicos_operator_takes_it_again_and_again() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let stage = stage(&tools, "deploy-guardian").await;
    for written in both() {
        let yaml = manifest(written, WHOLE);
        let documents = super::documents(&yaml).len();
        assert_eq!(stage.apply(&yaml, &["--dry-run=server"]).await.lines().count(), documents);
        stage.apply(&yaml, &[]).await;
        let again = stage.apply(&yaml, &[]).await;
        assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    }
    let connection = stage.kube.json(&["get", "managementclusterconnection.operator.tigera.io", "default"]).await;
    assert_eq!(connection["spec"]["managementClusterAddr"], "hub.example.com:9449");
}

#[tokio::test]
async fn guardian_may_act_as_who_is_named_and_nothing_else() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let stage = stage(&tools, "deploy-guardian-rights").await;
    let [everybody, few] = both();
    let acts = async |what: &str| may(&stage, "impersonate", what, "").await;
    assert!(!acts("/users/ann").await, "before it is applied");
    stage.apply(&manifest(everybody, WHOLE), &[]).await;
    let key = "authentication.k8s.io/userextras:scopes/red";
    for what in ["/users/ann", "/groups/system:masters", "/serviceaccounts/till", "authentication.k8s.io/uids/7", key] {
        assert!(acts(what).await, "{what}");
    }
    assert!(!may(&stage, "get", "/secrets/any", "shop").await);

    stage.apply(&manifest(few, WHOLE), &[]).await;
    for (what, allowed) in [
        ("/users/ann", true),
        ("/users/ben", false),
        ("/groups/dev", true),
        ("/groups/system:authenticated", true),
        ("/groups/system:masters", false),
        ("/serviceaccounts/till", false),
    ] {
        assert_eq!(acts(what).await, allowed, "{what}");
    }
    assert!(may(&stage, "impersonate", "/serviceaccounts/till", "shop").await);
}

/// The command that the command line prints puts certificate and key beside the authorities, and neither is taken away by
/// the other when it is applied again.
#[tokio::test]
async fn an_owner_adds_the_certificate_that_only_they_have() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let stage = stage(&tools, "deploy-guardian-owner").await;
    let yaml = manifest(Written::default(), Credential::Authorities("CA\n"));
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let completion = Written::default().resolve().unwrap().completion();
    let (make, apply) = completion.split_once(" | ").unwrap();
    for (number, text) in ["one", "two"].into_iter().enumerate() {
        stage.apply(&yaml, &[]).await;
        put("CERTIFICATE", text);
        put("KEY", text);
        let secret = kubectl(&stage, dir.path(), make, "").await;
        kubectl(&stage, dir.path(), apply, &secret).await;
        let again = stage.apply(&yaml, &[]).await;
        assert!(number == 0 || again.contains("secret/tigera-managed-cluster-connection unchanged"), "{again}");
        let secret = stage.kube.json(&["get", "secret", SECRET, "--namespace=tigera-operator"]).await;
        let data = secret["data"].as_object().unwrap();
        assert_eq!((data.len(), &data["management-cluster.crt"]), (3, &Value::from("Q0EK")));
        assert_eq!(data["managed-cluster.key"], data["managed-cluster.crt"]);
        assert_eq!(data["managed-cluster.key"], ["b25l", "dHdv"][number]);
    }
}

/// Runs what a person would type after `kubectl`, in a directory, with `input` on stdin.
async fn kubectl(stage: &Stage, dir: &std::path::Path, typed: &str, input: &str) -> String {
    let mut command = Command::from(stage.kube.tools.kubectl(stage.kube.version, &stage.kube.kubeconfig));
    command.args(typed.split_whitespace().skip(1)).current_dir(dir).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("kubectl hangs").unwrap();
    assert!(ended.status.success(), "{typed}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

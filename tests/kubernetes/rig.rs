//! The rig itself: control planes apart, agents that may only impersonate, restarts, and nothing left behind.

use http::{Method, StatusCode};
use moorline_testkit::kubernetes::{ControlPlane, Kubectl, Options, Tools};
use serde_json::json;
use tokio::net::TcpStream;

use crate::kube::Kube;
use crate::stage::cluster;

#[tokio::test]
async fn two_clusters_know_nothing_of_each_other() {
    let (Some(one), Some(two)) = tokio::join!(cluster(0), cluster(1)) else { return };
    let object = json!({ "metadata": { "name": "only-here" } });
    one.plane.api().create("/api/v1/namespaces", &object).await.unwrap();
    one.plane.api().get("/api/v1/namespaces/only-here").await.unwrap();
    let there = two.plane.api().call(Method::GET, "/api/v1/namespaces/only-here", None).await.unwrap();
    assert_eq!(there.status, StatusCode::NOT_FOUND);
    let stranger = two.plane.api().with_token(one.plane.admin_token());
    let refused = stranger.call(Method::GET, "/api/v1/namespaces", None).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_agent_may_impersonate_and_nothing_else() {
    let Some(cluster) = cluster(1).await else { return };
    let plane = &cluster.plane;
    let token = plane.create_agent_service_account("agents", "agent").await.unwrap();
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }]);
    plane.grant("rosa", &rules).await.unwrap();

    let agent = plane.api().with_token(&token);
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let myself = agent.call(Method::POST, path, Some(&review)).await.unwrap().ok().unwrap();
    assert_eq!(myself["status"]["userInfo"]["username"], "system:serviceaccount:agents:agent");
    let pods = agent.call(Method::GET, "/api/v1/pods", None).await.unwrap();
    assert_eq!(pods.status, StatusCode::FORBIDDEN, "{pods:?}");

    let credential = moorline_testkit::kubernetes::Credential::Token(&token);
    let kube = Kube {
        tools: plane.tools().clone(),
        version: Kubectl::New,
        kubeconfig: plane.kubeconfig("agent", &credential).unwrap(),
        prefix: String::new(),
        namespace: "default".into(),
    };
    let as_rosa = ["--as=rosa", "--as-group=readers", "--as-uid=42"];
    kube.ok(&[&["get", "pods"], &as_rosa[..]].concat()).await;
    let whoami = kube.json(&[&["auth", "whoami"], &as_rosa[..]].concat()).await;
    let info = &whoami["status"]["userInfo"];
    assert_eq!((&info["username"], &info["uid"]), (&json!("rosa"), &json!("42")));
    assert_eq!(info["groups"], json!(["readers", "system:authenticated"]));
    let secrets = kube.run(&["get", "secrets", "--as=rosa"]).await;
    assert!(secrets.stderr.contains("User \"rosa\" cannot list"), "{secrets:?}");

    let events = plane.audit_events("rosa").unwrap();
    let impersonated = events.iter().find(|event| event["impersonatedUser"]["username"] == "rosa");
    assert_eq!(impersonated.unwrap()["user"]["username"], "system:serviceaccount:agents:agent");
}

#[tokio::test]
async fn restarts_and_leaves_nothing_behind() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let plane = ControlPlane::start(&tools, Options { name: "brief".into(), ..Options::default() }).await.unwrap();
    let object = json!({ "metadata": { "name": "kept" } });
    plane.api().create("/api/v1/namespaces", &object).await.unwrap();
    plane.stop_api_server();
    assert!(TcpStream::connect(plane.address()).await.is_err());
    plane.start_api_server().await.unwrap();
    plane.api().get("/api/v1/namespaces/kept").await.unwrap();

    let (address, directory) = (plane.address(), plane.directory().to_owned());
    drop(plane);
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!directory.exists());
}

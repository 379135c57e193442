//! The management cluster's kube-apiserver goes and comes back, and so does the server.

use http::{Method, StatusCode};
use moorline_testkit::client::full;
use moorline_testkit::house::{Agent, plain_get};

use super::*;

#[tokio::test]
async fn enrolled_clusters_go_on_while_the_kube_apiserver_is_away() {
    let Some(management) = Management::start("outage").await else { return };
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = management.server().await;
    let _agent = server.agent("east", &upstream.url()).await.unwrap();
    management.becomes("east", "True").await;
    assert_eq!(management.object("east").await["status"]["fingerprints"].as_array().unwrap().len(), 1);

    management.plane.stop_api_server();
    let client = server.admin_client().unwrap();
    assert_eq!(client.get("/clusters/east/version").await.unwrap().code, StatusCode::OK);
    assert_eq!(client.get("/v1/clusters/east").await.unwrap().code, StatusCode::OK);
    let create = client.request_with(Method::POST, "/v1/clusters", full(r#"{"name":"west"}"#));
    let answer = client.ask(create).await.unwrap();
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    let delete = client.ask(client.request(Method::DELETE, "/v1/clusters/east")).await.unwrap();
    assert_eq!(delete.code, StatusCode::SERVICE_UNAVAILABLE, "{}", delete.body);
    assert_eq!(client.get("/clusters/east/version").await.unwrap().code, StatusCode::OK, "it was not deleted");

    management.plane.start_api_server().await.unwrap();
    management.apply(&object("north", &json!({}))).await;
    until_known(&server, "north", true).await;
    server.create("west").await.unwrap();
    assert_eq!(server.cluster("east").await.unwrap().status.sessions.len(), 1, "its session went on");
    let answer = client.ask(client.request_with(Method::POST, "/v1/clusters", full(r#"{"name":"west"}"#)));
    assert_eq!(answer.await.unwrap().code, StatusCode::CONFLICT);
}

#[tokio::test]
async fn f39_a_server_that_starts_anew_knows_what_happened_meanwhile() {
    let Some(management) = Management::start("restart").await else { return };
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = management.server().await;
    let [kept, reborn] = [server.create("kept").await.unwrap(), server.create("reborn").await.unwrap()];
    let (_outcome, directory) = server.ended().await.unwrap();
    // F39, while nobody looks.
    management.kubectl.ok(&["delete", "mcl/reborn"]).await;
    management.apply(&object("reborn", &json!({}))).await;
    management.apply(&object("new", &json!({}))).await;

    management.plane.stop_api_server();
    let server = management.server_in(directory).await;
    let ready = async || plain_get(server.admin, "/readyz").await.unwrap();
    assert!(ready().await.contains("not known yet"), "{}", ready().await);
    management.plane.start_api_server().await.unwrap();
    eventually(DEADLINE, async || ready().await.starts_with("HTTP/1.1 200").then_some(())).await.unwrap();

    let _agent = Agent::start(&kept, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("kept").await.unwrap();
    management.becomes("kept", "True").await;
    assert!(known(&server, "new").await.is_some());
    assert_ne!(
        known(&server, "reborn").await.unwrap()["metadata"]["uid"],
        serde_json::to_value(reborn.cluster.metadata.uid).unwrap()
    );
    let stranger = Agent::start(&reborn, server.tunnel, &upstream.url(), |_| {}).unwrap();
    let refused = async || (server.metric("moorline_tunnel_refused_total", &[]).await.unwrap() > 0.0).then_some(());
    eventually(DEADLINE, refused).await.unwrap();
    drop(stranger);
    what_kubectl_made_is_enrolled(&management, &server, &upstream).await;
}

/// As any other cluster: once, and without anything secret in its object.
async fn what_kubectl_made_is_enrolled(management: &Management, server: &Server, upstream: &Upstream) {
    let client = server.admin_client().unwrap();
    let post = async |path: &str, body: &'static str| {
        client.ask(client.request_with(Method::POST, path, full(body))).await.unwrap()
    };
    let answer = post("/v1/clusters/new/token", "{}").await;
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    let shown = management.object("new").await;
    assert_eq!(shown["status"]["joinTokens"].as_array().unwrap().len(), 1, "{shown}");
    let made: Value = serde_json::from_str(&answer.body).unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("moorline-join.") && !shown.to_string().contains(token));

    let answer = post("/v1/clusters/new/enrolment", "").await;
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    let created = serde_json::from_str(&answer.body).unwrap();
    let _agent = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("new").await.unwrap();
    management.becomes("new", "True").await;
    assert_eq!(post("/v1/clusters/new/enrolment", "").await.code, StatusCode::CONFLICT);
}

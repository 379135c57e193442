//! Joining into a Secret, as in a Deployment: the server is a real one, the kube-apiserver is scripted.

use http::Method;
use moorline_agent::{Config, RawConfig, join};
use moorline_api::{CreatedJoinToken, paths};
use moorline_testkit::{client::full, house::Server};
use serde_json::json;

use crate::{api::Api, bench::within, keeping::SECRET};

#[tokio::test]
async fn an_agent_joins_into_its_secret_and_starts_before_the_mount_has_it() {
    let (server, api, dir) = (Server::start().await.unwrap(), Api::start().await, tempfile::tempdir().unwrap());
    let client = server.admin_client().unwrap();
    let body = full("{\"name\":\"east\",\"join\":{}}".to_owned());
    let answer = client.ask(client.request_with(Method::POST, paths::CLUSTERS, body)).await.unwrap();
    let created: CreatedJoinToken = serde_json::from_str(&answer.body).unwrap();
    let (token, api_token) = (dir.path().join("join-token"), dir.path().join("token"));
    std::fs::write(&token, created.token.expose()).unwrap();
    std::fs::write(&api_token, "the-agents-token").unwrap();
    let empty = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "moorline-agent-certs", "namespace": "moorline"}});
    api.apply(SECRET, empty);
    let raw = RawConfig {
        identity_secret: Some("moorline/moorline-agent-certs".to_owned()),
        cert_dir: Some(dir.path().join("mounted")),
        join_token_file: Some(token.clone()),
        kube_apiserver: Some(api.url()),
        kube_token_file: Some(api_token),
        admin_addr: Some("127.0.0.1:0".to_owned()),
        ..RawConfig::default()
    };
    let starting = async || within(join::at_start(&raw)).await.expect("it has not joined in time").unwrap();
    let files = starting().await.expect("an identity");
    assert_eq!(files.address.as_deref(), Some(server.tunnel.to_string().as_str()));
    let kept = api.object(SECRET).unwrap();
    let names: Vec<_> = kept["data"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["managed-cluster.crt", "managed-cluster.key", "management-cluster-addr", "management-cluster.crt"];
    assert_eq!(names, expected, "and no key of a join that was begun");
    Config::starting_with(&raw, Some(files.clone())).unwrap();

    // Started again, before kubelet has brought it into the mount and after the token is gone.
    std::fs::remove_file(token).unwrap();
    assert_eq!(starting().await, Some(files));
}

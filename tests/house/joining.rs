//! Agents that join: by a token, with a key that they made themselves, and then as any other.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use moorline_agent::join::{self, Join, JoinError, StartError};
use moorline_agent::{App, Config, RawConfig, RawJoin};
use moorline_api::{CreatedJoinToken, paths};
use moorline_process::write_private;
use moorline_testkit::client::full;
use moorline_testkit::house::{Server, raw_agent};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Registers a cluster whose agent is to join, and writes the token into a file.
async fn invited(server: &Server, logs: &Logs, name: &str, directory: &Path) -> PathBuf {
    let client = server.admin_client().unwrap();
    let body = full(format!("{{\"name\":{name:?},\"join\":{{}}}}"));
    let answer = client.ask(client.request_with(Method::POST, paths::CLUSTERS, body)).await.unwrap();
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    let created: CreatedJoinToken = serde_json::from_str(&answer.body).unwrap();
    logs.forbid(created.token.expose());
    let file = directory.join("join-token");
    write_private(&file, created.token.expose().as_bytes()).unwrap();
    file
}

fn raw(token_file: &Path, certs: &Path) -> RawJoin {
    RawJoin { token_file: Some(token_file.to_owned()), cert_dir: Some(certs.to_owned()), ..RawJoin::default() }
}

/// An agent of these files, without any other address than the one it was told as it joined.
fn agent(certs: &Path, upstream: &Upstream, token_file: Option<PathBuf>) -> RawConfig {
    write_private(&certs.join("token"), b"the-agent's-own-token").unwrap();
    let raw = raw_agent(certs, "127.0.0.1:1".parse().unwrap(), &upstream.url());
    RawConfig { management_cluster_addr: None, join_token_file: token_file, ..raw }
}

/// Runs it until requests get through, sends one, and ends it.
async fn works(server: &Server, name: &str, raw: &RawConfig) {
    let app = App::build(Config::from_raw(raw).unwrap()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(app.run(async move { drop(stopped.await) }));
    server.connected(name).await.unwrap();
    let answer = server.admin_client().unwrap().get(&format!("/clusters/{name}/bytes/16")).await.unwrap();
    assert_eq!((answer.code, answer.body.len()), (StatusCode::OK, 16));
    drop(stop);
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_token_is_all_that_an_agent_needs() {
    let logs = Logs::capture();
    let (server, upstream) = (Server::start().await.unwrap(), Upstream::start().await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let token = invited(&server, &logs, "east", dir.path()).await;
    let joined = Join::from_raw(&raw(&token, &certs)).unwrap().run().await.unwrap();
    assert_eq!((joined.name.as_str(), joined.address), ("east", server.tunnel.to_string()));
    works(&server, "east", &agent(&certs, &upstream, None)).await;

    // What is there is not overwritten by mistake, and the token is of no use to anybody else.
    let again = Join::from_raw(&raw(&token, &certs)).unwrap().run().await.unwrap_err();
    assert!(matches!(again, JoinError::Enrolled(_)), "{again}");
    let elsewhere = Join::from_raw(&raw(&token, &dir.path().join("other"))).unwrap().run().await.unwrap_err();
    let JoinError::Refused(refused) = &elsewhere else { panic!("{elsewhere}") };
    assert_eq!(refused.reason, "TokenUsed");
    assert!(!elsewhere.retryable() && elsewhere.to_string().contains("moorline token create east"), "{elsewhere}");
    let listing: Vec<_> = std::fs::read_dir(&certs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!listing.iter().any(|name| name.to_string_lossy().contains("joining")), "{listing:?}");
}

#[tokio::test]
async fn an_agent_joins_at_its_first_start_and_never_again() {
    let logs = Logs::capture();
    let (server, upstream) = (Server::start().await.unwrap(), Upstream::start().await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    let token = invited(&server, &logs, "east", dir.path()).await;
    let raw = agent(&certs, &upstream, Some(token.clone()));
    join::at_start(&raw).await.unwrap();
    works(&server, "east", &raw).await;
    std::fs::remove_file(&token).unwrap();
    join::at_start(&raw).await.unwrap();
    works(&server, "east", &raw).await;
}

#[tokio::test]
async fn what_only_people_can_mend_ends_the_start() {
    let logs = Logs::capture();
    let server = Server::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = invited(&server, &logs, "east", dir.path()).await;
    // A server with other authorities, at the address that the token is used with.
    let other = Server::start().await.unwrap();
    let elsewhere =
        RawJoin { management_cluster_addr: Some(other.tunnel.to_string()), ..raw(&token, &dir.path().join("certs")) };
    let error = Join::from_raw(&elsewhere).unwrap().run().await.unwrap_err();
    assert!(error.to_string().contains("pinned key") && error.remedy().contains("nothing was sent"), "{error}");
    assert!(!error.retryable());
    let joins = other.metrics().await.unwrap();
    assert!(!joins.contains("moorline_joins_total{outcome=\"joined\"}") && !joins.contains("UnknownToken"), "{joins}");

    let nobody = RawJoin { management_cluster_addr: Some("127.0.0.1:1".to_owned()), ..elsewhere };
    let error = Join::from_raw(&nobody).unwrap().run().await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("127.0.0.1:1"), "{error}");

    let client = server.admin_client().unwrap();
    let deleted = client.ask(client.request(Method::DELETE, &paths::cluster(&"east".parse().unwrap()))).await.unwrap();
    assert_eq!(deleted.code, StatusCode::OK);
    let raw =
        RawConfig { cert_dir: Some(dir.path().join("certs")), join_token_file: Some(token), ..RawConfig::default() };
    let error = join::at_start(&raw).await.unwrap_err();
    let StartError::Join(JoinError::Refused(refused)) = &error else { panic!("{error}") };
    assert_eq!(refused.reason, "UnknownToken");
}

//! The tunnel's authority changes, clusters are revoked and deleted, and servers come back from old backups: who is in
//! stays in, who is out stays out, and nobody repairs a cluster by hand.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_api::{AuthoritiesStatus, CreatedCluster, FinishRotation, paths};
use moorline_server::bootstrap::StateDir;
use moorline_testkit::client::full;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;

use super::people::until;

/// Files that are looked at ten times a second, so that a test need not wait for it.
fn quick(raw: &mut moorline_server::RawConfig) {
    raw.reload_interval = Some("100ms".to_owned());
}

async fn post(server: &Server, path: &str, body: String) -> (StatusCode, String) {
    let client = server.admin_client().unwrap();
    let answer = client.ask(client.request_with(Method::POST, path, full(body))).await.unwrap();
    (answer.code, answer.body)
}

async fn rotate(server: &Server, step: &str, abandon: &[&str]) -> (StatusCode, String) {
    let abandon = abandon.iter().map(|name| (*name).to_owned()).collect();
    let body = serde_json::to_string(&FinishRotation { abandon }).unwrap();
    post(server, &format!("{}/{step}", paths::TUNNEL_AUTHORITY), body).await
}

async fn authorities(server: &Server) -> AuthoritiesStatus {
    let answer = server.admin_client().unwrap().get(paths::TUNNEL_AUTHORITY).await.unwrap();
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

async fn behind(server: &Server) -> Vec<String> {
    authorities(server).await.behind.into_iter().map(|cluster| cluster.name).collect()
}

fn roots_of(agent: &Agent) -> usize {
    let pem = std::fs::read_to_string(agent.files().join("management-cluster.crt")).unwrap();
    pem.matches("BEGIN CERTIFICATE").count()
}

/// Runs an agent in the files of one that has ended.
fn again(files: &Path, server: &Server, upstream: &Upstream) -> Agent {
    let read = |name: &str| std::fs::read_to_string(files.join(name)).unwrap();
    let created: CreatedCluster = serde_json::from_value(serde_json::json!({
        "cluster": server_json(),
        "enrolment": {
            "managementClusterAddr": server.tunnel.to_string(),
            "management-cluster.crt": read("management-cluster.crt"),
            "managed-cluster.crt": read("managed-cluster.crt"),
            "managed-cluster.key": read("managed-cluster.key"),
        },
    }))
    .unwrap();
    Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap()
}

/// A cluster as the API shows it, of which only the shape counts here.
fn server_json() -> serde_json::Value {
    let record = moorline_model::ClusterRecord::new(
        "any".parse().unwrap(),
        moorline_model::ClusterUid::from_bytes([0; 16]),
        moorline_model::Timestamp::from_unix_seconds(0),
    );
    serde_json::to_value(moorline_api::ManagedCluster::new(&record, moorline_api::ManagedClusterStatus::default()))
        .unwrap()
}

/// The files of an agent, kept beyond its end.
fn keep(agent: &Agent) -> tempfile::TempDir {
    let kept = tempfile::tempdir().unwrap();
    for name in ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"] {
        std::fs::copy(agent.files().join(name), kept.path().join(name)).unwrap();
    }
    kept
}

#[tokio::test]
async fn f08_the_authority_changes_under_twenty_agents_of_which_some_are_away() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(quick).await.unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("c{number:02}")).collect();
    let mut agents = Vec::new();
    for name in &names {
        agents.push(server.agent(name, &upstream.url()).await.unwrap());
    }
    // Three are away, and one of them for ever.
    let mut away = Vec::new();
    for mut agent in agents.drain(17..) {
        away.push(keep(&agent));
        agent.stop();
        agent.ended().await.unwrap();
    }
    let before = authorities(&server).await;
    assert!(before.leaving.is_none() && before.behind.is_empty());

    assert_eq!(rotate(&server, "rotate", &[]).await.0, StatusCode::OK);
    assert_eq!(rotate(&server, "rotate", &[]).await.0, StatusCode::CONFLICT);
    until("all that are here have moved", async || behind(&server).await == ["c17", "c18", "c19"]).await;
    for (agent, name) in agents.iter().zip(&names) {
        assert_eq!(roots_of(agent), 2, "{name} believes both");
        server.connected(name).await.unwrap();
    }
    let (code, why) = rotate(&server, "finish", &[]).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert!(["c17", "c18", "c19"].iter().all(|name| why.contains(name)) && !why.contains("c16"), "{why}");
    assert_eq!(rotate(&server, "finish", &["c16"]).await.0, StatusCode::CONFLICT, "nobody gives up who is not behind");

    // Two come back, knowing the old authority only, and move.
    let back: Vec<_> = away.drain(..2).map(|files| again(files.path(), &server, &upstream)).collect();
    until("they have moved, too", async || behind(&server).await == ["c19"]).await;
    assert_eq!(rotate(&server, "finish", &["c19"]).await.0, StatusCode::OK);
    let after = authorities(&server).await;
    assert!(after.leaving.is_none());
    assert_ne!(after.signing.fingerprint, before.signing.fingerprint);
    for (agent, name) in agents.iter().chain(&back).zip(&names) {
        until("the old authority is gone", async || roots_of(agent) == 1).await;
        server.connected(name).await.unwrap();
    }
    // The one that never came back is out, and a restart finds the same.
    let lost = again(away[0].path(), &server, &upstream);
    let (_, directory) = server.ended().await.unwrap();
    let server = Server::start_in(directory, quick).await.unwrap();
    assert_eq!(authorities(&server).await.signing, after.signing);
    assert_eq!(lost.metric("moorline_agent_sessions", &[]).await.unwrap(), 0.0);
}

#[tokio::test]
async fn a_rotation_that_is_turned_around_ends_where_it_began() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(quick).await.unwrap();
    let agent = server.agent("east", &upstream.url()).await.unwrap();
    let before = authorities(&server).await.signing;
    rotate(&server, "rotate", &[]).await;
    until("it has moved", async || behind(&server).await.is_empty()).await;
    assert_eq!(rotate(&server, "abort", &[]).await.0, StatusCode::OK);
    assert_eq!(authorities(&server).await.signing, before);
    until("it has moved back", async || behind(&server).await.is_empty()).await;
    assert_eq!(rotate(&server, "finish", &[]).await.0, StatusCode::OK);
    until("one authority is left", async || roots_of(&agent) == 1).await;
    server.connected("east").await.unwrap();
    assert_eq!(rotate(&server, "abort", &[]).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn f09_a_server_with_an_old_store_and_a_new_authority_gets_its_clusters_back() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(|raw| {
        quick(raw);
        // Of its own: no other test takes the port while nobody listens there.
        raw.tunnel_listen = Some("127.1.0.3:0".to_owned());
    })
    .await
    .unwrap();
    let mut agents = vec![];
    for name in ["c0", "c1"] {
        agents.push(server.agent(name, &upstream.url()).await.unwrap());
    }
    // The backup is of now: three clusters more come after it. The authority is kept apart.
    let (kept, port) = (tempfile::tempdir().unwrap(), server.tunnel);
    for name in ["tunnel-ca.crt", "tunnel-ca.key"] {
        std::fs::copy(server.directory().join(name), kept.path().join(name)).unwrap();
    }
    let (_, directory) = server.ended().await.unwrap();
    let backup = std::fs::read(directory.path().join("clusters.redb")).unwrap();
    let server = Server::start_in(directory, |raw| raw.tunnel_listen = Some(port.to_string())).await.unwrap();
    for name in ["c2", "c3", "c4"] {
        agents.push(server.agent(name, &upstream.url()).await.unwrap());
    }
    drop(server.ended().await.unwrap());

    // A new machine: an older store, and everything else made anew, the authority too.
    let directory = tempfile::tempdir().unwrap();
    let made = Server::start_in(directory, |_| {}).await.unwrap().ended().await.unwrap().1;
    std::fs::write(made.path().join("clusters.redb"), backup).unwrap();
    let now = moorline_model::Timestamp::from(std::time::SystemTime::now());
    let state = StateDir::new(made.path());
    let (certificate, key) = (kept.path().join("tunnel-ca.crt"), kept.path().join("tunnel-ca.key"));
    state.import_previous(&certificate, &key, now).unwrap();
    let server = Server::start_in(made, |raw| {
        quick(raw);
        raw.tunnel_listen = Some(port.to_string());
        raw.adopt_until = Some(now.saturating_add(Duration::from_secs(600)).to_string());
    })
    .await
    .unwrap();
    for name in ["c0", "c1", "c2", "c3", "c4"] {
        until(name, async || server.cluster(name).await.is_ok()).await;
        server.connected(name).await.unwrap();
    }
    until("all have moved to the new authority", async || behind(&server).await.is_empty()).await;
    assert_eq!(rotate(&server, "finish", &[]).await.0, StatusCode::OK);
    for agent in &agents {
        until("the old authority is gone", async || roots_of(agent) == 1).await;
    }
    for name in ["c0", "c1", "c2", "c3", "c4"] {
        server.connected(name).await.unwrap();
    }
}

#[tokio::test]
async fn f10_a_revoked_cluster_is_cut_with_all_that_runs_and_comes_back_by_a_new_manifest() {
    let logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(quick).await.unwrap();
    let agent = server.agent("east", &upstream.url()).await.unwrap();
    let user = server.admin_client().unwrap();
    let request = user.request(Method::GET, "/clusters/east/api/v1/watch/ticks?watch=true");
    let mut watch = user.send(request).await.unwrap().into_body();
    watch.frame().await.unwrap().unwrap();
    let path = paths::revocation(&"east".parse().unwrap());
    assert_eq!(post(&server, &path, "null".to_owned()).await.0, StatusCode::OK);
    let ended = async { while let Some(Ok(_)) = watch.frame().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the watch goes on");
    assert_eq!(user.get("/clusters/east/api").await.unwrap().code, StatusCode::SERVICE_UNAVAILABLE);
    until("the agent knows why", async || logs.contain(&["moorline_agent", "revoked"])).await;
    assert!(server.cluster("east").await.unwrap().status.fingerprints.is_empty());
    // The same certificate again: still out, and told why.
    let files = keep(&agent);
    let other = again(files.path(), &server, &upstream);
    until("it is refused", async || logs.contain(&["the server refused the session: revoked"])).await;
    assert_eq!(other.metric("moorline_agent_sessions", &[]).await.unwrap(), 0.0);

    let (code, body) = post(&server, &paths::enrolment(&"east".parse().unwrap()), "null".to_owned()).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    let created: CreatedCluster = serde_json::from_str(&body).unwrap();
    let _new = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
}

#[tokio::test]
async fn f39_the_agent_of_a_deleted_cluster_stays_out_when_its_name_is_used_again() {
    let logs = Logs::capture();
    let (old, new) = (Upstream::start().await.unwrap(), Upstream::start().await.unwrap());
    let server = Server::start().await.unwrap();
    let before = server.agent("east", &old.url()).await.unwrap();
    let files = keep(&before);
    let client = server.admin_client().unwrap();
    let path = paths::cluster(&"east".parse().unwrap());
    assert_eq!(client.ask(client.request(Method::DELETE, &path)).await.unwrap().code, StatusCode::OK);
    until("it is cut", async || before.metric("moorline_agent_sessions", &[]).await.unwrap() == 0.0).await;
    let _after = server.agent("east", &new.url()).await.unwrap();
    let back = again(files.path(), &server, &old);
    until("it is refused", async || logs.contain(&["the server refused the session: cluster-deleted"])).await;
    let seen = old.seen("/api").len();
    for _ in 0..10 {
        assert_eq!(client.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
    }
    assert_eq!((old.seen("/api").len(), new.seen("/api").len()), (seen, 10));
    assert_eq!(back.metric("moorline_agent_sessions", &[]).await.unwrap(), 0.0);
}

//! Processes that freeze, wake, and die without a word.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

use super::house::{Agent, Server, until};

/// Three beats, and much for a busy machine.
const FOUND: Duration = Duration::from_secs(10);

/// One request that hangs and one watch, both in the managed cluster; what `harm` does ends both, in words.
async fn ends_what_runs(server: &Server, upstream: &Upstream, harm: impl FnOnce()) {
    let user = server.user();
    let mut watch = user.send(user.request(Method::GET, "/clusters/east/ticks?watch=true")).await.unwrap().into_body();
    assert!(watch.frame().await.unwrap().is_ok());
    let mut waiting = JoinSet::new();
    let caller = user.clone();
    waiting.spawn(async move { caller.get("/clusters/east/hang").await });
    until("both run", async || upstream.running() == 2).await;
    harm();
    let harmed = Instant::now();
    let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
    let told = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    assert!(told.contains(&answer.code), "{} {}", answer.code, answer.body);
    assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
    assert!(tokio::time::timeout(FOUND, watch.collect()).await.is_ok(), "the watch goes on");
    assert!(harmed.elapsed() < FOUND, "{:?}", harmed.elapsed());
    let after = user.get("/clusters/east/api").await.unwrap();
    assert_eq!(after.code, StatusCode::SERVICE_UNAVAILABLE, "{}", after.body);
    assert!(after.body.contains("\"kind\":\"Status\"") && after.headers.contains_key("retry-after"), "{}", after.body);
    until("nothing is left", async || server.metric("moorline_gateway_requests_running").await == 0.0).await;
    assert_eq!(server.metric("moorline_tunnel_sessions").await, 0.0);
}

#[tokio::test]
async fn f03_f40_a_stopped_agent_is_found_and_comes_back_once_when_it_goes_on() {
    let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    ends_what_runs(&server, &upstream, || agent.program.signal("STOP")).await;
    server.program.says(&["session ended", "heartbeat"]).await;

    let begun = server.metric("moorline_tunnel_sessions_welcomed_total").await;
    agent.program.signal("CONT");
    let woken = Instant::now();
    server.connected("east").await;
    assert!(woken.elapsed() < FOUND, "{:?}", woken.elapsed());
    // It notices at once that its session is gone, and dials once.
    assert_eq!(server.metric("moorline_tunnel_sessions_welcomed_total").await - begun, 1.0);
    assert_eq!(server.metric("moorline_tunnel_sessions").await, 1.0);
    until("nothing runs upstream", async || upstream.running() == 0).await;
}

#[tokio::test]
async fn f40_a_nap_shorter_than_the_patience_costs_no_session() {
    let (server, upstream) = (
        Server::start_in(tempfile::tempdir().unwrap(), &["--heartbeat-interval", "5s"]).await,
        Upstream::start().await.unwrap(),
    );
    let agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    agent.program.signal("STOP");
    let user = server.user();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { user.get("/clusters/east/api").await });
    let nothing = tokio::time::timeout(Duration::from_secs(1), waiting.join_next()).await;
    assert!(nothing.is_err(), "a stopped agent answered");
    agent.program.signal("CONT");
    let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    assert_eq!(server.metric("moorline_tunnel_sessions_welcomed_total").await, 1.0);
}

#[tokio::test]
async fn f03_a_killed_agent_is_noticed_at_once_and_its_successor_serves() {
    let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let created = server.create("east").await;
    let agent = Agent::start(&created, server.tunnel, &upstream).await;
    server.connected("east").await;
    ends_what_runs(&server, &upstream, || agent.program.signal("KILL")).await;
    assert!(!server.cluster("east").await.status.connected);
    let _next = Agent::start(&created, server.tunnel, &upstream).await;
    server.connected("east").await;
}

#[tokio::test]
async fn f06_a_killed_server_finds_its_agents_again() {
    // Of its own: no other test takes the ports while nobody listens there.
    let doors = ["--tunnel-listen", "127.1.0.6:0", "--gateway-listen", "127.1.0.6:0"];
    let server = Server::start_in(tempfile::tempdir().unwrap(), &doors).await;
    let upstream = Upstream::start().await.unwrap();
    let mut agents = Vec::new();
    for name in ["east", "west"] {
        agents.push(Agent::start(&server.create(name).await, server.tunnel, &upstream).await);
        server.connected(name).await;
    }
    let (tunnel, gateway) = (server.tunnel.to_string(), server.gateway.to_string());
    server.program.signal("KILL");
    let Server { mut program, directory, .. } = server;
    assert_eq!(program.ended(FOUND).await, None, "a signal ended it");
    for agent in &agents {
        agent.program.says(&["session ended"]).await;
        agent.program.says(&["no session with the server", "cannot connect", "retry_in"]).await;
    }
    let server = Server::start_in(directory, &["--tunnel-listen", &tunnel, "--gateway-listen", &gateway]).await;
    // Before its agent is back a cluster is known, and its users are told to come again.
    let answer = server.user().get("/clusters/east/api").await.unwrap();
    assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.code), "{}", answer.body);
    for name in ["east", "west"] {
        server.connected(name).await;
    }
}

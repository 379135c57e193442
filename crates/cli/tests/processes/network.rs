//! The kernel's own network between server and agent, in namespaces that the test makes: packets that are dropped.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::{
    client::{LIMIT, full},
    upstream::Upstream,
};
use tokio::task::JoinSet;

use super::{
    house::{Agent, BEAT, Server, server_flags, until},
    namespace::{Namespace, Wire, alone, retransmitted},
};

/// Three beats, and much for a busy machine.
const FOUND: Duration = Duration::from_secs(10);

/// A server in a namespace of its own, with one wire for agents and one for users.
struct Far {
    server: Server,
    tunnel: Wire,
    _users: Wire,
    _there: Namespace,
}

impl Far {
    async fn new(beat: &str) -> Self {
        let there = Namespace::new();
        let (tunnel, users) = (there.wire(1).await, there.wire(2).await);
        let directory = tempfile::tempdir().unwrap();
        let (agents_at, users_at) = (format!("{}:0", tunnel.far()), format!("{}:0", users.far()));
        let flags = [
            ["--tunnel-listen", &agents_at],
            ["--gateway-listen", &users_at],
            ["--admin-listen", &users_at],
            ["--heartbeat-interval", beat],
        ];
        let command =
            there.command(env!("CARGO_BIN_EXE_moorline"), &server_flags(directory.path(), flags.as_flattened()));
        Self { server: Server::run(directory, command).await, tunnel, _users: users, _there: there }
    }
}

#[tokio::test]
async fn f03_packets_that_are_dropped_on_the_way_are_found() {
    alone("network::dropped_packets").await;
}

#[tokio::test]
#[ignore = "needs a network namespace of its own; run by the test above"]
async fn dropped_packets() {
    let (far, upstream) = (Far::new(BEAT).await, Upstream::start().await.unwrap());
    let agent = Agent::start(&far.server.create("east").await, far.server.tunnel, &upstream).await;
    far.server.connected("east").await;
    let user = far.server.user();
    let watch = user.send(user.request(Method::GET, "/clusters/east/ticks?watch=true")).await.unwrap();
    let mut waiting = JoinSet::new();
    let caller = user.clone();
    waiting.spawn(async move { caller.get("/clusters/east/hang").await });
    until("both run", async || upstream.running() == 2).await;

    far.tunnel.drop_packets();
    let cut = Instant::now();
    let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
    let told = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    assert!(told.contains(&answer.code), "{} {}", answer.code, answer.body);
    assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
    assert!(tokio::time::timeout(FOUND, watch.into_body().collect()).await.is_ok(), "the watch goes on");
    // The agent finds it by itself, and ends what it ran.
    until("nothing runs upstream", async || upstream.running() == 0).await;
    assert!(cut.elapsed() < FOUND, "{:?}", cut.elapsed());
    far.server.program.says(&["session ended", "heartbeat"]).await;
    agent.program.says(&["session ended"]).await;
    assert_eq!(far.server.metric("moorline_tunnel_sessions").await, 0.0);
    assert_eq!(far.server.metric("moorline_gateway_requests_running").await, 0.0);

    far.tunnel.heal();
    far.server.connected("east").await;
}

#[tokio::test]
async fn f15_large_bodies_arrive_whole_over_a_wire_that_loses_packets() {
    alone("network::lost_packets").await;
}

#[tokio::test]
#[ignore = "needs a network namespace of its own; run by the test above"]
async fn lost_packets() {
    const SIZE: usize = 16 << 20;
    /// How often everything under way is lost: enough for many segments, and few enough to come to an end.
    const LOSSES: usize = 20;
    // With the patience of a real server: TCP waits longer each time that it loses what it sends again.
    let (far, upstream) = (Far::new("5s").await, Upstream::start().await.unwrap());
    let _agent = Agent::start(&far.server.create("east").await, far.server.tunnel, &upstream).await;
    far.server.connected("east").await;
    let user = far.server.user();
    let both = async {
        let down = async {
            let path = format!("/clusters/east/bytes/{SIZE}");
            user.send(user.request(Method::GET, &path)).await.unwrap().into_body().collect().await.unwrap().to_bytes()
        };
        let body = full(vec![7; SIZE]);
        let up = user.ask(user.request_with(Method::POST, "/clusters/east/upload", body));
        tokio::join!(down, up)
    };
    let mut both = std::pin::pin!(both);
    let mut done = None;
    for _ in 0..LOSSES {
        // Everything that is sent in this moment is lost, and sent again later.
        far.tunnel.drop_packets();
        done = tokio::time::timeout(Duration::from_millis(20), both.as_mut()).await.ok();
        far.tunnel.heal();
        if done.is_none() {
            done = tokio::time::timeout(Duration::from_millis(150), both.as_mut()).await.ok();
        }
        if done.is_some() {
            break;
        }
    }
    let (down, up) = match done {
        Some(done) => done,
        None => tokio::time::timeout(LIMIT, both).await.expect("it neither completes nor fails"),
    };
    assert_eq!(down.len(), SIZE);
    assert_eq!(up.unwrap().body, SIZE.to_string());
    assert!(retransmitted() > 10, "only {} segments were lost", retransmitted());
    assert_eq!(far.server.metric("moorline_tunnel_sessions_welcomed_total").await, 1.0, "the session outlived it");
}

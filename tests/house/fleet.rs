//! Many agents at once: behind one address, after a restart of their server, and when their own program is upgraded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_api::CreatedCluster;
use moorline_server::bootstrap::StateDir;
use moorline_testkit::client::LIMIT;
use moorline_testkit::house::{Agent, Server, plain_get};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::people::until;

/// Agents in one process with their server: enough to meet every limit of these tests.
const FLEET: usize = 16;

/// For all of them to be there, at a rate of a few a second, on a busy machine.
const BACK: Duration = Duration::from_secs(60);

/// Clusters `c0`, `c1`, …
async fn clusters(server: &Server) -> Vec<CreatedCluster> {
    let mut clusters = Vec::new();
    for number in 0..FLEET {
        clusters.push(server.create(&format!("c{number}")).await.unwrap());
    }
    clusters
}

/// An agent for each cluster, all of which begin to dial at once.
fn fleet(clusters: &[CreatedCluster], server: &Server, upstream: &Upstream) -> Vec<Agent> {
    clusters.iter().map(|one| Agent::start(one, server.tunnel, &upstream.url(), |_| {}).unwrap()).collect()
}

/// Waits until every cluster is connected; says how long it took.
async fn all_connected(server: &Server) -> Duration {
    let began = Instant::now();
    for number in 0..FLEET {
        server.connected(&format!("c{number}")).await.unwrap();
    }
    assert!(began.elapsed() < BACK, "{:?}", began.elapsed());
    began.elapsed()
}

#[tokio::test]
async fn f24_agents_behind_one_address_come_in_past_those_who_say_nothing() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(|raw| {
        raw.max_handshakes_per_address = Some(4);
        raw.handshake_timeout = Some("3s".to_owned());
    })
    .await
    .unwrap();
    // Before anybody is silent, whose time is short.
    let clusters = clusters(&server).await;
    // As many as may shake hands at once from that address, and never a word: they keep the others out for a while, who
    // come again by themselves, more of them than may at once.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(server.tunnel).await.unwrap());
    }
    until("they are there", async || server.metric("moorline_tunnel_handshakes", &[]).await.unwrap() == 4.0).await;
    let _agents = fleet(&clusters, &server, &upstream);
    all_connected(&server).await;
    // One connection for each agent, and no more for having had to wait.
    until("one session each", async || server.metric("moorline_tunnel_sessions", &[]).await.unwrap() == FLEET as f64)
        .await;
    let turned_away = server.metric("moorline_tunnel_refused_total", &["address-busy"]).await.unwrap();
    assert!(turned_away > 0.0, "there was no room");
    drop(silent);
}

#[tokio::test]
async fn f06_a_fleet_is_back_after_a_restart_and_nothing_fails_any_more() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    // Of its own: no other test takes the port while nobody listens there.
    let first = Server::start_with(|raw| raw.tunnel_listen = Some("127.1.0.1:0".to_owned())).await.unwrap();
    let tunnel = first.tunnel;
    let _agents = fleet(&clusters(&first).await, &first, &upstream);
    all_connected(&first).await;
    let (_outcome, directory) = first.ended().await.unwrap();
    let second = Server::start_in(directory, |raw| {
        raw.tunnel_listen = Some(tunnel.to_string());
        // Fewer than come: who is turned away comes again.
        raw.handshake_rate = Some(4);
        // No session is lost because the machine is busy: each that comes is counted below.
        raw.heartbeat_interval = Some("5s".to_owned());
    })
    .await
    .unwrap();
    let user = second.admin_client().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for number in 0..FLEET {
        let (user, over) = (user.clone(), Arc::clone(&over));
        callers.spawn(async move {
            let (path, mut through) = (format!("/clusters/c{number}/api"), 0);
            while !over.load(Ordering::Relaxed) {
                let answer = user.get(&path).await.unwrap();
                match answer.code {
                    StatusCode::OK => {
                        through += 1;
                        // Those who are not there yet need the machine as well.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    // Not there yet, and told when to ask again; once it is there, never again.
                    StatusCode::SERVICE_UNAVAILABLE if through == 0 => {
                        assert!(answer.headers.contains_key("retry-after"), "{}", answer.body);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    other => panic!("{other} after {through}: {}", answer.body),
                }
            }
            through
        });
    }
    all_connected(&second).await;
    until("everybody is served", async || upstream.seen("/api").len() > FLEET * 20).await;
    over.store(true, Ordering::Relaxed);
    assert!(callers.join_all().await.into_iter().all(|through| through > 0));
    let welcomed = second.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap();
    assert_eq!(welcomed, FLEET as f64, "each came in once");
}

#[tokio::test]
async fn f07_exec_and_logs_go_on_and_a_watch_ends_when_the_agents_pod_is_replaced() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let created = server.create("east").await.unwrap();
    let mut old =
        Agent::start(&created, server.tunnel, &upstream.url(), |raw| raw.drain_grace = Some("3s".to_owned())).unwrap();
    server.connected("east").await.unwrap();
    let user = server.admin_client().unwrap();
    let open = async |path: &str| {
        let response = user.send(user.request(Method::GET, path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    };
    let mut log = open("/clusters/east/ticks?follow=true").await;
    let watch = open("/clusters/east/api/v1/watch/stall").await;
    let token = StateDir::new(server.directory()).admin_token().unwrap().unwrap();
    let mut exec = user.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!(
        "POST /clusters/east/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    exec.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(exec.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    until("three run", async || upstream.running() == 3).await;

    // The new pod is ready before the old one is told to end.
    let _new = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    let sessions = async || server.cluster("east").await.unwrap().status.sessions.len();
    until("both serve", async || sessions().await == 2).await;
    let get = async || {
        let answer = user.get("/clusters/east/api").await.unwrap();
        assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    };
    old.stop();
    get().await;
    until("the old one is about to end", async || {
        !plain_get(old.admin, "/readyz").await.unwrap().starts_with("HTTP/1.1 200")
    })
    .await;
    // At once, since its grace runs.
    exec.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    tokio::time::timeout(LIMIT, exec.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"still here");
    let line = tokio::time::timeout(LIMIT, log.frame()).await.unwrap();
    assert!(line.is_some_and(|line| line.is_ok()), "the log goes on");
    for _ in 0..50 {
        get().await;
    }
    // What does not end by itself ends with the grace; a watch is then taken up elsewhere.
    drop((exec, log));
    old.ended().await.unwrap();
    drop(tokio::time::timeout(LIMIT, watch.collect()).await.expect("the watch ends"));
    let _again = open("/clusters/east/api/v1/watch/stall").await;
    until("one session is left", async || sessions().await == 1).await;
    until("only the new watch runs", async || upstream.running() == 1).await;
}

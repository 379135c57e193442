//! Sessions of an agent: the newest wins over a half-open one, idle connections stay, and two take over from each other.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::client::LIMIT;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::Link;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::people::{ALICE, House, until};

/// A beat of which a busy machine never misses three.
const RARE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn f04_the_newest_session_wins_at_once_over_a_half_open_one() {
    let _logs = Logs::capture();
    let (old, new) = (Upstream::start().await.unwrap(), Upstream::start().await.unwrap());
    // Beats so rare that they find nothing within this test.
    let server = Server::start_with(|raw| raw.heartbeat_interval = Some("20s".to_owned())).await.unwrap();
    let link = Link::to(server.tunnel).await.unwrap();
    let created = server.create("east").await.unwrap();
    let _before = Agent::start(&created, link.address(), &old.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    link.fall_silent();
    let begun = Instant::now();
    let _after = Agent::start(&created, server.tunnel, &new.url(), |_| {}).unwrap();
    until("the second session begins", async || {
        server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap() == 2.0
    })
    .await;
    let user = server.admin_client().unwrap();
    for _ in 0..20 {
        let answer = tokio::time::timeout(Duration::from_secs(20), user.get("/clusters/east/api")).await;
        assert_eq!(answer.expect("it waits for the dead session").unwrap().code, StatusCode::OK);
    }
    assert_eq!((old.seen("/api").len(), new.seen("/api").len()), (0, 20));
    until("the old one is cut", async || server.cluster("east").await.unwrap().status.sessions.len() == 1).await;
    // Three beats are a minute.
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn f05_idle_watches_and_switched_connections_stay() {
    let house = House::with("", |raw| {
        raw.heartbeat_interval = Some(format!("{}s", RARE.as_secs()));
        raw.head_timeout = Some("1s".to_owned());
        raw.response_timeout = Some("1s".to_owned());
        raw.gateway_handshake_timeout = Some("1s".to_owned());
    })
    .await;
    let user = house.user(ALICE);
    let mut watch = user.send(user.request(Method::GET, "/clusters/east/stall?watch=true")).await.unwrap().into_body();
    let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!(
        "POST /clusters/east/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    // Idle for longer than every time-out above, and than the beats after which a silent peer is given up.
    let idle = tokio::time::timeout(RARE * 5, watch.frame()).await;
    assert!(idle.is_err(), "the watch ended");
    socket.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    tokio::time::timeout(LIMIT, socket.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"still here");
    assert_eq!(house.upstream.running(), 2);
    assert_eq!(house.server.cluster("east").await.unwrap().status.sessions.len(), 1);
}

#[tokio::test]
async fn f07_an_agent_that_ends_under_load_hands_over_and_loses_nothing() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let created = server.create("east").await.unwrap();
    let mut first = Agent::start(&created, server.tunnel, &upstream.url(), |raw| raw.sessions = Some(2)).unwrap();
    server.connected("east").await.unwrap();
    let _second = Agent::start(&created, server.tunnel, &upstream.url(), |raw| raw.sessions = Some(2)).unwrap();
    until("both serve", async || server.cluster("east").await.unwrap().status.sessions.len() == 4).await;
    let user = server.admin_client().unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (user, stop) = (user.clone(), std::sync::Arc::clone(&stop));
        callers.spawn(async move {
            let mut connection = user.connect().await.unwrap();
            let mut served = 0_usize;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let request = user.request(Method::GET, "/clusters/east/bytes/4096");
                let response = connection.send(request).await.expect("the server stays");
                assert_eq!(response.status(), StatusCode::OK, "another session was there to take it");
                assert_eq!(response.into_body().collect().await.expect("it is whole").to_bytes().len(), 4096);
                served += 1;
            }
            served
        });
    }
    until("load", async || upstream.seen("/bytes/4096").len() > 200).await;
    first.stop();
    first.ended().await.unwrap();
    let then = upstream.seen("/bytes/4096").len();
    until("load goes on", async || upstream.seen("/bytes/4096").len() > then + 200).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let served: usize = callers.join_all().await.into_iter().sum();
    assert!(served > 400, "{served}");
    until("two are left", async || server.cluster("east").await.unwrap().status.sessions.len() == 2).await;
}

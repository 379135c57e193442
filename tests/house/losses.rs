//! A tunnel that is lost in the middle of much: nothing looks whole that is not, everything ends, and what comes after
//! finds nothing half-written.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use moorline_testkit::client::{Client, LIMIT, full};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::{Link, Weather};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

use super::people::until;

/// Three missed beats, and much for a busy machine.
const FOUND: Duration = Duration::from_secs(20);

struct House {
    server: Server,
    agent: Agent,
    upstream: Upstream,
    link: Link,
    user: Client,
    _logs: Logs,
}

impl House {
    async fn new() -> Self {
        let logs = Logs::capture();
        let (server, upstream) = (Server::start().await.unwrap(), Upstream::start().await.unwrap());
        let link = Link::to(server.tunnel).await.unwrap();
        let created = server.create("east").await.unwrap();
        let agent = Agent::start(&created, link.address(), &upstream.url(), |_| {}).unwrap();
        server.connected("east").await.unwrap();
        let user = server.admin_client().unwrap();
        Self { server, agent, upstream, link, user, _logs: logs }
    }

    async fn body(&self, http2: bool, path: &str) -> Incoming {
        let user = &self.user;
        let mut connection = if http2 { user.connect_http2().await } else { user.connect().await }.unwrap();
        let response = connection.send(user.request(Method::GET, &format!("/clusters/east/{path}"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    }

    /// Uploads that their kube-apiserver reads far more slowly than they come.
    fn slow_uploads(&self, count: usize) -> JoinSet<StatusCode> {
        let mut uploads = JoinSet::new();
        let body = Bytes::from(vec![7; 64 << 20]);
        for _ in 0..count {
            let (user, body) = (self.user.clone(), body.clone());
            uploads.spawn(async move {
                let request = user.request_with(Method::POST, "/clusters/east/sip", full(body));
                // Without a head: hung up on in the middle of the upload.
                user.send(request).await.map_or(StatusCode::BAD_GATEWAY, |response| response.status())
            });
        }
        uploads
    }
}

/// What is left of a body: its bytes, and whether it ended as one that is whole.
async fn rest(mut body: Incoming) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(LIMIT, body.frame()).await.unwrap() {
            None => return (bytes, true),
            Some(Err(_cut)) => return (bytes, false),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
        }
    }
}

#[tokio::test]
async fn f16_a_watch_that_is_lost_between_events_ends_in_order_and_is_taken_up_by_one_request() {
    let house = House::new().await;
    for (round, http2) in [false, true].into_iter().enumerate() {
        let mut watch = house.body(http2, "api/v1/watch/ticks").await;
        for _ in 0..5 {
            assert!(watch.frame().await.unwrap().is_ok());
        }
        house.link.cut();
        let (events, whole) = rest(watch).await;
        assert!(whole && (events.is_empty() || events.ends_with(b"}\n")), "{whole} {events:?}");
        house.server.connected("east").await.unwrap();
        let mut again = house.body(http2, "api/v1/watch/ticks").await;
        assert!(again.frame().await.unwrap().is_ok());
        assert_eq!(house.upstream.seen("/api/v1/watch/ticks").len(), 2 * (round + 1), "one request took it up");
        drop(again);
        until("it has ended upstream", async || house.upstream.running() == 0).await;
        // In the middle of an event it must not look like an end.
        let (_half, whole) = rest(house.body(http2, "api/v1/watch/cut-chunked/3000000").await).await;
        assert!(!whole, "half an event and a clean end");
    }
}

#[tokio::test]
async fn f17_what_is_half_written_when_the_link_stalls_ends_on_both_sides_and_never_looks_whole() {
    const DOWN: usize = 1_000_000_000;
    let house = House::new().await;
    let path = format!("bytes/{DOWN}");
    let mut bodies = Vec::new();
    for http2 in [false, true] {
        let mut body = house.body(http2, &path).await;
        body.frame().await.unwrap().unwrap();
        bodies.push(body);
    }
    let mut uploads = house.slow_uploads(2);
    until("all four run", async || house.upstream.running() == 4).await;
    let stalled = Instant::now();
    house.link.fall_silent();
    for body in bodies {
        let (bytes, whole) = rest(body).await;
        assert!(!whole && bytes.len() < DOWN, "{} bytes that look whole", bytes.len());
    }
    while let Some(code) = uploads.join_next().await {
        assert!(code.unwrap().is_server_error());
    }
    until("the agent has let go of it all", async || house.upstream.running() == 0).await;
    assert!(stalled.elapsed() < FOUND, "{:?}", stalled.elapsed());
    // What was on its way arrives late, at nobody; the next session carries exact bytes.
    house.link.set(Weather::default());
    house.link.cut();
    house.server.connected("east").await.unwrap();
    let (bytes, whole) = rest(house.body(false, "bytes/1000000").await).await;
    assert!(whole && bytes.len() == 1_000_000, "{whole} {}", bytes.len());
}

#[tokio::test]
async fn f18_a_session_that_is_full_in_both_directions_closes_at_once() {
    let House { mut server, agent, upstream, link, user, _logs } = {
        let house = House::new().await;
        let mut unread = Vec::new();
        for _ in 0..16 {
            unread.push(house.body(false, "bytes/1000000000").await);
        }
        let mut uploads = house.slow_uploads(16);
        until("all of them run", async || house.upstream.running() == 32).await;
        // A little more, while every window is as full as it gets.
        assert_eq!(house.user.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
        let request = house.user.request(Method::DELETE, "/v1/clusters/east");
        let closed = Instant::now();
        assert_eq!(house.user.ask(request).await.unwrap().code, StatusCode::OK);
        for body in unread {
            let (_bytes, whole) = rest(body).await;
            assert!(!whole);
        }
        while let Some(code) = uploads.join_next().await {
            assert!(!code.unwrap().is_success());
        }
        until("the agent has let go of it all", async || house.upstream.running() == 0).await;
        until("no session is left", async || {
            house.server.metric("moorline_tunnel_sessions", &[]).await.unwrap() == 0.0
        })
        .await;
        assert!(closed.elapsed() < FOUND, "{:?}", closed.elapsed());
        house
    };
    // Nothing hangs behind: both end at once, with nothing to cut.
    let ending = Instant::now();
    server.stop();
    let (outcome, _directory) = server.ended().await.unwrap();
    assert_eq!(outcome.cut, 0);
    agent.ended().await.unwrap();
    assert!(ending.elapsed() < FOUND, "{:?}", ending.elapsed());
    drop((upstream, link, user));
}

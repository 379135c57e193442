//! Large bodies pass in bounded memory, and a body that was cut never looks whole.

use std::process::Stdio;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use moorline_testkit::client::{Body, LIMIT};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::Link;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::people::{ALICE, House, until};

const MIB: u64 = 1 << 20;

/// How long a large body may take to pass on a slow machine: 2 MiB a second.
const PASSES: Duration = Duration::from_secs(512);

/// What server, agent, kube-apiserver and user together may hold above what they hold when idle.
const BOUND: u64 = 128 * MIB;

/// A line of `/proc/self/status` in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse::<u64>().ok());
    found.unwrap() * 1024
}

/// The size of a large body: what a debug build on a busy machine passes in seconds, or a gibibyte where there is time.
fn large() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the size of this test is for whoever runs it to choose")]
    let whole = std::env::var("MOORLINE_LARGE").is_ok_and(|value| value == "1");
    if whole { 1024 * MIB } else { 256 * MIB }
}

/// Runs an ignored test of this file in a process of its own, so that what other tests hold is not measured.
#[expect(clippy::print_stdout, reason = "the figure, for whoever asks with --nocapture")]
pub(crate) async fn alone(name: &str) {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", name])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Holds the most that this process has held so far against a bound above what it held when idle.
#[expect(clippy::print_stdout, reason = "the figure, for whoever asks with --nocapture")]
pub(crate) fn within(what: &str, idle: u64, bound: u64) {
    let held = memory("VmHWM:").saturating_sub(idle);
    println!("{what}: {} MiB above idle", held / MIB);
    assert!(held < bound, "{what}: {} MiB above idle", held / MIB);
}

pub(crate) fn idle_memory() -> u64 {
    memory("VmRSS:")
}

fn zeroes(count: u64) -> Body {
    static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];
    let blocks = (0..count / BLOCK.len() as u64).map(|_| Ok(Frame::data(BLOCK.as_slice().into())));
    StreamBody::new(futures_util::stream::iter(blocks)).boxed()
}

/// Reads to the end; how many bytes came, and whether that was all.
async fn drain(mut body: Incoming) -> (u64, Result<(), hyper::Error>) {
    let mut came = 0;
    loop {
        match tokio::time::timeout(LIMIT, body.frame()).await.unwrap() {
            None => return (came, Ok(())),
            Some(Err(error)) => return (came, Err(error)),
            Some(Ok(frame)) => came += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
    }
}

#[tokio::test]
async fn f15_large_bodies_pass_in_bounded_memory() {
    alone("streaming::large_bodies").await;
}

#[tokio::test]
#[ignore = "measures the process that it runs in; run by the test above"]
async fn large_bodies() {
    let house = House::new().await;
    let user = house.user(ALICE);
    let idle = idle_memory();
    let size = large();
    for protocol in ["HTTP/1.1", "HTTP/2"] {
        let connection = if protocol == "HTTP/2" { user.connect_http2().await } else { user.connect().await };
        let mut connection = connection.unwrap();
        let begun = Instant::now();
        let response =
            connection.send(user.request(Method::GET, &format!("/clusters/east/bytes/{size}"))).await.unwrap();
        let (came, end) = drain(response.into_body()).await;
        assert!(came == size && end.is_ok(), "{came} {end:?}");
        println!("down, {protocol}: {:.0} MiB/s", rate(size, begun));
        within("down", idle, BOUND);
        let begun = Instant::now();
        let upload = user.request_with(Method::POST, "/clusters/east/upload", zeroes(size));
        let response = connection.send_within(upload, PASSES).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), size.to_string());
        println!("up, {protocol}: {:.0} MiB/s", rate(size, begun));
        within("up", idle, BOUND);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn rate(size: u64, begun: Instant) -> f64 {
    (size / MIB) as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::test]
async fn f15_a_body_cut_upstream_never_looks_whole() {
    let house = House::new().await;
    let user = house.user(ALICE);
    for count in [1, 1_000, 100_000, 3_000_000] {
        for path in ["cut", "cut-chunked"] {
            for mut connection in [user.connect().await.unwrap(), user.connect_http2().await.unwrap()] {
                let request = user.request(Method::GET, &format!("/clusters/east/{path}/{count}"));
                // A cut before anything has left may be told in words.
                let response = connection.send(request).await.unwrap();
                if response.status() == StatusCode::OK {
                    let (came, end) = drain(response.into_body()).await;
                    assert!(came <= count && end.is_err(), "{path} {count}: {came} {end:?}");
                } else {
                    assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{path} {count}");
                }
            }
        }
    }
    // On the wire: neither the last chunk nor as many bytes as were announced.
    for path in ["cut/1000", "cut-chunked/1000"] {
        let head = format!(
            "GET /clusters/east/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\n\r\n"
        );
        let answer = house.raw(head.as_bytes()).await;
        assert!(!answer.ends_with("0\r\n\r\n") && answer.matches('x').count() <= 1010, "{answer}");
    }
}

#[tokio::test]
async fn f15_nor_does_one_whose_tunnel_was_cut() {
    let server = Server::start().await.unwrap();
    let upstream = Upstream::start().await.unwrap();
    let link = Link::to(server.tunnel).await.unwrap();
    let created = server.create("east").await.unwrap();
    let _agent = Agent::start(&created, link.address(), &upstream.url(), |_| {}).unwrap();
    let user = server.admin_client().unwrap();
    for path in ["bytes/1000000000", "ticks"] {
        for http2 in [false, true] {
            server.connected("east").await.unwrap();
            let mut connection = if http2 { user.connect_http2().await } else { user.connect().await }.unwrap();
            let response = connection.send(user.request(Method::GET, &format!("/clusters/east/{path}"))).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let mut body = response.into_body();
            body.frame().await.unwrap().unwrap();
            link.cut();
            let (came, end) = drain(body).await;
            assert!(end.is_err(), "{path}: {came} bytes and a clean end");
            until("it has ended upstream", async || upstream.running() == 0).await;
        }
    }
}

#[tokio::test]
async fn f15_an_upload_that_was_cut_never_looks_whole_upstream() {
    let house = House::new().await;
    let user = house.user(ALICE);
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
        let head = format!(
            "POST /clusters/east/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\n{framing}\r\n\r\n3e8\r\n{}\r\n",
            "x".repeat(1000)
        );
        let before = house.upstream.uploaded();
        socket.write_all(head.as_bytes()).await.unwrap();
        until("some of it has arrived", async || house.upstream.uploaded() >= before + 1000).await;
        // Half-closed, not gone: whatever the answer is, it must not be a success.
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        drop(tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await.unwrap());
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{framing}: {}", String::from_utf8_lossy(&answer));
        until("it has ended upstream", async || house.upstream.running() == 0).await;
    }
}

#[tokio::test]
async fn f12_whoever_hangs_up_ends_the_request_upstream() {
    let house = House::new().await;
    let user = house.user(ALICE);
    for path in ["stall", "ticks", "bytes/10000000000"] {
        let mut connection = user.connect_http2().await.unwrap();
        let response = connection.send(user.request(Method::GET, &format!("/clusters/east/{path}"))).await.unwrap();
        assert_eq!(house.upstream.running(), 1, "{path}");
        drop(response);
        until(path, async || house.upstream.running() == 0).await;
    }
    // After the head of an answer and before it, and in the middle of an upload.
    for (path, body) in [("stall", ""), ("ticks", ""), ("hang", ""), ("upload", "Content-Length: 100\r\n")] {
        let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
        let head =
            format!("POST /clusters/east/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\n{body}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        until("it runs", async || house.upstream.running() == 1).await;
        drop(socket);
        until(path, async || house.upstream.running() == 0).await;
    }
}

#[tokio::test]
async fn f12_an_upload_that_nobody_reads_ends_with_its_user() {
    let house = House::new().await;
    let user = house.user(ALICE);
    let mut connection = user.connect_http2().await.unwrap();
    let piece = bytes::Bytes::from(vec![0; 256 * 1024]);
    let endless = futures_util::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
    let body = http_body_util::BodyExt::boxed(StreamBody::new(endless));
    let request = user.request(Method::POST, "/clusters/east/hang").map(|_| body);
    let mut sending = Box::pin(connection.send(request));
    tokio::select! {
        answered = &mut sending => panic!("somebody answered: {answered:?}"),
        () = until("it runs", async || house.upstream.running() == 1) => {}
    }
    // What is on the way fills meanwhile.
    let waiting = tokio::time::timeout(Duration::from_secs(2), sending).await;
    assert!(waiting.is_err(), "somebody answered");
    assert_eq!(house.upstream.running(), 1);
    drop(connection);
    // The kube-apiserver itself hears of it when it next reads.
    until("the server is done", async || {
        house.server.metric("moorline_gateway_requests_running", &[]).await.unwrap() == 0.0
    })
    .await;
    until("the agent is done", async || {
        house.agent.metric("moorline_agent_requests_running", &[]).await.unwrap() == 0.0
    })
    .await;
}

#[tokio::test]
async fn f12_five_hundred_cancelled_watches_leave_nothing_behind() {
    let house = House::new().await;
    let user = house.user(ALICE);
    let tasks = house.server.metric("moorline_tasks", &[]).await.unwrap();
    for round in 0..50 {
        let mut http2 = user.connect_http2().await.unwrap();
        let mut held = Vec::new();
        for number in 0..10 {
            let request = user.request(Method::GET, "/clusters/east/ticks?watch=true&follow=true");
            let response = if (round + number) % 2 == 0 { http2.send(request).await } else { user.send(request).await };
            held.push(response.unwrap().into_body());
        }
        for body in &mut held {
            assert!(body.frame().await.unwrap().is_ok());
        }
    }
    house.at_rest(tasks).await;
}

#[tokio::test]
async fn f38_a_long_link_carries_more_than_a_fixed_window_would() {
    const SIZE: u64 = 16 * MIB;
    // So long that the waits decide, and not how fast the machine is.
    const ROUND_TRIP: Duration = Duration::from_millis(400);
    /// What yamux would let pass: its default of 256 KiB for each round trip. 640 KiB/s.
    const FIXED: Duration = Duration::from_millis(400 * (SIZE / (256 * 1024)));
    let server = Server::start_with(|raw| raw.heartbeat_interval = Some("2s".to_owned())).await.unwrap();
    let upstream = Upstream::start().await.unwrap();
    let link = Link::to(server.tunnel).await.unwrap();
    // Before the agent dials: windows grow by the round trip that a session has measured, at its start at first.
    link.set_round_trip(ROUND_TRIP);
    let created = server.create("east").await.unwrap();
    let _agent = Agent::start(&created, link.address(), &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    let user = server.admin_client().unwrap();
    let begun = Instant::now();
    let response = user.send(user.request(Method::GET, &format!("/clusters/east/bytes/{SIZE}"))).await.unwrap();
    let (came, end) = drain(response.into_body()).await;
    assert!(came == SIZE && end.is_ok(), "{came} {end:?}");
    println!("down at {ROUND_TRIP:?}: {:.1} MiB/s", rate(SIZE, begun));
    // Far below what it does on an idle machine, and out of reach for a window that does not grow.
    assert!(begun.elapsed() < FIXED * 2 / 3, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let answer = user.ask(user.request_with(Method::POST, "/clusters/east/upload", zeroes(SIZE))).await.unwrap();
    assert_eq!(answer.body, SIZE.to_string());
    println!("up at {ROUND_TRIP:?}: {:.1} MiB/s", rate(SIZE, begun));
    assert!(begun.elapsed() < FIXED * 2 / 3, "{:?}", begun.elapsed());
}

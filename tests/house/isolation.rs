//! Whoever reads slowly, or not at all, delays nobody else and holds bounded memory.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_mtls::ClientStream;
use moorline_testkit::client::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::people::{ADMIN, ALICE, House};
use super::streaming::{alone, idle_memory, within};

/// A body that nobody could hold.
const ENDLESS: &str = "/clusters/east/bytes/100000000000";

/// Asks for a body without end, sees it begin, and reads no more.
async fn stalled(user: &Client) -> ClientStream<TcpStream> {
    let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!("GET {ENDLESS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    socket.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    socket
}

/// A hundred small requests, ten at a time; each must be answered in full.
async fn small_requests(user: &Client) {
    let mut running = JoinSet::new();
    for _ in 0..10 {
        let user = user.clone();
        running.spawn(async move {
            let mut connection = user.connect().await.unwrap();
            for _ in 0..10 {
                let response = connection.send(user.request(Method::GET, "/clusters/east/api/v1/pods")).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), r#"{"kind":"Scripted"}"#);
            }
        });
    }
    running.join_all().await;
}

/// 64 MiB in one piece of work.
async fn bulk(user: &Client) {
    let mut left = 64 << 20;
    let mut body =
        user.send(user.request(Method::GET, &format!("/clusters/east/bytes/{left}"))).await.unwrap().into_body();
    while let Some(frame) = body.frame().await {
        left -= frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn f01_a_reader_that_stops_delays_nobody() {
    let house = House::new().await;
    let (user, admin) = (house.user(ALICE), house.user(ADMIN));
    let _one = stalled(&user).await;
    let http2 = user.connect_http2().await.unwrap().send(user.request(Method::GET, ENDLESS)).await.unwrap();
    small_requests(&user).await;
    bulk(&user).await;
    tokio::join!(bulk(&user), small_requests(&user), small_requests(&admin));
    assert_eq!(house.upstream.running(), 2, "the readers that stopped are still there");
    drop(http2);
}

#[tokio::test]
async fn f01_a_stalled_stream_does_not_hold_its_own_connection() {
    let house = House::new().await;
    let user = house.user(ALICE);
    let mut connection = user.connect_http2().await.unwrap();
    let held = connection.send(user.request(Method::GET, ENDLESS)).await.unwrap();
    for _ in 0..100 {
        let response = connection.send(user.request(Method::GET, "/clusters/east/api/v1/pods")).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), r#"{"kind":"Scripted"}"#);
    }
    drop(held);
}

#[tokio::test]
async fn f02_two_hundred_stalled_readers_hold_bounded_memory() {
    alone("isolation::stalled_readers").await;
}

#[tokio::test]
#[ignore = "measures the process that it runs in; run by the test above"]
async fn stalled_readers() {
    // Measured at 1.5 MiB a reader, server, agent, kube-apiserver and user together: most of it are the HTTP buffers
    // that the largest heads need.
    const READERS: u64 = 200;
    const EACH: u64 = 2 << 20;
    const BUDGET: f64 = 32.0 * 1024.0 * 1024.0;
    let house = House::with("", |raw| raw.memory_budget = Some("32MiB".to_owned())).await;
    let (user, admin) = (house.user(ALICE), house.user(ADMIN));
    small_requests(&user).await;
    let idle = idle_memory();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(stalled(&user).await);
    }
    tokio::join!(bulk(&user), small_requests(&user), small_requests(&admin));
    small_requests(&user).await;
    let unread = house.server.metric("moorline_tunnel_unread_bytes", &[]).await.unwrap();
    let shed = house.server.metric("moorline_tunnel_streams_shed_total", &[]).await.unwrap();
    println!("unread: {unread}, shed: {shed}, running upstream: {}", house.upstream.running());
    assert!(unread <= BUDGET, "{unread}");
    within("200 stalled readers", idle, READERS * EACH);
    drop(readers);
    super::people::until("all have ended upstream", async || house.upstream.running() == 0).await;
    super::people::until("nothing is held", async || {
        house.server.metric("moorline_tunnel_unread_bytes", &[]).await.unwrap() == 0.0
    })
    .await;
}

#[tokio::test]
async fn f01_uploads_that_stall_delay_nobody() {
    let house = House::new().await;
    let user = house.user(ALICE);
    // A kube-apiserver that reads nothing, and users that send all the same.
    let mut senders = JoinSet::new();
    for _ in 0..5 {
        let user = user.clone();
        senders.spawn(async move {
            let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
            let head = format!("POST /clusters/east/hang HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\nContent-Length: 1000000000\r\n\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            let block = vec![0; 1 << 20];
            while socket.write_all(&block).await.is_ok() {}
        });
    }
    super::people::until("all hang", async || house.upstream.running() == 5).await;
    tokio::join!(bulk(&user), small_requests(&user));
    senders.abort_all();
}

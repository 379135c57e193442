//! What users do through the server to clusters whose agent speaks Guardian's dialect.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_mtls::ClientStream;
use moorline_testkit::client::{LIMIT, full};
use moorline_testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::house::House;
use crate::peer::{pattern, within};

/// A request for an upgrade; gives the connection and the head of the answer.
pub(crate) async fn upgrade(house: &House, path: &str, early: &[u8]) -> (ClientStream<TcpStream>, String) {
    let token = house.user.request(Method::GET, "/").headers()["authorization"].to_str().unwrap().to_owned();
    let mut socket = house.user.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), early].concat()).await.unwrap();
    // Where many are under way in one task, a write may be kept back.
    socket.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(socket.read_u8()).await.unwrap());
    }
    (socket, String::from_utf8(head).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_as_the_user_and_say_nothing_else() {
    let house = House::start().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    let mut request = house.user.request(Method::GET, "/clusters/east/api/v1/pods?limit=3");
    for name in ["x-remote-user", "x-moorline-identity", "x-forwarded-host"] {
        request.headers_mut().insert(name, "root".parse().unwrap());
    }
    let answer = house.user.ask(request).await.unwrap();
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    assert!(!answer.headers.contains_key("strict-transport-security"), "{:?}", answer.headers);
    let seen = house.upstream.seen("/api/v1/pods");
    let [seen] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(seen.values("impersonate-user"), ["admin"]);
    assert_eq!(seen.values("impersonate-group"), ["moorline:admins", "system:authenticated"]);
    assert_eq!(seen.values("authorization"), ["Bearer the-agent's-own-token"]);
    assert_eq!(seen.values("x-forwarded-host"), [""]);
    let strange = ["x-moorline-", "x-remote-"];
    let leaked = seen.headers.keys().find(|name| strange.iter().any(|start| name.as_str().starts_with(start)));
    assert_eq!(leaked, None);
    // Acting as somebody takes a right of the policy, and that somebody's own rights.
    let mut request = house.user.request(Method::GET, "/clusters/east/api/v1/secrets");
    request.headers_mut().insert("impersonate-user", "root".parse().unwrap());
    assert_eq!(house.user.ask(request).await.unwrap().code, StatusCode::FORBIDDEN);
    assert!(house.upstream.seen("/api/v1/secrets").is_empty());
    // Two hundred at once do not take two hundred streams.
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let user = house.user.clone();
        asking.spawn(async move { user.get("/clusters/east/api/v1/watch/bytes/1000").await.unwrap().body.len() });
    }
    assert!(asking.join_all().await.iter().all(|length| *length == 1000));
    let streams = guardian.stand_in.command("streams").await.unwrap();
    let down: usize = streams.split(['=', ' ']).nth(1).unwrap().parse().unwrap();
    assert!(down <= 40, "{streams}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_stream_both_ways() {
    let house = House::start().await;
    let Some(_guardian) = house.guardian("east", |_| {}).await else { return };
    let large = house.user.get("/clusters/east/api/v1/watch/bytes/67108864").await.unwrap();
    assert_eq!(large.body.len(), 64 << 20);
    let upload = house.user.request_with(Method::POST, "/clusters/east/api/v1/watch/upload", full(pattern(20 << 20)));
    assert_eq!(house.user.ask(upload).await.unwrap().body, (20 << 20).to_string());
    // A watch is seen as it happens, and is over upstream as soon as its user is gone.
    let watch = house.user.request(Method::GET, "/clusters/east/api/v1/watch/ticks");
    let mut ticks = house.user.send(watch).await.unwrap().into_body();
    for _ in 0..3 {
        within(ticks.frame()).await.unwrap().unwrap();
    }
    assert_eq!(house.upstream.running(), 1);
    drop(ticks);
    eventually(LIMIT, async || (house.upstream.running() == 0).then_some(())).await.unwrap();
    // An answer that breaks off is no whole answer.
    let cut = house.user.request(Method::GET, "/clusters/east/api/v1/watch/cut/100000");
    if let Ok(answer) = house.user.send(cut).await {
        assert!(answer.status() != StatusCode::OK || within(answer.into_body().collect()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_do_not_read_hold_up_nobody() {
    let house = House::start().await;
    let Some(_guardian) = house.guardian("east", |_| {}).await else { return };
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let request = house.user.request(Method::GET, "/clusters/east/api/v1/watch/bytes/1073741824");
        let mut body = house.user.send(request).await.unwrap().into_body();
        within(body.frame()).await.unwrap().unwrap();
        stalled.push(body);
    }
    for _ in 0..20 {
        let answer = house.user.get("/clusters/east/api/v1/watch/bytes/100000").await.unwrap();
        assert_eq!(answer.body.len(), 100_000);
    }
    drop(stalled);
    eventually(LIMIT, async || (house.upstream.running() == 0).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_connections_carry_every_byte() {
    let house = House::start().await;
    let Some(_guardian) = house.guardian("east", |_| {}).await else { return };
    let path = "/clusters/east/api/v1/watch/echo";
    for early in [0, 1, 5_000] {
        let early = pattern(early);
        let (socket, head) = upgrade(&house, path, &early).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let sent = pattern(8 << 20);
        let (mut read, mut write) = tokio::io::split(socket);
        let mut came = vec![0; early.len() + sent.len()];
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.flush().await.unwrap();
        };
        within(async { tokio::join!(sending, read.read_exact(&mut came)) }).await.1.unwrap();
        assert!(came == [early, sent].concat());
        assert_eq!(house.upstream.running(), 1);
        write.shutdown().await.unwrap();
        drop((read, write));
        eventually(LIMIT, async || (house.upstream.running() == 0).then_some(())).await.unwrap();
    }
    let (mut socket, head) = upgrade(&house, "/clusters/east/api/v1/watch/refuse-upgrade", b"").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let refusal = b"no upgrade for you, and this is why";
    let mut body = [0; 35];
    within(socket.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, refusal);
}

/// As many as Guardian accepts at once, each on a stream of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_switched_connections_at_once() {
    const MANY: usize = 900;
    let house = House::start_with(|raw| {
        raw.max_requests_per_user = Some(2000);
        raw.max_requests_per_cluster = Some(2000);
        raw.max_streams = Some(1100);
        raw.user_qps = Some(10_000);
        raw.user_burst = Some(10_000);
        raw.cluster_qps = Some(10_000);
        raw.cluster_burst = Some(10_000);
    })
    .await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    let mut opening = futures_util::stream::FuturesUnordered::new();
    let mut sockets = Vec::new();
    for number in 0..MANY {
        opening.push(upgrade(&house, "/clusters/east/api/v1/watch/echo", b""));
        if opening.len() == 50 || number + 1 == MANY {
            while let Some((socket, head)) = futures_util::StreamExt::next(&mut opening).await {
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                sockets.push(socket);
            }
        }
    }
    assert_eq!(house.upstream.running(), MANY);
    assert!(guardian.stand_in.command("streams").await.unwrap().starts_with("down=9"));
    for socket in &mut sockets {
        socket.write_all(b"hello").await.unwrap();
        socket.flush().await.unwrap();
    }
    for socket in &mut sockets {
        let mut got = [0; 5];
        within(socket.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"hello");
    }
    // Requests go on beside them.
    assert_eq!(house.user.get("/clusters/east/api/v1").await.unwrap().code, StatusCode::OK);
    drop(sockets);
    let ended = async || (house.upstream.running() == 0).then_some(());
    eventually(LIMIT + Duration::from_secs(30), ended).await.unwrap();
    house.metric_is("moorline_gateway_upgraded", &[], |value| value == 0.0).await;
}

/// Without services nothing is reached the other way, and a thousand who try at once hurt nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_the_other_way_reach_nothing() {
    let house = House::patient(|_| {}).await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    for _ in 0..3 {
        let ends = guardian.stand_in.command("open 1000 hello").await.unwrap();
        assert!(!ends.contains("session") && !ends.contains("answered"), "{ends}");
    }
    let streams = guardian.stand_in.command("streams").await.unwrap();
    assert!(streams.contains("up=0"), "{streams}");
    assert_eq!(house.user.get("/clusters/east/api/v1").await.unwrap().code, StatusCode::OK);
    assert_eq!(house.server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap(), 1.0);
}

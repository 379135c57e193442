//! The demo API as a client sees it: plain HTTP and WebSocket clients, on real loopback sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use moorline_demo::{Demo, Pace};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_util::sync::CancellationToken;

/// Nothing here takes longer than this unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` against a demo that lives fast, and checks that the demo ends when told to.
async fn with_demo<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
    let pace = Pace { step: Duration::from_millis(50), bookmarks_every: Duration::from_millis(80) };
    let demo = Demo::bind().await.unwrap().with_pace(pace);
    let addr = demo.addr();
    let stop = CancellationToken::new();
    let both = async {
        let run = demo.run(stop.cancelled());
        let testing = async {
            test(addr).await;
            stop.cancel();
        };
        tokio::join!(run, testing);
    };
    tokio::time::timeout(PATIENCE, both).await.expect("the test and the demo end in time");
}

async fn send(addr: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "demo").header("impersonate-user", "ada")
}

async fn body(response: Response<Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn fetch(addr: SocketAddr, path: &str) -> (StatusCode, Value) {
    let response = send(addr, get(path).body(Full::default()).unwrap()).await;
    (response.status(), body(response).await)
}

/// Reads whole lines of an endless answer until `wanted` says that it has seen enough.
async fn lines_until(response: Response<Incoming>, mut enough: impl FnMut(&str) -> bool) {
    let mut frames = response.into_body().into_data_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = frames.next().await {
        buffer.extend_from_slice(&chunk.unwrap());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if enough(std::str::from_utf8(&line).unwrap().trim_end()) {
                return;
            }
        }
    }
    panic!("the answer ended too early");
}

#[tokio::test]
async fn only_impersonated_requests_are_answered() {
    with_demo(async |addr| {
        for (path, open) in [
            ("/version", true),
            ("/readyz", true),
            ("/api/v1/namespaces/kube-system", true),
            ("/api/v1/namespaces", false),
            ("/api", false),
            ("/nowhere", false),
        ] {
            let request = Request::get(path).header("host", "demo").body(Full::default()).unwrap();
            let status = send(addr, request).await.status();
            assert_eq!(status, if open { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{path}");
        }
        let (status, refused) = fetch(addr, "/nowhere").await;
        assert_eq!((status.as_u16(), &refused["reason"]), (404, &Value::from("NotFound")));
    })
    .await;
}

#[tokio::test]
async fn whoami_shows_who_the_request_arrived_as() {
    with_demo(async |addr| {
        for (content_type, body_bytes) in
            [("application/json", &b"{}"[..]), ("application/vnd.kubernetes.protobuf", b"k8s\0...")]
        {
            let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
                .header("host", "demo")
                .header("content-type", content_type)
                .header("impersonate-user", "ada")
                .header("impersonate-group", "dev")
                .body(Full::from(Bytes::from_static(body_bytes)))
                .unwrap();
            let response = send(addr, request).await;
            assert_eq!(response.status(), StatusCode::CREATED);
            let review = body(response).await;
            assert_eq!(review["status"]["userInfo"]["username"], "ada");
            assert_eq!(review["status"]["userInfo"]["groups"][0], "dev");
        }
    })
    .await;
}

#[tokio::test]
async fn lists_come_plain_and_as_tables_and_say_that_they_are_a_demo() {
    with_demo(async |addr| {
        let (_, pods) = fetch(addr, "/api/v1/namespaces/demo/pods").await;
        assert_eq!(pods["kind"], "PodList");
        assert_eq!(pods["items"][0]["metadata"]["name"], "echo");
        assert!(pods["items"][0]["metadata"]["annotations"][moorline_demo::ANNOTATION].is_string());
        let (_, version) = fetch(addr, "/version").await;
        assert_eq!(version["gitVersion"], moorline_demo::VERSION);
        let request = get("/api/v1/namespaces/demo/pods")
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
            .body(Full::default())
            .unwrap();
        let table = body(send(addr, request).await).await;
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], ["echo", "1/1", "Running"]);
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_of_a_whole_life_and_marks_its_place() {
    with_demo(async |addr| {
        let (_, list) = fetch(addr, "/api/v1/namespaces/default/pods").await;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!(
            "/api/v1/namespaces/default/pods?watch=true&allowWatchBookmarks=true&resourceVersion={version}\
             &labelSelector=app%3Dcomes-and-goes"
        );
        let mut seen = Vec::new();
        let mut last = version.parse::<u64>().unwrap();
        lines_until(send(addr, get(&path).body(Full::default()).unwrap()).await, |line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(version >= last, "versions only grow");
            last = version;
            seen.push(event["type"].as_str().unwrap().to_owned());
            ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"].iter().all(|what| seen.iter().any(|seen| seen == what))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_long_ago_is_told_to_list_again() {
    with_demo(async |addr| {
        let request = get("/api/v1/pods?watch=1&resourceVersion=1").body(Full::default()).unwrap();
        lines_until(send(addr, request).await, |line| {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&event["type"], &event["object"]["code"]), (&Value::from("ERROR"), &Value::from(410)));
            true
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_streaming_list_ends_its_first_part_with_a_mark() {
    with_demo(async |addr| {
        let path = "/api/v1/namespaces?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
                    &resourceVersionMatch=NotOlderThan";
        let mut names = Vec::new();
        lines_until(send(addr, get(path).body(Full::default()).unwrap()).await, |line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let metadata = &event["object"]["metadata"];
            names.push(metadata["name"].as_str().unwrap_or_default().to_owned());
            metadata["annotations"]["k8s.io/initial-events-end"] == "true"
        })
        .await;
        assert_eq!(names, ["default", "demo", "kube-system", ""]);
    })
    .await;
}

#[tokio::test]
async fn logs_are_followed_line_by_line() {
    with_demo(async |addr| {
        let path = "/api/v1/namespaces/demo/pods/echo/log?follow=true&timestamps=true";
        let mut next = 0;
        lines_until(send(addr, get(path).body(Full::default()).unwrap()).await, |line| {
            let (time, text) = line.split_once(' ').unwrap();
            assert!(time.ends_with('Z'), "{line}");
            assert!(text.starts_with(&format!("tick {next}: ")) && text.contains("demo"), "{line}");
            next += 1;
            next == 3
        })
        .await;
        let (status, _) = fetch(addr, "/api/v1/namespaces/demo/pods/echo/log?tailLines=many").await;
        assert_eq!(status, 400);
    })
    .await;
}

/// Runs a command over WebSocket: standard output and the status of the error channel.
async fn exec(addr: SocketAddr, protocol: &'static str, query: &str, input: &[u8]) -> (Vec<u8>, Value) {
    let mut request =
        format!("ws://{addr}/api/v1/namespaces/demo/pods/echo/exec?{query}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    request.headers_mut().insert("impersonate-user", HeaderValue::from_static("ada"));
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    for chunk in input.chunks(1000) {
        socket.send(Message::binary([&[0], chunk].concat())).await.unwrap();
    }
    if protocol.starts_with("v5") {
        socket.send(Message::binary(vec![255, 0])).await.unwrap();
    }
    let (mut stdout, mut status) = (Vec::new(), Value::Null);
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(message) => match message[0] {
                1 => stdout.extend_from_slice(&message[1..]),
                3 => status = serde_json::from_slice(&message[1..]).unwrap(),
                _other => {}
            },
            Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            Message::Ping(_) => {}
            Message::Text(_) | Message::Pong(_) | Message::Frame(_) => panic!("not a message of this protocol"),
        }
    }
    (stdout, status)
}

#[tokio::test]
async fn exec_echoes_over_both_websocket_protocols() {
    with_demo(async |addr| {
        for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
            let (stdout, status) = exec(addr, protocol, "command=echo&command=hello&stdout=true", b"").await;
            assert_eq!((stdout.as_slice(), &status["status"]), (&b"hello\n"[..], &Value::from("Success")));
            let (_, status) = exec(addr, protocol, "command=false&stdout=true", b"").await;
            assert_eq!(status["details"]["causes"][0]["message"], "1");
        }
        let input: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (stdout, _) = exec(addr, "v5.channel.k8s.io", "command=cat&stdin=true&stdout=true", &input).await;
        assert!(stdout == input, "cat gives back {} of {} bytes", stdout.len(), input.len());
        let (stdout, _) = exec(addr, "v5.channel.k8s.io", "command=sh&stdin=true&stdout=true", b"whoami\nexit\n").await;
        assert_eq!(stdout, b"ada\n");
    })
    .await;
}

#[tokio::test]
async fn exec_without_a_websocket_is_told_why_not() {
    with_demo(async |addr| {
        for (upgrade, told) in [(Some("SPDY/3.1"), "not SPDY"), (None, "Upgrade request required")] {
            let mut request = Request::post("/api/v1/namespaces/demo/pods/echo/exec?command=sh")
                .header("host", "demo")
                .header("impersonate-user", "ada");
            if let Some(upgrade) = upgrade {
                request = request.header("connection", "Upgrade").header("upgrade", upgrade);
            }
            let response = send(addr, request.body(Full::default()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            let status = body(response).await;
            assert!(status["message"].as_str().unwrap().contains(told), "{status}");
        }
    })
    .await;
}

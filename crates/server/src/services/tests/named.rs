//! The entrance of our own agent: by name, over a stream that is switched.

use std::time::Duration;

use moorline_model::{Reason, Status};
use moorline_mux::Stream;
use moorline_process::{Plan, Tasks};
use moorline_testkit::Refusing;
use moorline_wire::services::{PROTOCOL, path};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::{LIMIT, Rig, accept, echo, listen, rest};
use crate::audit::Mode;

fn pass(address: std::net::SocketAddr) -> String {
    format!(
        "- {{name: logs, clusters: [east], upstream: '{address}', mode: PassThrough}}\n- {{name: others, clusters: [west], \
         upstream: '{address}', mode: PassThrough}}\n"
    )
}

/// Asks for a service, and reads the head of the answer.
pub(super) async fn ask(rig: &Rig, name: &str) -> (u16, String, Stream) {
    let path = path(&name.parse().unwrap());
    let head = format!("POST {path} HTTP/1.1\r\nhost: moorline\r\nconnection: Upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n");
    ask_so(rig, &head).await
}

async fn ask_so(rig: &Rig, request: &str) -> (u16, String, Stream) {
    let mut stream = rig.agent.open().await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head_of(&mut stream).await;
    (head[9..12].parse().unwrap(), head, stream)
}

async fn head_of(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("an answer");
    String::from_utf8(head).unwrap()
}

/// The body of a refusal; the stream is reset behind it.
async fn status(stream: &mut Stream) -> Status {
    let mut body = Vec::new();
    let reading = tokio::time::timeout(LIMIT, stream.read_to_end(&mut body)).await;
    drop(reading.expect("an end"));
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_service_is_reached_by_its_name_and_half_of_it_may_end() {
    let mut rig = Rig::new(&pass(echo().await));
    let (code, head, mut stream) = ask(&rig, "logs").await;
    assert_eq!(code, 101, "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: moorline-service/1\r\n"), "{head}");
    let sent = vec![3; 500_000];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let ((), back) = tokio::join!(writing, rest(&mut read));
    assert_eq!(back.unwrap(), sent);
    drop(stream);
    rig.metric_is("moorline_service_streams", 0).await;
    assert_eq!(rig.metric("moorline_service_bytes_total{direction=\"up\"}"), 500_000);
    let last = rig.book.events().pop().unwrap();
    assert_eq!((&last["verb"], &last["responseStatus"]["code"]), (&"connect".into(), &101.into()));
    assert_eq!(last["annotations"]["moorline.io/bytes-sent"], "500000");
}

#[tokio::test]
async fn a_cluster_does_not_learn_of_what_is_for_others() {
    let rig = Rig::new(&pass(echo().await));
    let mut told = Vec::new();
    for name in ["none", "others"] {
        let (code, head, mut stream) = ask(&rig, name).await;
        assert_eq!(code, 404);
        let head: Vec<String> = head.lines().filter(|line| !line.starts_with("date")).map(str::to_owned).collect();
        told.push((head, status(&mut stream).await));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].1.reason, Reason::NotFound);
    for reason in ["unknown-name", "forbidden"] {
        assert_eq!(rig.metric(&format!("moorline_service_refused_total{{reason=\"{reason}\"}}")), 1);
    }
    // Neither does one learn of a name that none can have.
    let request =
        format!("POST /v1/services/a%2fb HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n");
    assert_eq!(ask_so(&rig, &request).await.0, 404);
}

#[tokio::test]
async fn who_asks_otherwise_is_told_how() {
    let rig = Rig::new(&pass(echo().await));
    for request in [
        "POST /v1/services/logs HTTP/1.1\r\nhost: m\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("GET /v1/services/logs HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n"),
        "POST /v1/services/logs HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
        format!("POST /v1/services/logs HTTP/1.1\r\nhost: m\r\nupgrade: {PROTOCOL}\r\n\r\n"),
    ] {
        let (code, _, mut stream) = ask_so(&rig, &request).await;
        assert_eq!(code, 400, "{request}");
        assert!(status(&mut stream).await.message.contains("POST"));
    }
}

#[tokio::test]
async fn f11_dead_slow_and_full_services_have_their_codes() {
    let nobody = Refusing::bind().unwrap();
    let dead = nobody.address();
    let (silent, silent_address) = listen().await;
    let table = format!(
        "- {{name: dead, clusters: [east], upstream: '{dead}', mode: PassThrough}}\n- {{name: full, clusters: [east], \
         upstream: '{silent_address}', mode: PassThrough, maxConnections: 1}}\n- {{name: gone, clusters: [east], \
         upstream: 'moorline-nowhere.invalid:1', mode: PassThrough}}\n"
    );
    let rig = Rig::new(&table);
    let (code, _, mut stream) = ask(&rig, "dead").await;
    assert_eq!((code, status(&mut stream).await.message.as_str()), (502, "the service cannot be reached"));
    assert!(matches!(ask(&rig, "gone").await.0, 502 | 504), "an unknown name of an upstream");
    let (code, _, held) = ask(&rig, "full").await;
    assert_eq!(code, 101);
    let (code, head, mut stream) = ask(&rig, "full").await;
    assert_eq!((code, status(&mut stream).await.reason), (429, Reason::TooManyRequests));
    assert!(head.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{head}");
    drop((held, silent));
}

#[tokio::test]
async fn streams_of_a_session_are_bounded_and_renewal_still_has_room() {
    let rig = Rig::with(&pass(echo().await), |settings| settings.services.max_streams = 2);
    let (_, _, first) = ask(&rig, "logs").await;
    let (_, _, second) = ask(&rig, "logs").await;
    let (code, _, mut stream) = ask(&rig, "logs").await;
    assert_eq!((code, status(&mut stream).await.reason), (429, Reason::TooManyRequests));
    let (code, ..) = ask_so(&rig, "POST /v1/renew HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_ne!(code, 429);
    drop((first, second));
}

/// Nobody writes anything down, and everybody is to wait for that.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_does_not_happen() {
    let (listener, address) = listen().await;
    let rig = Rig::with(&pass(address), |settings| settings.audit = Mode::Blocking);
    let (code, _, mut stream) = ask(&rig, "logs").await;
    assert_eq!((code, status(&mut stream).await.reason), (503, Reason::ServiceUnavailable));
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"unrecorded\"}"), 1);
    drop(listener);
}

#[tokio::test]
async fn at_the_end_nothing_new_begins_and_what_runs_finishes() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&pass(address));
    let (code, _, mut stream) = ask(&rig, "logs").await;
    assert_eq!(code, 101);
    let mut socket = accept(&listener).await;
    let Rig { state, shutdown, agent, guardian, book, metrics, .. } = rig;
    let phases = state.phases.clone();
    let tasks: Tasks = state.tasks.clone();
    let plan = Plan { notice: Duration::ZERO, go_away: Duration::ZERO, ..Plan::default() };
    let ending = tokio::spawn(async move { shutdown.run(plan, &tasks, std::future::pending()).await });
    phases.reached(moorline_process::Phase::Draining).await;
    let mut late = agent.open().await.unwrap();
    let head =
        format!("POST /v1/services/logs HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n");
    late.write_all(head.as_bytes()).await.unwrap();
    let answer = head_of(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    socket.write_all(b"to the end").await.unwrap();
    socket.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"to the end");
    drop((agent, guardian, book, metrics, stream, late));
    let outcome = tokio::time::timeout(LIMIT, ending).await.expect("the end").unwrap();
    assert_eq!(outcome.cut, 0);
}

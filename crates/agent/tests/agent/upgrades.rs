//! Switched connections: every byte, every end, and every refusal.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    bench::{Agent, eventually, within},
    hub::{Hub, QUIET, Session, request, text},
    upstream::Upstream,
};

type Raw = TokioIo<hyper::upgrade::Upgraded>;

async fn ask(session: &Session, path: &str, protocol: &'static str) -> Response<Incoming> {
    let mut asked = request("POST", path);
    asked.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    asked.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    let mut http = session.http().await;
    within(http.send_request(asked)).await.unwrap().unwrap()
}

async fn exec(session: &Session) -> Raw {
    let response = ask(session, "/exec", "SPDY/3.1").await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
    TokioIo::new(within(hyper::upgrade::on(response)).await.unwrap().unwrap())
}

async fn world() -> (Hub, Upstream, Agent, Session) {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let agent = Agent::start(&hub.raw(&upstream.url()));
    let session = hub.session(QUIET).await;
    (hub, upstream, agent, session)
}

#[tokio::test]
async fn bytes_pass_both_ways_and_half_closing_is_kept() {
    let (_hub, upstream, _agent, session) = world().await;
    let raw = exec(&session).await;
    let seen = upstream.heads("/exec").remove(0);
    assert_eq!(seen.headers["impersonate-user"], "ann");
    assert_eq!(seen.headers["authorization"], "Bearer the-agents-token");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| b'0' + u8::try_from(n % 10).unwrap()).collect();
    let (mut read, mut write) = tokio::io::split(raw);
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (ended, ()) = tokio::join!(within(read.read_to_end(&mut back)), sending);
    ended.unwrap().unwrap();
    drop((read, write));
    assert_eq!(back.len(), sent.len() + 4);
    assert!(back.starts_with(&sent) && back.ends_with(b"|bye"), "the answer to the end of input");
    eventually("the connection ends", || upstream.running() == 0).await;
    eventually("the stream ends", || session.handle.stats().streams_open_outbound == 0).await;
}

#[tokio::test]
async fn websockets_switch_and_their_bearer_tokens_stay_here() {
    let (_hub, upstream, _agent, session) = world().await;
    let mut asked = request("GET", "/exec");
    for (name, value) in [
        (header::CONNECTION, "keep-alive, Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
    ] {
        asked.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let mut http = session.http().await;
    let response = within(http.send_request(asked)).await.unwrap().unwrap();
    assert_eq!(response.status(), 101);
    let seen = upstream.heads("/exec").remove(0);
    assert_eq!(seen.headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
}

#[tokio::test]
async fn a_refused_upgrade_is_delivered_whole() {
    let (_hub, upstream, _agent, session) = world().await;
    let response = ask(&session, "/denied", "SPDY/3.1").await;
    assert_eq!(response.status(), 403);
    assert_eq!(text(response).await, "no exec for you, and this is why");
    eventually("nothing is left", || upstream.running() == 0).await;
}

#[tokio::test]
async fn an_upgrade_is_answered_in_time_or_not_at_all() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let mut raw = hub.raw(&upstream.url());
    raw.kube_response_timeout = Some("300ms".to_owned());
    let _agent = Agent::start(&raw);
    let session = hub.session(QUIET).await;
    let response = ask(&session, "/hang?watch=true", "SPDY/3.1").await;
    assert_eq!(response.status(), 504);
    eventually("nothing is left", || upstream.running() == 0).await;
}

#[tokio::test]
async fn no_other_protocol_is_switched_to() {
    let (_hub, upstream, _agent, session) = world().await;
    for protocol in ["h2c", "TLS/1.0", "websocket, h2c"] {
        assert_eq!(ask(&session, "/exec", protocol).await.status(), 200, "answered without switching");
    }
    assert!(upstream.heads("/exec").iter().all(|head| !head.headers.contains_key(header::UPGRADE)));
}

#[tokio::test]
async fn an_abrupt_end_is_passed_on_as_one() {
    let (_hub, _upstream, _agent, session) = world().await;
    let mut raw = exec(&session).await;
    raw.write_all(b"x").await.unwrap();
    let mut back = [0; 1];
    within(raw.read_exact(&mut back)).await.unwrap().unwrap();
    raw.write_all(b"!").await.unwrap();
    let mut rest = Vec::new();
    let ended = within(raw.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err(), "a reset must not read as an end: {rest:?}");
}

#[tokio::test]
async fn a_user_who_hangs_up_breaks_the_other_side() {
    let (_hub, upstream, _agent, session) = world().await;
    let mut raw = exec(&session).await;
    raw.write_all(b"x").await.unwrap();
    let mut back = [0; 1];
    within(raw.read_exact(&mut back)).await.unwrap().unwrap();
    drop(raw);
    eventually("the command is told", || upstream.running() == 0).await;
    assert_eq!(upstream.broken(), 1, "not as an end of input");
}

#[tokio::test]
async fn bytes_sent_right_behind_the_switch_are_not_lost() {
    let (_hub, _upstream, _agent, session) = world().await;
    let mut stream = session.stream().await;
    let identity = moorline_wire::write_identity(&crate::hub::ann());
    let head = format!(
        "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{}: {}\r\n\r\n",
        moorline_wire::headers::IDENTITY,
        identity.to_str().unwrap()
    );
    let eager = [Bytes::from(head).as_ref(), b"early"].concat();
    stream.write_all(&eager).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    within(stream.read_to_end(&mut back)).await.unwrap().unwrap();
    let back = String::from_utf8(back).unwrap();
    assert!(back.starts_with("HTTP/1.1 101") && back.ends_with("early|bye"), "{back}");
}

//! Programs of this cluster that reach services of the management cluster: over the tunnel, or not at all and at once.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use moorline_agent::RawConfig;
use moorline_mux::Stream;
use moorline_wire::{CloseReason, GoAway, Message, services};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    bench::{Agent, eventually, pause, spawn, within},
    hub::{Hub, QUIET, Session},
    upstream::Upstream,
};

const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: moorline-service/1\r\n\r\n";

/// Longer than a caller who is not told at once would wait.
const AT_ONCE: Duration = Duration::from_secs(4);

struct World {
    hub: Hub,
    _upstream: Upstream,
    agent: Agent,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let (hub, upstream) = (Hub::start().await, Upstream::start().await);
        let mut raw = hub.raw(&upstream.url());
        raw.services = vec!["store=127.0.0.1:0".to_owned()];
        raw.http_services = vec!["logs=127.0.0.1:0".to_owned()];
        change(&mut raw);
        let agent = Agent::start(&raw);
        Self { hub, _upstream: upstream, agent }
    }

    async fn session(&self) -> Session {
        let session = self.hub.session(QUIET).await;
        self.agent.says("[+]tunnel ok").await;
        session
    }

    async fn call(&self, service: &str) -> TcpStream {
        TcpStream::connect(self.agent.service(service)).await.unwrap()
    }

    async fn metric(&self, line: &str) {
        let mut page = String::new();
        let found = within(async {
            loop {
                page = self.agent.page("/metrics").await;
                if page.contains(line) {
                    return;
                }
                pause().await;
            }
        });
        if found.await.is_none() {
            let ours: Vec<_> = page.lines().filter(|line| line.contains("service")).collect();
            panic!("no {line} in {ours:#?}");
        }
    }
}

/// The head of what the agent asks for on a stream.
async fn head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.expect("no head in time").unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// The next stream, switched.
async fn switched(session: &mut Session) -> Stream {
    let mut stream = session.opened().await;
    head(&mut stream).await;
    stream.write_all(SWITCHED).await.unwrap();
    stream
}

async fn refuse(session: &mut Session, code: u16, more: &str) {
    let mut stream = session.opened().await;
    head(&mut stream).await;
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"the hub says no","reason":"NotFound","code":{code}{more}}}"#
    );
    let answer =
        format!("HTTP/1.1 {code} No\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    drop(within(stream.read_to_end(&mut rest)).await);
}

async fn to_end(caller: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    within(caller.read_to_string(&mut text)).await.expect("the connection does not end").map(|_| text)
}

async fn is_reset(mut caller: TcpStream) {
    let ended = tokio::time::timeout(AT_ONCE, caller.read_u8()).await.expect("the caller is left waiting");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset, "not as an end of input");
}

async fn get(address: SocketAddr) -> String {
    let mut caller = TcpStream::connect(address).await.unwrap();
    caller.write_all(b"GET /x HTTP/1.1\r\nhost: logs\r\n\r\n").await.unwrap();
    to_end(&mut caller).await.unwrap()
}

#[tokio::test]
async fn a_connection_goes_to_its_service_byte_for_byte_and_half_closing_is_kept() {
    let world = World::new().await;
    let mut session = world.session().await;
    for service in ["store", "logs"] {
        let mut caller = world.call(service).await;
        caller.write_all(b"GET /_all HTTP/1.1\r\nx-cluster-id: other\r\n\r\n").await.unwrap();
        let mut stream = session.opened().await;
        let head = head(&mut stream).await;
        assert!(head.starts_with(&format!("post /v1/services/{service} http/1.1\r\n")), "{head}");
        assert!(head.contains("upgrade: moorline-service/1\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        assert_eq!(head.lines().filter(|line| !line.is_empty()).count(), 4, "nothing of the caller: {head}");
        stream.write_all(&[SWITCHED, b"early"].concat()).await.unwrap();
        let mut seen = [0; 40];
        within(stream.read_exact(&mut seen)).await.unwrap().unwrap();
        assert_eq!(&seen, b"GET /_all HTTP/1.1\r\nx-cluster-id: other\r", "as it was sent");
        caller.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, b"\n\r\n", "the end of one direction is passed on");
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| b'0' + u8::try_from(n % 10).unwrap()).collect();
        let sending = async {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (back, ()) = tokio::join!(to_end(&mut caller), sending);
        let back = back.unwrap();
        assert!(back.starts_with("early") && back.as_bytes()[5..] == sent, "and the other goes on");
        world.metric(&format!("agent_service_connections_total{{service=\"{service}\",result=\"ok\"}} 1")).await;
        world.metric(&format!("agent_service_bytes_total{{service=\"{service}\",direction=\"down\"}} 2000005")).await;
        world.metric(&format!("agent_service_running{{service=\"{service}\"}} 0")).await;
    }
    eventually("no stream is left", || session.handle.stats().streams_open_inbound <= 1).await;
}

#[tokio::test]
async fn while_disconnected_callers_are_told_at_once() {
    let world = World::new().await;
    is_reset(world.call("store").await).await;
    let answer = tokio::time::timeout(AT_ONCE, get(world.agent.service("logs"))).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.to_lowercase().contains("retry-after: "), "{head}");
    let status: moorline_model::Status = serde_json::from_str(body).unwrap();
    assert_eq!(status.code, 503);
    assert!(status.message.contains("no session with the management cluster"), "{}", status.message);
    world.metric("agent_service_connections_total{service=\"store\",result=\"no-session\"} 1").await;
    let session = world.session().await;
    session.handle.close(moorline_mux::CloseReason::Local("test"));
    world.agent.says("[-]tunnel failed").await;
    is_reset(world.call("store").await).await;
}

#[tokio::test]
async fn the_answer_arrives_also_where_a_body_was_still_being_sent() {
    let world = World::new().await;
    let mut caller = world.call("logs").await;
    caller.write_all(b"POST /bulk HTTP/1.1\r\nhost: logs\r\ncontent-length: 600000\r\n\r\n").await.unwrap();
    caller.write_all(&vec![b'x'; 600_000]).await.unwrap();
    let answer = to_end(&mut caller).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn who_speaks_no_http_is_not_answered_in_it() {
    let world = World::new().await;
    let mut caller = world.call("logs").await;
    caller.write_all(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await.unwrap();
    is_reset(caller).await;
}

#[tokio::test]
async fn the_servers_refusal_is_passed_on() {
    let world = World::new().await;
    let mut session = world.session().await;
    let (answer, ()) = tokio::join!(get(world.agent.service("logs")), refuse(&mut session, 404, ""));
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("the hub says no"), "{answer}");
    let more = r#","details":{"retryAfterSeconds":7}"#;
    let (answer, ()) = tokio::join!(get(world.agent.service("logs")), refuse(&mut session, 429, more));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.to_lowercase().contains("retry-after: 7\r\n"), "{answer}");
    let caller = world.call("store").await;
    tokio::join!(is_reset(caller), refuse(&mut session, 502, ""));
    world.metric("agent_service_connections_total{service=\"logs\",result=\"refused-unknown\"} 1").await;
    world.metric("agent_service_connections_total{service=\"logs\",result=\"refused-busy\"} 1").await;
    world.metric("agent_service_connections_total{service=\"store\",result=\"refused-upstream\"} 1").await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_called_so() {
    let world = World::new().await;
    let mut session = world.session().await;
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 404 No\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let strange = async {
            let mut stream = session.opened().await;
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let (told, _stream) = tokio::join!(get(world.agent.service("logs")), strange);
        assert!(told.starts_with("HTTP/1.1 502 "), "{told}");
    }
}

#[tokio::test]
async fn nothing_is_asked_for_callers_who_ask_nothing() {
    let world = World::new().await;
    let session = world.session().await;
    drop(world.call("logs").await);
    let waiting = world.call("logs").await;
    world.metric("agent_service_connections_total{service=\"logs\",result=\"unused\"} 1").await;
    world.metric("agent_service_running{service=\"logs\"} 1").await;
    assert!(!session.has_opened());
    drop(waiting);
}

#[tokio::test]
async fn a_caller_who_does_not_read_delays_nobody_and_is_let_go_with_the_stream() {
    let world = World::new().await;
    let mut session = world.session().await;
    let stuck = world.call("store").await;
    let mut full = switched(&mut session).await;
    let filling = spawn(async move {
        let block = vec![0; 64 * 1024];
        let mut sent = 0_u64;
        // As long as somebody takes it.
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(2), full.write_all(&block)).await {
            sent += 64 * 1024;
        }
        (full, sent)
    });
    for _ in 0..20 {
        let mut caller = world.call("store").await;
        let mut stream = switched(&mut session).await;
        caller.write_all(b"ping").await.unwrap();
        let mut seen = [0; 4];
        within(stream.read_exact(&mut seen)).await.unwrap().unwrap();
        stream.write_all(&seen).await.unwrap();
        stream.shutdown().await.unwrap();
        caller.shutdown().await.unwrap();
        assert_eq!(to_end(&mut caller).await.unwrap(), "ping");
    }
    let (full, sent) = within(filling).await.unwrap().unwrap();
    assert!(sent < 64 << 20, "{sent} bytes are held for one caller");
    full.reset();
    world.metric("agent_service_connections_total{service=\"store\",result=\"stuck\"} 1").await;
    drop(stuck);
}

#[tokio::test]
async fn abrupt_ends_are_passed_on_as_such() {
    let world = World::new().await;
    let mut session = world.session().await;
    let caller = world.call("store").await;
    switched(&mut session).await.reset();
    is_reset(caller).await;
    let caller = world.call("store").await;
    let mut stream = switched(&mut session).await;
    stream.write_all(b"x").await.unwrap();
    eventually("it has arrived", || caller.try_read(&mut [0; 1]).is_ok()).await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    let ended = within(stream.read_u8()).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // And the loss of the session.
    let caller = world.call("store").await;
    let _stream = switched(&mut session).await;
    session.handle.close(moorline_mux::CloseReason::Local("test"));
    is_reset(caller).await;
}

#[tokio::test]
async fn there_is_an_end_to_how_many_are_carried() {
    let world = World::with(|raw| raw.max_service_connections = Some(2)).await;
    let mut session = world.session().await;
    let callers = [world.call("store").await, world.call("store").await];
    let mut streams = [switched(&mut session).await, switched(&mut session).await];
    is_reset(world.call("store").await).await;
    assert!(!session.has_opened());
    // The other service has its own.
    let waiting = [world.call("logs").await, world.call("logs").await];
    world.metric("agent_service_running{service=\"logs\"} 2").await;
    let answer = get(world.agent.service("logs")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("as many connections"), "{answer}");
    drop(waiting);
    world.metric("agent_service_connections_total{service=\"store\",result=\"too-many\"} 1").await;
    drop(callers);
    for stream in &mut streams {
        stream.shutdown().await.unwrap();
    }
    world.metric("agent_service_running{service=\"store\"} 0").await;
    let _caller = world.call("store").await;
    switched(&mut session).await;
}

#[tokio::test]
async fn two_hundred_at_once_and_all_whole() {
    const CALLERS: usize = 200;
    let world = World::new().await;
    let mut session = world.session().await;
    let address = world.agent.service("store");
    let mut calling = JoinSet::new();
    for number in 0..CALLERS {
        calling.spawn(async move {
            let mut caller = TcpStream::connect(address).await.unwrap();
            let sent = vec![b'a' + u8::try_from(number % 26).unwrap(); 30_000 + number];
            caller.write_all(&sent).await.unwrap();
            caller.shutdown().await.unwrap();
            let mut back = Vec::new();
            caller.read_to_end(&mut back).await.unwrap();
            assert!(back == sent, "{number}");
        });
    }
    let mut serving = JoinSet::new();
    for _ in 0..CALLERS {
        let mut stream = session.opened().await;
        serving.spawn(async move {
            head(&mut stream).await;
            stream.write_all(SWITCHED).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
        });
    }
    within(calling.join_all()).await.expect("not all are served in time");
    within(serving.join_all()).await.unwrap();
    eventually("no stream is left", || session.handle.stats().streams_open_inbound <= 1).await;
    world.metric("agent_service_running{service=\"store\"} 0").await;
}

#[tokio::test]
async fn the_session_that_stays_is_asked_first_and_another_where_one_fails() {
    let world = World::with(|raw| raw.sessions = Some(2)).await;
    let (mut one, mut two) = (world.hub.session(QUIET).await, world.hub.session(QUIET).await);
    world.metric("agent_sessions 2").await;
    let away = GoAway { reason: CloseReason::Draining, message: String::new(), reconnect_after_ms: Some(60_000) };
    two.say(&Message::GoAway(away)).await;
    // Nothing tells when the agent has read it; until then it may ask the one that leaves.
    for round in 0.. {
        let caller = world.call("store").await;
        eventually("it is asked for", || one.has_opened() || two.has_opened()).await;
        if one.has_opened() {
            break;
        }
        assert!(round < 100, "the session that leaves is still preferred");
        drop((switched(&mut two).await, caller));
    }
    drop(switched(&mut one).await);
    // A server that is about to stop says so; the other one is asked.
    let caller = world.call("store").await;
    refuse(&mut one, 503, "").await;
    let mut stream = switched(&mut two).await;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut caller = caller;
    assert_eq!(to_end(&mut caller).await.unwrap(), "hello");
    // A session that breaks while it is asked.
    let mut caller = world.call("store").await;
    let mut stream = one.opened().await;
    head(&mut stream).await;
    stream.reset();
    let mut stream = switched(&mut two).await;
    stream.write_all(b"again").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(to_end(&mut caller).await.unwrap(), "again");
}

#[tokio::test]
async fn a_session_that_is_left_and_a_process_that_stops_wait_for_what_is_carried() {
    let world = World::new().await;
    let mut session = world.session().await;
    let mut caller = world.call("store").await;
    let mut stream = switched(&mut session).await;
    let address = world.agent.service("store");
    let World { hub: _hub, _upstream, agent } = world;
    let mut stopped = agent.stop();
    within(async {
        while let Ok(late) = TcpStream::connect(address).await {
            drop(late);
            pause().await;
        }
    })
    .await
    .expect("nothing new is accepted");
    stream.write_all(b"still").await.unwrap();
    let mut begin = [0; 4];
    within(caller.read_exact(&mut begin)).await.unwrap().unwrap();
    assert!(!stopped.is_finished());
    stream.shutdown().await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(to_end(&mut caller).await.unwrap(), "l");
    drop((stream, caller));
    drop(within(session.ended()).await);
    within(&mut stopped).await.expect("it ends with the last connection").unwrap();
}

#[tokio::test]
async fn what_is_carried_stays_on_the_session_that_is_left_and_the_next_goes_to_its_successor() {
    let world = World::new().await;
    let mut first = world.session().await;
    let mut caller = world.call("store").await;
    let mut stream = switched(&mut first).await;
    let away = GoAway { reason: CloseReason::Draining, message: String::new(), reconnect_after_ms: Some(50) };
    first.say(&Message::GoAway(away)).await;
    let mut second = world.hub.session(QUIET).await;
    world.metric("agent_sessions 2").await;
    let mut later = world.call("store").await;
    let mut other = switched(&mut second).await;
    carries(&mut caller, &mut stream).await;
    drop(stream);
    // With what it carried it ends, in order: looked at at once, since the agent does not wait long for the server.
    let reason = first.ended().await;
    assert!(reason.is_graceful(), "{reason:?}");
    carries(&mut later, &mut other).await;
}

/// Each end says its word and ends, and hears the other's.
async fn carries(caller: &mut TcpStream, stream: &mut Stream) {
    stream.write_all(b"to you").await.unwrap();
    stream.shutdown().await.unwrap();
    caller.write_all(b"and back").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(to_end(caller).await.unwrap(), "to you");
    let mut back = Vec::new();
    within(stream.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, b"and back");
}

#[tokio::test]
async fn what_does_not_finish_is_cut_after_the_grace_and_not_as_if_it_were_whole() {
    let world = World::with(|raw| raw.drain_grace = Some("200ms".to_owned())).await;
    let mut session = world.session().await;
    let caller = world.call("store").await;
    let _stream = switched(&mut session).await;
    let World { hub: _hub, _upstream, agent } = world;
    within(agent.stop()).await.expect("it ends").unwrap();
    is_reset(caller).await;
}

#[test]
fn the_words_are_those_of_the_protocol() {
    let switched = String::from_utf8(SWITCHED.to_vec()).unwrap();
    assert!(switched.contains(&format!("upgrade: {}\r\n", services::PROTOCOL)));
}

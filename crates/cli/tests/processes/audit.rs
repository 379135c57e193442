//! The audit trail of a real server under a scripted load, which ends by SIGTERM: one completed event for each request,
//! in order, none lost, and no secret in any.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use moorline_api::paths;
use moorline_server::bootstrap::StateDir;
use moorline_testkit::{
    client::{Body, Client, Connection, LIMIT, empty, full},
    eventually,
    upstream::Upstream,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::{
    house::{Agent, Server, server_flags, until},
    namespace::possible,
    program::moorline,
};

/// Stands for every secret that a request can carry.
const PLANTED: &str = "plantedsecret0123456789";

/// More than this have been answered of each kind when the signal comes.
const ROUNDS: usize = 30;

const CALLERS: usize = 8;

/// The grace of these houses, and what follows it.
const GRACE: Duration = Duration::from_secs(25);

/// Requests that were answered: id and status code, by connection and in order.
type Answered = Vec<Vec<(String, u16)>>;

/// What every caller sends on a connection that it keeps.
fn kinds(user: &Client, round: usize) -> Vec<Request<Body>> {
    let get = |path: &str| user.request(Method::GET, path);
    let with = |method: Method, path: &str, body: String| user.request_with(method, path, full(body));
    let mut requests = vec![
        get("/clusters/east/api/v1/namespaces/shop/pods?limit=5"),
        get("/clusters/east/bytes/20000"),
        with(Method::POST, "/clusters/east/upload", PLANTED.repeat(100)),
        with(Method::PUT, "/clusters/east/api/v1/namespaces/shop/secrets/till", PLANTED.to_owned()),
        get("/clusters/east/status/500"),
        get(&format!("/clusters/nowhere/api?token={PLANTED}")),
        get(&format!("/clusters/East/api?a=1&access_token={PLANTED}")),
        user.with_token(PLANTED).request(Method::GET, "/clusters/east/api"),
        user.without_token().request(Method::GET, "/clusters/east/api/v1/pods?watch=true"),
        get(paths::CLUSTERS),
        with(Method::POST, paths::CLUSTERS, format!("{{\"name\":\"not a name\",\"labels\":{{\"a\":{PLANTED:?}}}}}")),
        user.request(Method::DELETE, &format!("{}/nowhere-{round}", paths::CLUSTERS)),
        get(&format!("{}?refresh_token={PLANTED}", paths::VERSION)),
        get("/readyz"),
    ];
    let mut acting = get("/clusters/east/api/v1/nodes");
    acting.headers_mut().insert("impersonate-user", "somebody-else".parse().unwrap());
    requests.push(acting);
    for request in &mut requests {
        let headers = request.headers_mut();
        headers.insert("cookie", format!("session={PLANTED}").parse().unwrap());
        let protocol = format!("base64url.bearer.authorization.k8s.io.{PLANTED}");
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        headers.insert("x-request-id", PLANTED.parse().unwrap());
    }
    requests
}

/// Sends rounds of all kinds over a connection until it is told to stop or sent away.
async fn caller(user: Client, number: usize, stop: Arc<AtomicBool>, rounds: Arc<AtomicUsize>) -> Answered {
    let mut answered = Answered::new();
    'connections: while !stop.load(Ordering::Relaxed) {
        let connecting = if number.is_multiple_of(2) { user.connect().await } else { user.connect_http2().await };
        let Ok(mut connection) = connecting else { break };
        answered.push(Vec::new());
        for round in 0.. {
            for request in kinds(&user, round) {
                if stop.load(Ordering::Relaxed) {
                    break 'connections;
                }
                let Some(done) = exchange(&mut connection, request).await else { continue 'connections };
                answered.last_mut().unwrap().push(done);
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            if let Some(ids) = on_its_own(&user, number * 1_000_000 + round).await {
                answered.extend(ids.into_iter().map(|id| vec![id]));
            }
        }
    }
    answered
}

/// One request, read to its end; nothing if the connection was closed under it.
async fn exchange(connection: &mut Connection, request: Request<Body>) -> Option<(String, u16)> {
    let response = connection.send(request).await.ok()?;
    let done = (response.headers()["x-request-id"].to_str().unwrap().to_owned(), response.status().as_u16());
    response.into_body().collect().await.ok()?;
    Some(done)
}

/// What costs its connection: a watch that is hung up on, an answer that is cut, an upgrade, and a hang-up before any
/// answer.
async fn on_its_own(user: &Client, number: usize) -> Option<Vec<(String, u16)>> {
    let mut ids = Vec::new();
    for path in ["/clusters/east/ticks?watch=true", "/clusters/east/cut/1000"] {
        let response = user.send(user.request(Method::GET, path)).await.ok()?;
        ids.push((response.headers()["x-request-id"].to_str().unwrap().to_owned(), response.status().as_u16()));
        drop(response.into_body().frame().await);
    }
    let mut socket = user.tls(&[b"http/1.1"]).await.ok()?;
    let request = user.request(Method::POST, "/");
    let token = request.headers()["authorization"].to_str().unwrap();
    let head = format!(
        "POST /clusters/east/api/v1/watch/echo?command=login&command=--password%3D{PLANTED} HTTP/1.1\r\nHost: a\r\n\
         Authorization: {token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n{PLANTED}"
    );
    socket.write_all(head.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LIMIT, socket.read_u8()).await.ok()?.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let id = head.split_once("x-request-id: ").unwrap().1.split("\r\n").next().unwrap().to_owned();
    ids.push((id, head.split(' ').nth(1).unwrap().parse().unwrap()));
    socket.shutdown().await.ok()?;
    drop(socket.read_to_end(&mut Vec::new()).await);

    let mut waiting = user.connect().await.ok()?;
    let hang = user.request_with(Method::GET, &format!("/clusters/east/hang?n={number}&token={PLANTED}"), empty());
    // Long enough for some of them to arrive.
    drop(tokio::time::timeout(Duration::from_millis(20), waiting.send(hang)).await);
    Some(ids)
}

/// The events of the log, in order.
fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Where each request is completed in the log; nothing is, twice.
fn completed(events: &[Value]) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for (place, event) in events.iter().enumerate().filter(|(_, event)| event["stage"] == "ResponseComplete") {
        let before = places.insert(event["auditID"].as_str().unwrap(), place);
        assert_eq!(before, None, "completed twice: {event}");
    }
    places
}

#[tokio::test]
async fn every_request_of_a_scripted_load_is_in_the_audit_log_once_also_at_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(directory, &["--drain-grace", "3s"]).await;
    let upstream = Upstream::start().await.unwrap();
    let _agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    let (user, stop, rounds) = (server.user(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(caller(user.clone(), number, Arc::clone(&stop), Arc::clone(&rounds)));
    }
    // What runs when the signal comes: a watch, and what has to be cut.
    let mut running = Vec::new();
    for path in ["/clusters/east/api/v1/watch/ticks", "/clusters/east/stall"] {
        let response = user.send(user.request(Method::GET, path)).await.unwrap();
        running.push((response.headers()["x-request-id"].to_str().unwrap().to_owned(), response));
    }
    // A slow machine takes minutes for some thousands of requests.
    let so_many = async || (rounds.load(Ordering::Relaxed) > ROUNDS * CALLERS).then_some(());
    eventually(4 * LIMIT, so_many).await.expect("some hundreds of requests of each kind");
    assert_eq!(server.metric_of("moorline_audit_events_dropped_total", &["log"]).await, 0.0);
    server.program.signal("TERM");
    assert_eq!(server.program.ended(GRACE).await, Some(0));
    stop.store(true, Ordering::Relaxed);
    let answered: Answered = callers.join_all().await.into_iter().flatten().collect();

    let state = StateDir::new(server.directory.path());
    let text = std::fs::read_to_string(state.audit_log()).unwrap();
    let events = events(&text);
    let places = completed(&events);
    let mut last_of_all = 0;
    for connection in &answered {
        let mut last = None;
        for (id, code) in connection {
            let place = *places.get(id.as_str()).unwrap_or_else(|| panic!("{id} ({code}) has no completed event"));
            let event = &events[place];
            assert_eq!(event["responseStatus"]["code"], *code, "{event}");
            assert!(Some(place) > last, "out of order: {event}");
            last = Some(place);
            last_of_all += 1;
        }
    }
    assert!(last_of_all > ROUNDS * CALLERS * 15, "{last_of_all}");
    for event in &events {
        assert!(places.contains_key(event["auditID"].as_str().unwrap()), "begun and never completed: {event}");
    }
    // Whatever the cluster saw of those who hung up before any answer is there as well.
    for seen in upstream.seen("/hang") {
        let number = seen.uri.query().unwrap().split('&').next().unwrap().to_owned();
        let uri = format!("/clusters/east/hang?{number}&token=REDACTED");
        let of_it = events.iter().filter(|event| event["requestURI"] == uri.as_str()).count();
        assert_eq!(of_it, 1, "{uri}");
    }
    let ends = |id: &str| events[places[id]]["annotations"]["moorline.io/end"].as_str().unwrap();
    assert_eq!([ends(&running[0].0), ends(&running[1].0)], ["complete", "lost"]);
    for end in ["complete", "lost", "hung-up"] {
        assert!(events.iter().any(|event| event["annotations"]["moorline.io/end"] == end), "{end}");
    }
    let token = state.admin_token().unwrap().unwrap();
    for secret in [PLANTED, &token] {
        assert!(!text.contains(secret), "{:?}", text.lines().find(|line| line.contains(secret)));
    }
    let created =
        events.iter().find(|event| event["verb"] == "create" && event["objectRef"]["name"] == "east").unwrap();
    assert_eq!(created["objectRef"]["resource"], "managedclusters");
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
}

#[tokio::test]
async fn a_full_disk_stops_no_request_and_spoils_no_line() {
    let test = "a_full_disk_stops_no_request_and_spoils_no_line";
    let Some(unshare) = possible(test, "--mount", "mount -t tmpfs -o size=64k tmpfs /mnt") else { return };
    let (directory, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = disk.path().join("audit.log");
    let server = moorline(&server_flags(directory.path(), &["--audit-log-path", log.to_str().unwrap()]));
    let mut seeing = Command::new("/usr/bin/env");
    seeing.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").arg("unshare").args(unshare);
    seeing.args(["sh", "-c", "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$@\""]).arg(disk.path());
    seeing.arg(server.get_program()).args(server.get_args());
    let mut server = Server::run(directory, seeing).await;
    // As the server sees it.
    let log = format!("/proc/{}/root{}", server.program.id(), log.display());
    let written = || std::fs::read_to_string(&log).unwrap();
    let (user, mut asked, mut ids) = (server.user(), 0, HashSet::new());
    let mut take = |text: &str| {
        for event in events(text) {
            assert!(ids.insert(event["auditID"].as_str().unwrap().to_owned()), "twice: {event}");
        }
        ids.len()
    };
    let failures = async || server.metric_of("moorline_audit_errors_total", &["log"]).await;
    let mut after = 0;
    while after < 10 {
        assert_eq!(user.get(paths::VERSION).await.unwrap().code, 200, "requests go on");
        asked += 1;
        assert!(asked < 2000, "the disk is not full yet");
        after += usize::from(failures().await > 0.0);
    }
    let so_often = failures().await;
    until("tried again", async || failures().await > so_often).await;
    server.program.says(&[" WARN ", "audit events cannot be written", "No space left"]).await;
    let before = written();
    assert!(before.ends_with("}\n"), "half a line was taken back");
    let so_far = take(&before);
    assert!(so_far < asked, "{so_far} of {asked}");
    // Somebody makes room; what had to wait is written, and nothing was lost.
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    until("the rest is written", async || written().ends_with("}\n")).await;
    server.program.signal("TERM");
    let root = File::open(&log).unwrap();
    assert_eq!(server.program.ended(GRACE).await, Some(0));
    let rest = std::io::read_to_string(root).unwrap();
    assert_eq!(take(&rest), asked);
}

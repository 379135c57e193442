//! Services of the management cluster, end to end: a program beside an agent, the tunnel, the server's table, the service.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use moorline_model::Status;
use moorline_process::write_private;
use moorline_server::RawConfig;
use moorline_testkit::Refusing;
use moorline_testkit::client::LIMIT;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::Link;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Level;

use super::people::{code, until};
use super::streaming::{alone, idle_memory, within};

/// Two clusters, and services for one, for both and for the other.
struct Place {
    east: Agent,
    west: Agent,
    server: Server,
    link: Link,
    store: Upstream,
    sink: Sink,
    /// Where the services are that are down.
    _dead: Refusing,
    _kube: Upstream,
    _upstreams: [Task; 2],
    logs: Logs,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A service that reads nothing until it may.
struct Sink {
    address: SocketAddr,
    may: Arc<Semaphore>,
    read: Arc<Semaphore>,
    _task: Task,
}

impl Place {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let logs = Logs::capture();
        let (kube, store, sink) =
            (Upstream::start().await.unwrap(), Upstream::start().await.unwrap(), Sink::start().await);
        let (echo, echoing) = serve(echo).await;
        let (flood, flooding) = serve(flood).await;
        let dead = Refusing::bind().unwrap();
        let nobody = dead.address();
        let table = format!(
            "apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n\
             - {{name: echo, clusters: [east], upstream: '{echo}', mode: PassThrough}}\n\
             - {{name: flood, clusters: [east], upstream: '{flood}', mode: PassThrough}}\n\
             - {{name: sink, clusters: [east], upstream: '{}', mode: PassThrough}}\n\
             - {{name: dead, clusters: [east], upstream: '{nobody}', mode: PassThrough}}\n\
             - {{name: store, clusters: ['*'], upstream: '{}', mode: HTTP}}\n\
             - {{name: dead-store, clusters: ['*'], upstream: '{nobody}', mode: HTTP}}\n\
             - {{name: private, clusters: [west], upstream: '{echo}', mode: PassThrough}}\n",
            sink.address,
            store.address(),
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("services.yaml");
        write_private(&file, table.as_bytes()).unwrap();
        let server = Server::start_in(directory, |raw| {
            raw.services_file = Some(file);
            change(raw);
        });
        let server = server.await.unwrap();
        let link = Link::to(server.tunnel).await.unwrap();
        let mut agents = Vec::new();
        for (name, tunnel) in [("east", link.address()), ("west", server.tunnel)] {
            let created = server.create(name).await.unwrap();
            let agent = Agent::start(&created, tunnel, &kube.url(), |raw| {
                let here = |names: &[&str]| names.iter().map(|name| format!("{name}=127.0.0.1:0")).collect();
                raw.services = here(&["echo", "flood", "sink", "dead", "private", "nothing"]);
                raw.http_services = here(&["store", "dead-store", "dead", "private", "nothing"]);
                raw.max_service_connections = Some(512);
            });
            agents.push(agent.unwrap());
            server.connected(name).await.unwrap();
        }
        let (west, east) = (agents.pop().unwrap(), agents.pop().unwrap());
        let upstreams = [echoing, flooding];
        Self { east, west, server, link, store, sink, _dead: dead, _kube: kube, _upstreams: upstreams, logs }
    }

    /// A program of `east` at a service that is offered as bytes.
    async fn call(&self, service: &str) -> TcpStream {
        call(&self.east, service).await
    }

    /// What a program of `east` is answered by a service that is offered as HTTP.
    async fn get(&self, service: &str, path: &str, more: &str) -> String {
        get(&self.east, service, path, more).await.unwrap()
    }

    /// Waits until nothing of any service is left, on either side.
    async fn at_rest(&self) {
        for (admin, gauge) in [
            (self.east.admin, "moorline_agent_service_running"),
            (self.west.admin, "moorline_agent_service_running"),
            (self.server.admin, "moorline_service_streams"),
        ] {
            until(gauge, async || moorline_testkit::house::metric(admin, gauge, &[]).await.unwrap() == 0.0).await;
        }
    }

    /// What operators are warned of.
    fn warnings(&self) -> Vec<String> {
        let lines = self.logs.lines().into_iter().filter(|line| line.level <= Level::INFO);
        lines.map(|line| line.text).collect()
    }

    async fn tasks(&self) -> f64 {
        self.server.metric("moorline_tasks", &[]).await.unwrap()
            + self.east.metric("moorline_tasks", &[]).await.unwrap()
    }
}

impl Sink {
    async fn start() -> Self {
        let (may, read) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let shared = (Arc::clone(&may), Arc::clone(&read));
        let (address, task) = serve(move |mut socket: TcpStream| {
            let (may, read) = shared.clone();
            async move {
                may.acquire().await.unwrap().forget();
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let count = socket.read(&mut buffer).await?;
                    if count == 0 {
                        return socket.shutdown().await;
                    }
                    read.add_permits(count);
                }
            }
        })
        .await;
        Self { address, may, read, _task: task }
    }
}

/// A service that does this with each connection.
async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Task)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = spawn(async move {
        let mut running = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            running.spawn(each(socket));
            while running.try_join_next().is_some() {}
        }
    });
    (address, Task(task))
}

/// Every byte comes back, and the end of input is answered by some more and an end.
async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = socket.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.write_all(b"|bye").await?;
    write.shutdown().await
}

/// Bytes without an end, for as long as somebody takes them.
async fn flood(mut socket: TcpStream) -> io::Result<()> {
    let block = vec![b'x'; 64 * 1024];
    loop {
        socket.write_all(&block).await?;
    }
}

async fn call(agent: &Agent, service: &str) -> TcpStream {
    let (_, address) = agent.services().iter().find(|(name, _)| name == service).unwrap();
    TcpStream::connect(address).await.unwrap()
}

async fn get(agent: &Agent, service: &str, path: &str, more: &str) -> io::Result<String> {
    let (_, address) = agent.services().iter().rfind(|(name, _)| name == service).unwrap();
    let mut socket = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: whatever.example\r\nConnection: close\r\n{more}\r\n");
    socket.write_all(head.as_bytes()).await?;
    to_end(&mut socket).await
}

async fn to_end(socket: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut text)).await.unwrap().map(|_| text)
}

async fn is_reset(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset, "not as an end");
}

/// The same text there and back, whole.
async fn there_and_back(mut socket: TcpStream, text: &str) {
    let (mut read, mut write) = socket.split();
    let sending = async {
        write.write_all(text.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = String::new();
    let (came, ()) = tokio::join!(tokio::time::timeout(LIMIT, read.read_to_string(&mut back)), sending);
    came.unwrap().unwrap();
    assert!(back.strip_suffix("|bye") == Some(text), "{} bytes of {}", back.len(), text.len());
}

#[tokio::test]
async fn f14_bytes_pass_both_ways_whole() {
    let place = Place::new().await;
    let text = "0123456789abcdef".repeat(512 * 1024);
    there_and_back(place.call("echo").await, &text).await;
    there_and_back(place.call("echo").await, "").await;
    let mut calling = JoinSet::new();
    for number in 0..50 {
        let socket = place.call("echo").await;
        calling.spawn(async move { there_and_back(socket, &format!("{number},").repeat(20_000)).await });
    }
    calling.join_all().await;
    place.at_rest().await;
    assert!(place.server.metric("moorline_service_bytes_total", &["up"]).await.unwrap() >= 8e6);
}

#[tokio::test]
async fn the_service_sees_the_clusters_name_and_not_what_its_program_says() {
    let place = Place::new().await;
    let forged = "x-cluster-id: management\r\nX-Cluster-Id: west\r\nx_cluster_id: west\r\nx-moorline-identity: admin\r\n\
                  authorization: Bearer the-programs-own\r\n";
    for (agent, name) in [(&place.east, "east"), (&place.west, "west")] {
        let path = format!("/of/{name}");
        let answer = get(agent, "store", &path, forged).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Scripted"), "{answer}");
        let seen = place.store.seen(&path).remove(0);
        assert_eq!(seen.values("x-cluster-id"), [name]);
        assert!(seen.values("x_cluster_id").is_empty() && seen.values("x-moorline-identity").is_empty());
        assert_eq!(seen.values("authorization"), ["Bearer the-programs-own"]);
    }
    // A second request of the same connection is no other program's.
    let (_, address) = place.east.services().iter().rfind(|(name, _)| name == "store").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    for end in ["", "Connection: close\r\nx-cluster-id: west\r\n"] {
        let head = format!("GET /again HTTP/1.1\r\nHost: whatever.example\r\n{end}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        until("it is answered", async || place.store.seen("/again").len() == usize::from(!end.is_empty()) + 1).await;
    }
    assert_eq!(to_end(&mut socket).await.unwrap().matches("Scripted").count(), 2);
    assert!(place.store.seen("/again").iter().all(|seen| seen.values("x-cluster-id") == ["east"]));
    place.at_rest().await;
}

#[tokio::test]
async fn what_is_not_for_this_cluster_is_as_if_it_were_not_there() {
    let place = Place::new().await;
    let (private, nothing) = (place.get("private", "/", "").await, place.get("nothing", "/", "").await);
    assert_eq!((code(&private), code(&nothing)), (404, 404), "{private}{nothing}");
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(&private).replace("private", "nothing"), body(&nothing), "the same words");
    assert_eq!(serde_json::from_str::<Status>(&body(&nothing)).unwrap().code, 404);
    is_reset(place.call("private").await).await;
    is_reset(place.call("nothing").await).await;
    there_and_back(call(&place.west, "private").await, "for west").await;
    is_reset(call(&place.west, "echo").await).await;
    place.at_rest().await;
}

#[tokio::test]
async fn a_dead_service_costs_its_own_callers_only_and_they_are_told() {
    let place = Place::new().await;
    for service in ["dead", "dead-store"] {
        let answer = place.get(service, "/", "").await;
        assert_eq!(code(&answer), 502, "{answer}");
    }
    is_reset(place.call("dead").await).await;
    there_and_back(place.call("echo").await, "alive").await;
    assert_eq!(code(&place.get("store", "/", "").await), 200);
    place.at_rest().await;
}

#[tokio::test]
async fn a_service_that_does_not_read_delays_nobody() {
    let place = Place::new().await;
    let (mut read, mut write) = place.call("sink").await.into_split();
    let sending = spawn(async move {
        // Less than the windows and sockets on the way hold, more than they all pass at once.
        write.write_all(&vec![b'x'; 48 << 20]).await.unwrap();
        write.shutdown().await.unwrap();
    });
    for _ in 0..20 {
        there_and_back(place.call("echo").await, &"quick".repeat(10_000)).await;
        assert_eq!(code(&place.get("store", "/", "").await), 200);
    }
    assert!(!sending.is_finished(), "held back, not held in memory");
    place.sink.may.add_permits(1);
    tokio::time::timeout(LIMIT, sending).await.unwrap().unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, read.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert_eq!(place.sink.read.available_permits(), 48 << 20, "every byte");
    place.at_rest().await;
}

#[tokio::test]
async fn f12_a_caller_who_hangs_up_ends_the_request_at_the_service() {
    let place = Place::new().await;
    for path in ["/hang", "/stall", "/ticks"] {
        let waiting = tokio::time::timeout(Duration::from_millis(200), place.get("store", path, ""));
        assert!(waiting.await.is_err(), "what does not come is waited for");
        until("it has ended there", async || place.store.running() == 0).await;
    }
    place.at_rest().await;
}

#[tokio::test]
async fn f14_a_cut_tunnel_never_looks_like_an_end_and_the_next_caller_is_told_at_once() {
    let place = Place::new().await;
    let mut flowing = place.call("flood").await;
    let mut some = vec![0; 1 << 20];
    flowing.read_exact(&mut some).await.unwrap();
    let mut body = {
        let (_, address) = place.east.services().iter().rfind(|(name, _)| name == "store").unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /bytes/100000000000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        socket
    };
    body.read_exact(&mut some).await.unwrap();
    place.link.cut();
    is_reset(flowing).await;
    is_reset(body).await;
    until("the agent is back", async || place.get("store", "/", "").await.starts_with("HTTP/1.1 200")).await;
    there_and_back(place.call("echo").await, "again").await;
    // Nobody answers any more: the agent finds out, and from then on says so.
    place.link.fall_silent();
    let asking = async || get(&place.east, "store", "/", "").await;
    until("it is said", async || asking().await.is_ok_and(|answer| code(&answer) == 503)).await;
    let answer = asking().await.unwrap();
    assert!(answer.contains("no session with the management cluster"), "{answer}");
    is_reset(place.call("echo").await).await;
    there_and_back(call(&place.west, "private").await, "not affected").await;
    place.at_rest().await;
}

#[tokio::test]
async fn f12_a_thousand_connections_in_a_row_leave_nothing_behind() {
    alone("services::a_thousand_connections").await;
}

#[tokio::test]
#[ignore = "counts what the process has open that it runs in; run by the test above"]
async fn a_thousand_connections() {
    let place = Place::new().await;
    let (_, address) = place.east.services().iter().find(|(name, _)| name == "echo").unwrap();
    let round = async |count: usize| {
        for number in 0..count {
            match number % 10 {
                // Some hang up at once, some are refused.
                7 => drop(TcpStream::connect(address).await.unwrap()),
                8 => assert_eq!(code(&place.get("nothing", "/", "").await), 404),
                9 => assert_eq!(code(&place.get("store", "/", "").await), 200),
                _ => there_and_back(TcpStream::connect(address).await.unwrap(), "one of many").await,
            }
        }
        place.at_rest().await;
    };
    round(50).await;
    let (tasks, files) = (place.tasks().await, open_files());
    round(1000).await;
    until("no task is left", async || place.tasks().await <= tasks + 4.0).await;
    until("no descriptor is left", async || open_files() <= files + 8).await;
    until("nothing is unread", async || place.server.metric("moorline_tunnel_unread_bytes", &[]).await.unwrap() == 0.0)
        .await;
    assert_eq!(place.server.metric("moorline_task_panics_total", &[]).await.unwrap(), 0.0);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn f02_callers_who_stop_reading_hold_bounded_memory() {
    alone("services::stalled_callers").await;
}

#[tokio::test]
#[ignore = "measures the process that it runs in; run by the test above"]
async fn stalled_callers() {
    // So many that their windows, grown as far as windows may, still fit into a session: none of them is shed.
    const CALLERS: u64 = 100;
    // Server, agent, service and program together: a window of the tunnel, the buffers of both splices, and sockets.
    const EACH: u64 = 2 << 20;
    let place = Place::with(|raw| raw.memory_budget = Some("32MiB".to_owned())).await;
    there_and_back(place.call("echo").await, "warm").await;
    let idle = idle_memory();
    let mut stalled = Vec::new();
    for _ in 0..CALLERS {
        let mut socket = place.call("flood").await;
        let begun = socket.read_exact(&mut [0; 1]).await;
        assert!(begun.is_ok(), "{begun:?} after {}: {:?}", stalled.len(), place.warnings());
        stalled.push(socket);
    }
    for _ in 0..20 {
        there_and_back(place.call("echo").await, &"quick".repeat(100_000)).await;
    }
    within("100 stalled callers", idle, CALLERS * EACH);
    drop(stalled);
    place.at_rest().await;
}

#[expect(clippy::disallowed_methods, reason = "scripted services and programs live outside of the programs under test")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

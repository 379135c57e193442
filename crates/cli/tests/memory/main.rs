//! What bodies that are large, and readers that stop, make each process hold.
//!
//! The bounds are made of the budgets that have names elsewhere; what is measured against them is the most that a process
//! ever held, above what it held when idle. A program of its own, so that the tests of what happens in time do not run
//! beside this load.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "shared with the tests of processes, which use the rest")]
#[path = "../processes/house.rs"]
mod house;
#[expect(dead_code, reason = "shared with the tests of processes, which use the rest")]
#[path = "../processes/program.rs"]
mod program;

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use moorline_testkit::{
    client::{Body, Client},
    upstream::Upstream,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use house::{Agent, Server, until};
use program::Program;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The size of a body that passes.
const LARGE: u64 = 1024 * MIB;

/// How long it may take on a slow machine: 2 MiB a second.
const PASSES: Duration = Duration::from_secs(512);

/// What a process may hold above idle for it.
const FOR_LARGE: u64 = 64 * MIB;

/// How many readers stop at most. For each, this process holds the ends of a user and of a kube-apiserver.
const READERS: usize = 1000;

/// A body that nobody could hold.
const ENDLESS: &str = "/clusters/east/bytes/100000000000";

/// What any reader may make the server hold: the window that every stream of the tunnel begins with.
const WINDOW: u64 = 256 * KIB;

/// By how much the windows of one session may grow, all together.
const GROWTH: u64 = 32 * MIB;

/// What the streams of one session may hold unread before some are shed.
const SESSION: u64 = 64 * MIB;

/// What a reader costs besides, in either process: buffers of HTTP and TLS, tasks, and what the allocator adds.
const BESIDES: u64 = 256 * KIB;

/// What either process keeps of the memory that much traffic needed for a moment.
const KEPT: u64 = 48 * MIB;

/// What server and agent may hold in all for readers that stop, however many: the defaults of their memory budgets.
const BUDGETS: (u64, u64) = (256 * MIB, 128 * MIB);

struct House {
    server: Server,
    agent: Agent,
    upstream: Upstream,
    /// What server and agent hold when idle, in bytes.
    idle: (u64, u64),
}

impl House {
    async fn new() -> Self {
        // One user plays all readers, and one may have half of a cluster's room.
        let flags = ["--heartbeat-interval", "5s", "--max-requests-per-cluster", "4000"];
        let server = Server::start_in(tempfile::tempdir().unwrap(), &flags).await;
        let upstream = Upstream::start().await.unwrap();
        let agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
        server.connected("east").await;
        let idle = (memory(&server.program, "VmRSS:"), memory(&agent.program, "VmRSS:"));
        Self { server, agent, upstream, idle }
    }

    /// What is over the budget is shed and counted, and those readers' connections are ended.
    async fn unread_within_the_budget(&self, readers: u64) {
        let unread = self.server.metric("moorline_tunnel_unread_bytes").await;
        assert!(unread <= figure(SESSION + MIB), "{unread} bytes unread");
        until("nobody is kept whose stream was shed", async || {
            let shed = self.server.metric("moorline_tunnel_streams_shed_total").await;
            let connections = self.server.metric("moorline_gateway_connections").await;
            assert!(shed > 0.0 || readers * WINDOW <= SESSION, "{readers} readers, none shed");
            shed + connections == figure(readers)
        })
        .await;
    }

    /// Holds the most that each process ever held against what it may.
    #[expect(clippy::print_stdout, reason = "the figures, for whoever asks with --nocapture")]
    fn within(&self, what: &str, (most_server, most_agent): (u64, u64)) {
        let above = |program: &Program, idle: u64| memory(program, "VmHWM:").saturating_sub(idle);
        let (server, agent) = (above(&self.server.program, self.idle.0), above(&self.agent.program, self.idle.1));
        println!("{what}: server {} MiB, agent {} MiB above idle", server / MIB, agent / MIB);
        assert!(server < most_server, "{what}: the server held {} KiB above idle", server / KIB);
        assert!(agent < most_agent, "{what}: the agent held {} KiB above idle", agent / KIB);
    }
}

/// A line of a process's memory in `/proc`, in bytes.
fn memory(program: &Program, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.split_whitespace().next().unwrap().parse::<u64>().unwrap() * KIB
}

#[expect(clippy::cast_precision_loss, reason = "far below where it begins")]
fn figure(whole: u64) -> f64 {
    whole as f64
}

fn zeroes(count: u64) -> Body {
    static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];
    let blocks = (0..count / BLOCK.len() as u64).map(|_| Ok(Frame::data(BLOCK.as_slice().into())));
    StreamBody::new(futures_util::stream::iter(blocks)).boxed()
}

async fn length(mut body: Incoming) -> u64 {
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
    }
    came
}

fn download(user: &Client, size: u64) -> Request<Body> {
    user.request(Method::GET, &format!("/clusters/east/bytes/{size}"))
}

/// Asks for a body without end, sees it begin, and reads no more.
async fn stalled(user: &Client) -> impl Sized + use<> {
    let token = user.request(Method::GET, "/").headers()["authorization"].to_str().unwrap().to_owned();
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(16 * 1024).unwrap();
    let mut socket = user.tls_over(narrow, &[b"http/1.1"]).await.unwrap();
    let head = format!("GET {ENDLESS} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    socket.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    socket
}

/// What others do meanwhile: small requests one after the other, and a body of 64 MiB.
async fn others_go_on(user: &Client) {
    let small = async {
        let mut connection = user.connect().await.unwrap();
        for _ in 0..100 {
            let response = connection.send(user.request(Method::GET, "/clusters/east/api")).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), r#"{"kind":"Scripted"}"#);
        }
    };
    let large = async { length(user.send(download(user, 64 * MIB)).await.unwrap().into_body()).await };
    assert_eq!(tokio::join!(small, large).1, 64 * MIB);
}

#[tokio::test]
async fn f15_a_gibibyte_each_way_passes_in_bounded_memory() {
    let house = House::new().await;
    let user = house.server.user();
    let response = user.send(download(&user, LARGE)).await.unwrap();
    assert_eq!(length(response.into_body()).await, LARGE);
    house.within("a gibibyte down", (FOR_LARGE, FOR_LARGE));
    let mut connection = user.connect_http2().await.unwrap();
    let request = user.request_with(Method::POST, "/clusters/east/upload", zeroes(LARGE));
    let response = connection.send_within(request, PASSES).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), LARGE.to_string());
    house.within("a gibibyte up", (FOR_LARGE, FOR_LARGE));
}

#[tokio::test]
async fn f02_readers_that_stop_hold_no_more_than_the_budgets() {
    let descriptors = moorline_process::open_files::raise_limit();
    assert!(descriptors > 3 * READERS, "only {descriptors} open files are allowed here");
    let house = House::new().await;
    let user = house.server.user();
    let mut readers = Vec::new();
    for count in [50, 200, READERS] {
        while readers.len() < count {
            readers.push(stalled(&user).await);
        }
        others_go_on(&user).await;
        let count = count as u64;
        house.unread_within_the_budget(count).await;
        let windows = (GROWTH + count * WINDOW).min(SESSION);
        let most = (KEPT + windows + count * BESIDES, KEPT + count * BESIDES);
        house.within(&format!("{count} readers"), (most.0.min(BUDGETS.0), most.1.min(BUDGETS.1)));
    }
    drop(readers);
    until("all have ended upstream", async || house.upstream.running() == 0).await;
}

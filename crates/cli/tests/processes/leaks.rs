//! After much that was cancelled, cut, switched and refused, both processes hold what they held before.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::{
    client::{Body, Client, LIMIT, full},
    link::Link,
    upstream::Upstream,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::house::{Agent, Server, until};

const ROUNDS: usize = 30;

/// Streams that the server, and connections to the kube-apiserver that the agent may keep for the next request.
const KEPT: (f64, usize) = (32.0, 64);

struct House {
    server: Server,
    agent: Agent,
    upstream: Upstream,
    link: Link,
}

/// What a house holds.
#[derive(Debug, PartialEq)]
struct Held {
    tasks: (f64, f64),
    descriptors: (usize, usize),
}

impl House {
    async fn new() -> Self {
        let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
        let link = Link::to(server.tunnel).await.unwrap();
        let agent = Agent::start(&server.create("east").await, link.address(), &upstream).await;
        Self { server, agent, upstream, link }
    }

    /// Cuts the session and waits for the next one, until that has carried one request.
    async fn renewed(&self) {
        let begun = self.server.metric("moorline_tunnel_sessions_welcomed_total").await;
        self.link.cut();
        until("a new session", async || {
            self.server.metric("moorline_tunnel_sessions_welcomed_total").await > begun
                && self.server.metric("moorline_tunnel_sessions").await == 1.0
        })
        .await;
        self.server.connected("east").await;
    }

    async fn at_rest(&self) {
        until("nothing runs upstream", async || self.upstream.running() == 0).await;
        for gauge in ["moorline_gateway_requests_running", "moorline_gateway_upgraded", "moorline_gateway_connections"]
        {
            until(gauge, async || self.server.metric(gauge).await == 0.0).await;
        }
        until("the agent serves nothing", async || self.agent.metric("moorline_agent_requests_running").await == 0.0)
            .await;
    }

    /// Connections that the agent keeps to the kube-apiserver come and go with the load; they are told apart.
    async fn held(&self) -> Held {
        let kept = self.upstream.connections();
        Held {
            tasks: (self.server.metric("moorline_tasks").await, self.agent.metric("moorline_tasks").await),
            descriptors: (self.server.program.descriptors(), self.agent.program.descriptors().saturating_sub(kept)),
        }
    }
}

#[tokio::test]
async fn f12_f13_nothing_is_left_of_requests_that_were_cancelled_cut_switched_or_refused() {
    let house = House::new().await;
    house.server.connected("east").await;
    house.renewed().await;
    house.at_rest().await;
    let before = house.held().await;
    let user = house.server.user();
    for round in 0..ROUNDS {
        cancelled(&user, round).await;
        cut(&user).await;
        switched(&user).await;
        refused(&user).await;
    }
    // While the session goes on: no more than what is kept for the next request.
    house.at_rest().await;
    let streams = async || {
        let server = house.server.metric_of("moorline_tasks", &["gateway-stream"]).await;
        (server, house.agent.metric_of("moorline_tasks", &["\"stream\""]).await)
    };
    until("both ends keep the same few streams", async || {
        let (server, agent) = streams().await;
        server == agent && server <= KEPT.0
    })
    .await;
    until("few connections are kept", async || house.upstream.connections() <= KEPT.1).await;
    until("descriptors are as before", async || house.held().await.descriptors == before.descriptors).await;
    // A session that is cut in the middle of all that takes everything along.
    let mut held = Vec::new();
    for _ in 0..ROUNDS {
        held.push(user.send(watch(&user)).await.unwrap().into_body());
    }
    house.renewed().await;
    for body in held {
        // In order, after a whole event, or broken off in the middle of one.
        drop(tokio::time::timeout(LIMIT, body.collect()).await.expect("a watch goes on without its session"));
    }
    house.at_rest().await;
    until(&format!("all is as before: {before:?}"), async || house.held().await == before).await;
}

fn watch(user: &Client) -> Request<Body> {
    user.request(Method::GET, "/clusters/east/ticks?watch=true")
}

/// Watches, hanging requests and uploads whose user is gone.
async fn cancelled(user: &Client, round: usize) {
    let mut http2 = user.connect_http2().await.unwrap();
    for _ in 0..3 {
        let response =
            if round.is_multiple_of(2) { http2.send(watch(user)).await } else { user.send(watch(user)).await };
        let mut body = response.unwrap().into_body();
        assert!(body.frame().await.unwrap().is_ok());
    }
    let token = user.request(Method::GET, "/").headers()["authorization"].to_str().unwrap().to_owned();
    for (line, length, part) in
        [("GET /clusters/east/hang", "", ""), ("POST /clusters/east/upload", "Content-Length: 100\r\n", "half")]
    {
        let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\n{length}Host: a\r\nAuthorization: {token}\r\n\r\n{part}");
        socket.write_all(head.as_bytes()).await.unwrap();
    }
}

/// Answers that break off upstream.
async fn cut(user: &Client) {
    for path in ["cut/100000", "cut-chunked/1000"] {
        let response = user.send(user.request(Method::GET, &format!("/clusters/east/{path}"))).await.unwrap();
        if response.status() == StatusCode::OK {
            assert!(response.into_body().collect().await.is_err(), "{path} looks whole");
        }
    }
}

/// Switched connections: ended in order, broken off by the cluster, dropped by the user; and one that is not switched.
async fn switched(user: &Client) {
    let token = user.request(Method::GET, "/").headers()["authorization"].to_str().unwrap().to_owned();
    for (path, in_order) in [("echo", true), ("echo", false), ("break", true), ("refuse-upgrade", false)] {
        let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
        let head = format!(
            "POST /clusters/east/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\
             Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        socket.read_exact(&mut first).await.unwrap();
        let wanted: &[u8] = if path == "refuse-upgrade" { b"HTTP/1.1 403" } else { b"HTTP/1.1 101" };
        assert_eq!(first, wanted);
        socket.write_all(b"some bytes").await.unwrap();
        if in_order {
            socket.shutdown().await.unwrap();
            // The broken one ends in a reset.
            drop(socket.read_to_end(&mut Vec::new()).await);
        }
    }
}

/// Requests that fail: at the door, in the policy, on the way, in the cluster.
async fn refused(user: &Client) {
    for (path, code) in [("/clusters/east/status/500", 500), ("/clusters/nowhere/api", 404), ("/clusters/-/api", 400)] {
        assert_eq!(user.get(path).await.unwrap().code, code, "{path}");
    }
    assert_eq!(user.without_token().get("/clusters/east/api").await.unwrap().code, 401);
    let answer = user.ask(user.request_with(Method::POST, "/clusters/east/upload", full("whole"))).await.unwrap();
    assert_eq!(answer.body, "5");
}

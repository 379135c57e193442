//! File descriptors run short: what is over the room is turned away and counted, the rest goes on, and all is well after.

use std::{net::SocketAddr, process::Command};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::{house::plain_get, upstream::Upstream};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{
    house::{Agent, RARE, Server, limited, server_flags, until},
    program::moorline,
};

/// A connection that says nothing, from this host of loopback.
async fn silent(to: SocketAddr, host: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    socket.connect(to).await
}

async fn alive(admin: SocketAddr) {
    for page in ["/livez", "/readyz"] {
        let answer = plain_get(admin, page).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
    }
}

#[tokio::test]
async fn f36_a_server_short_of_descriptors_turns_away_counts_and_recovers() {
    let (directory, upstream) = (tempfile::tempdir().unwrap(), Upstream::start().await.unwrap());
    let command: Command = limited("ulimit -n 256", &moorline(&server_flags(directory.path(), &RARE)));
    let server = Server::run(directory, command).await;
    server.program.says(&["open files", "256"]).await;
    let _agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    let user = server.user();
    let mut kept = user.connect().await.unwrap();
    let mut asks = async || {
        let response = kept.send(user.request(Method::GET, "/clusters/east/api")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    };
    asks().await;
    // More than there are descriptors, from many addresses; fewer to the tunnel, where what waits is not even accepted.
    let mut flood = Vec::new();
    for host in 2..=21 {
        for _ in 0..20 {
            flood.push(silent(server.gateway, host).await);
        }
        for _ in 0..5 {
            flood.push(silent(server.tunnel, host).await);
        }
    }
    until("some are turned away", async || server.metric("moorline_gateway_connections_refused_total").await > 0.0)
        .await;
    for _ in 0..20 {
        alive(server.admin).await;
        asks().await;
    }
    assert_eq!(server.metric("moorline_tunnel_sessions").await, 1.0, "the agent keeps its session");
    assert!(server.program.descriptors() < 256);
    drop(flood);
    until("the flood is gone", async || server.program.descriptors() < 40).await;
    assert_eq!(server.user().get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
    assert!(server.program.said(&["Too many open files"]).is_empty(), "it never ran out");
}

#[tokio::test]
async fn f36_an_agent_short_of_descriptors_turns_away_counts_and_recovers() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &RARE).await;
    let upstream = Upstream::start().await.unwrap();
    let created = server.create("east").await;
    let agent =
        Agent::start_with(&created, server.tunnel, &upstream, |command| limited("ulimit -n 256", &command)).await;
    server.connected("east").await;
    let user = server.user();
    let mut hanging = JoinSet::new();
    for _ in 0..300 {
        let user = user.clone();
        hanging.spawn(async move { user.get("/clusters/east/hang").await });
    }
    let turned_away = hanging.join_next().await.unwrap().unwrap().unwrap();
    let told = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    assert!(told.contains(&turned_away.code), "{} {}", turned_away.code, turned_away.body);
    assert!(turned_away.body.contains("\"kind\":\"Status\""), "{}", turned_away.body);
    alive(agent.admin).await;
    assert!(agent.metric("moorline_agent_requests_refused_total").await > 0.0);
    assert!(agent.program.descriptors() < 256);
    hanging.shutdown().await;
    until("nothing runs", async || upstream.running() == 0).await;
    assert_eq!(user.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
    assert_eq!(server.metric("moorline_tunnel_sessions_welcomed_total").await, 1.0, "the session went on");
    assert!(agent.program.said(&["Too many open files"]).is_empty(), "it never ran out");
}

//! The way out: what runs may finish, what is new goes elsewhere, agents are told.

use std::time::Duration;

use http::{Method, StatusCode};
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::CloseReason;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    agent::{Agent, Credentials},
    house::{House, LIMIT},
};

#[tokio::test]
async fn what_runs_finishes_and_agents_are_told_to_go_elsewhere() {
    let _logs = Logs::capture();
    let mut house = House::start().await;
    let user = house.user();
    let credentials = Credentials::from(&user.create("east").await.enrolment);
    let mut agent = Agent::connect(&house, &credentials).await;
    let asking = tokio::spawn(async move { user.ask(Method::GET, "/clusters/east/api", "").await });
    let mut stream = tokio::time::timeout(LIMIT, agent.incoming.accept()).await.unwrap().unwrap();
    house.stop();
    let go_away = agent.go_away().await;
    assert_eq!(go_away.reason, CloseReason::Draining);
    assert!(go_away.reconnect_after_ms.unwrap() < 60_000);
    let (tunnel, gateway) = (house.tunnel, house.gateway);
    eventually(LIMIT, async || {
        let closed = TcpStream::connect(tunnel).await.is_err() && TcpStream::connect(gateway).await.is_err();
        closed.then_some(())
    })
    .await
    .unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
    assert_eq!(asking.await.unwrap(), (StatusCode::OK, "done".to_owned()));
    let outcome = house.ended().await;
    assert_eq!((outcome.cut, outcome.unfinished), (0, None));
}

#[tokio::test]
async fn what_does_not_finish_is_cut_at_the_end_of_the_grace() {
    let _logs = Logs::capture();
    let mut house = House::start_with(|raw| raw.drain_grace = Some("500ms".to_owned())).await;
    let user = house.user();
    let credentials = Credentials::from(&user.create("east").await.enrolment);
    let agent = Agent::connect(&house, &credentials).await.live("east");
    let mut watch = user.send(Method::GET, "/clusters/east/watch", "").await.into_body();
    http_body_util::BodyExt::frame(&mut watch).await.unwrap().unwrap();
    let began = std::time::Instant::now();
    house.stop();
    let outcome = house.ended().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(outcome.cut > 0);
    assert_eq!(outcome.unfinished, None);
    agent.ended().await;
}

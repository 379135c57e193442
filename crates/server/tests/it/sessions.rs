//! Sessions that live, compete, fall silent and are cut.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_api::ConditionStatus;
use moorline_mux::CloseReason as MuxReason;
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::{CloseReason, GoAway, Message};

use crate::{
    agent::{Agent, Credentials, hello},
    house::{BEAT, House, LIMIT, logs_tell},
};

async fn east(house: &House) -> Credentials {
    Credentials::from(&house.user().create("east").await.enrolment)
}

#[tokio::test]
async fn connected_is_what_the_agent_proved() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| raw.heartbeat_interval = Some("3s".to_owned())).await;
    let credentials = east(&house).await;
    let user = house.user();
    let condition = async || user.cluster("east").await.status.conditions.remove(0);
    assert_eq!(condition().await.reason, "NeverConnected");
    let (code, body) = user.ask(Method::GET, "/clusters/east/api", "").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{body}");

    let mut agent = Agent::connect(&house, &credentials).await;
    let now = condition().await;
    assert_eq!((now.status, now.reason.as_str()), (ConditionStatus::Unknown, "Probing"));
    agent
        .say(&Message::Status(moorline_wire::AgentStatus {
            upstream_ok: false,
            upstream_reason: Some("connection refused".to_owned()),
            kubernetes_version: None,
            cluster_uid: None,
        }))
        .await;
    eventually(LIMIT, async || (condition().await.reason == "KubeAPIServerUnreachable").then_some(())).await.unwrap();
    assert!(condition().await.message.contains("connection refused"));
    agent.say_healthy().await;
    let agent = agent.live("hello from east");
    eventually(LIMIT, async || (condition().await.reason == "Connected").then_some(())).await.unwrap();
    let status = user.cluster("east").await.status;
    assert!(status.connected);
    assert_eq!(status.kubernetes_version.as_deref(), Some("v1.35.0"));
    assert_eq!(status.sessions.len(), 1);
    eventually(LIMIT, async || user.cluster("east").await.status.sessions[0].rtt_ms).await.unwrap();
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await, (StatusCode::OK, "hello from east".to_owned()));

    agent.handle.close(MuxReason::Local("the test is over"));
    agent.ended().await;
    eventually(LIMIT, async || (condition().await.reason == "Disconnected").then_some(())).await.unwrap();
    drop(house.ended().await);
}

#[tokio::test]
async fn f03_a_frozen_agent_is_found_by_its_missing_heartbeats() {
    let logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let user = house.user();
    // Alive at the level of TCP and of the multiplexer, and nobody at home.
    let began = Instant::now();
    let mut agent = Agent::connect(&house, &credentials).await;
    let asking = tokio::spawn(async move { user.ask(Method::GET, "/clusters/east/api", "").await });
    while agent.hear().await.is_some() {}
    let took = began.elapsed();
    // TCP alone would take half a minute.
    assert!(took >= BEAT * 3 && took < BEAT * 3 + Duration::from_secs(10), "{took:?}");
    let (code, body) = tokio::time::timeout(LIMIT, asking).await.unwrap().unwrap();
    assert!(matches!(code.as_u16(), 502..=504), "{code} {body}");
    logs_tell(&logs, &["session ended", "east", "did not answer heartbeats"]).await;
    eventually(LIMIT, async || {
        let metrics = house.metrics().await;
        metrics.contains("moorline_tunnel_sessions_ended_total{reason=\"heartbeat-missed\"} 1").then_some(())
    })
    .await
    .unwrap();
    drop(house.ended().await);
}

#[tokio::test]
async fn f04_the_newest_session_wins_over_a_half_open_one() {
    let logs = Logs::capture();
    // Heartbeats alone would take longer than this test may.
    let house = House::start_with(|raw| raw.heartbeat_interval = Some("60s".to_owned())).await;
    let credentials = east(&house).await;
    let user = house.user();
    let frozen = Agent::connect(&house, &credentials).await;
    let mut newer = Agent::connect(&house, &credentials).await;
    newer.say_healthy().await;
    let newer = newer.live("newer");
    // At once, while the older one is still being probed.
    for _ in 0..10 {
        assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.1, "newer");
    }
    let reason = tokio::time::timeout(LIMIT, frozen.driver).await.expect("cut").unwrap();
    assert!(matches!(reason, MuxReason::PeerClosed | MuxReason::Io(..)), "{reason:?}");
    logs_tell(&logs, &["session ended", "superseded"]).await;
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.1, "newer");
    newer.handle.close(MuxReason::Local("the test is over"));
    drop(house.ended().await);
}

#[tokio::test]
async fn two_living_sessions_share_the_load_and_survive_each_other() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let user = house.user();
    let one = Agent::connect(&house, &credentials).await.live("one");
    let two = Agent::connect(&house, &credentials).await.live("two");
    // Both have proven themselves once the older is asked again: hold one request on each, and they take turns.
    let mut seen = std::collections::BTreeSet::new();
    eventually(LIMIT, async || {
        let held = user.send(Method::GET, "/clusters/east/watch", "").await;
        let other = user.ask(Method::GET, "/clusters/east/api", "").await.1;
        let frame = held.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        Some((String::from_utf8(frame.to_vec()).unwrap(), other)).filter(|(held, other)| held != other)
    })
    .await
    .map(|(held, other)| seen.extend([held, other]))
    .unwrap();
    assert_eq!(seen.len(), 2);
    one.handle.close(MuxReason::Local("the test is over"));
    one.ended().await;
    eventually(LIMIT, async || (user.cluster("east").await.status.sessions.len() == 1).then_some(())).await.unwrap();
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.1, "two");
    two.handle.close(MuxReason::Local("the test is over"));
    drop(house.ended().await);
}

#[tokio::test]
async fn a_cluster_has_only_so_many_sessions() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| {
        raw.max_sessions_per_cluster = Some(2);
        raw.heartbeat_interval = Some("5s".to_owned());
    })
    .await;
    let credentials = east(&house).await;
    let one = Agent::connect(&house, &credentials).await.live("one");
    let silent = Agent::connect(&house, &credentials).await;
    let mut third = Agent::dial(&house, &credentials).await;
    third.say(&Message::Hello(hello(None))).await;
    let refused = third.refused().await;
    assert_eq!(refused.reason, CloseReason::Overloaded);
    assert!(refused.reconnect_after_ms.is_some());
    // The silent one loses its place; the one that lives does not.
    let reason = tokio::time::timeout(LIMIT, silent.driver).await.expect("cut").unwrap();
    assert!(!reason.is_graceful(), "{reason:?}");
    let fourth = Agent::connect(&house, &credentials).await.live("fourth");
    assert!(one.handle.is_open());
    drop((one, fourth));
    drop(house.ended().await);
}

#[tokio::test]
async fn f10_deletion_cuts_the_session_and_its_requests() {
    let logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let user = house.user();
    let agent = Agent::connect(&house, &credentials).await.live("east");
    let mut watch = user.send(Method::GET, "/clusters/east/watch", "").await.into_body();
    watch.frame().await.unwrap().unwrap();
    let began = Instant::now();
    assert_eq!(user.delete("east").await.0, StatusCode::OK);
    let end = tokio::time::timeout(LIMIT, watch.frame()).await.expect("the watch ends");
    assert!(end.is_none_or(|frame| frame.is_err()));
    let (said, _reason) = agent.ended().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let told = said
        .iter()
        .any(|message| matches!(message, Message::GoAway(GoAway { reason: CloseReason::ClusterDeleted, .. })));
    assert!(told, "{said:?}");
    logs_tell(&logs, &["session ended", "the cluster was deleted"]).await;
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.0, StatusCode::NOT_FOUND);
    drop(house.ended().await);
}

#[tokio::test]
async fn a_leaving_agent_gets_nothing_new_and_finishes_what_runs() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let user = house.user();
    let mut agent = Agent::connect(&house, &credentials).await;
    let mut incoming = std::mem::replace(&mut agent.incoming, other_incoming());
    let asking = tokio::spawn({
        let user = user.clone();
        async move { user.ask(Method::GET, "/clusters/east/api", "").await }
    });
    let mut stream = tokio::time::timeout(LIMIT, incoming.accept()).await.unwrap().unwrap();
    agent
        .say(&Message::GoAway(GoAway {
            reason: CloseReason::Shutdown,
            message: String::new(),
            reconnect_after_ms: None,
        }))
        .await;
    // Messages are taken in order: once this is answered, the server knows.
    agent.say(&Message::Heartbeat(moorline_wire::Heartbeat { sequence: 1 })).await;
    while !matches!(agent.hear().await.expect("an answer"), Message::HeartbeatAck(_)) {}
    let _beating = agent.live("nobody asks this");
    let (code, body) = user.ask(Method::GET, "/clusters/east/api", "").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("going away"), "{body}");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
        .await
        .unwrap();
    assert_eq!(asking.await.unwrap(), (StatusCode::OK, "done".to_owned()));
    drop(house.ended().await);
}

#[tokio::test]
async fn messages_of_a_later_version_are_answered_and_survived() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let mut agent = Agent::connect(&house, &credentials).await;
    let json = br#"{"type":"dance","steps":3}"#;
    let mut frame = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(json);
    agent.say_bytes(&frame).await;
    agent.say(&Message::Heartbeat(moorline_wire::Heartbeat { sequence: 42 })).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let message = agent.hear().await.expect("an answer");
        if let Message::Heartbeat(beat) = message {
            agent.acknowledge(beat.sequence).await;
        } else {
            answers.push(message);
        }
    }
    assert!(matches!(&answers[0], Message::Error(error) if error.message_type.as_deref() == Some("dance")));
    assert!(matches!(&answers[1], Message::HeartbeatAck(ack) if ack.sequence == 42));
    // A second hello makes no sense.
    agent.say(&Message::Hello(hello(None))).await;
    assert_eq!(agent.go_away().await.reason, CloseReason::ProtocolError);
    drop(house.ended().await);
}

#[tokio::test]
async fn f08_a_session_ends_with_its_certificate() {
    let logs = Logs::capture();
    let house = House::start_with(|raw| raw.agent_certificate_life = Some("5s".to_owned())).await;
    let credentials = east(&house).await;
    let agent = Agent::connect(&house, &credentials).await.live("east");
    let (said, _reason) = agent.ended().await;
    let told =
        said.iter().any(|message| matches!(message, Message::GoAway(GoAway { reason: CloseReason::Expired, .. })));
    assert!(told, "{said:?}");
    logs_tell(&logs, &["session ended", "certificate has expired"]).await;
    drop(house.ended().await);
}

fn other_incoming() -> moorline_mux::Incoming {
    let (one, _other) = tokio::io::duplex(1);
    moorline_mux::session(one, moorline_mux::Config::new(moorline_mux::Role::Client)).1
}

#[tokio::test]
async fn an_agent_that_talks_all_the_time_does_not_fill_the_log() {
    const WORDS: usize = 400;
    let logs = Logs::capture();
    let house = House::start().await;
    let credentials = east(&house).await;
    let mut agent = Agent::connect(&house, &credentials).await;
    for number in 0..WORDS {
        let status = moorline_wire::AgentStatus {
            upstream_ok: false,
            upstream_reason: Some(format!("chatter number {number}")),
            kubernetes_version: None,
            cluster_uid: None,
        };
        agent.say(&Message::Status(status)).await;
    }
    agent.say_healthy().await;
    let _agent = agent.live("well");
    let user = house.user();
    eventually(LIMIT, async || user.cluster("east").await.status.connected.then_some(())).await.unwrap();
    let told = |line: &&moorline_testkit::logs::Line| line.text.contains("chatter number");
    let lines = logs.lines().iter().filter(told).count();
    assert!((1..WORDS / 2).contains(&lines), "{lines} lines");
    drop(house.ended().await);
}

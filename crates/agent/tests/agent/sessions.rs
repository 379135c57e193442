//! The life of sessions: hello, heartbeats, go-away, loss, shutdown.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use moorline_wire::{AgentStatus, CloseReason, Failure, GoAway, Heartbeat, Message, Refused};

use crate::{
    bench::{Agent, eventually, within},
    hub::{Hub, QUIET, Session, request, text},
    upstream::Upstream,
};

async fn world() -> (Hub, Upstream, Agent) {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let agent = Agent::start(&hub.raw(&upstream.url()));
    (hub, upstream, agent)
}

async fn status(session: &mut Session, ok: bool) -> AgentStatus {
    session
        .find(|message| match message {
            Message::Status(status) if status.upstream_ok == ok => Some(status.clone()),
            _other => None,
        })
        .await
}

#[tokio::test]
async fn the_hello_says_who_and_the_status_how_it_fares() {
    let (hub, upstream, agent) = world().await;
    let mut session = hub.hello().await;
    assert_eq!((session.hello.protocol_min, session.hello.protocol_max), (1, 1));
    assert_eq!(session.hello.cluster.as_ref().unwrap().as_str(), "prod");
    assert_eq!(session.hello.agent_version, env!("CARGO_PKG_VERSION"));
    agent.says("[-]tunnel failed").await;
    session.welcome(QUIET).await;
    let healthy = status(&mut session, true).await;
    assert_eq!(healthy.kubernetes_version.as_deref(), Some("v1.33.0"));
    agent.says("readyz check passed").await;
    assert!(agent.page("/metrics").await.contains("moorline_agent_sessions 1"));
    drop(upstream);
}

#[tokio::test]
async fn trouble_with_the_kube_apiserver_is_told_with_its_reason() {
    let (hub, upstream, agent) = world().await;
    upstream.sick(true);
    let mut session = hub.session(QUIET).await;
    let sick = status(&mut session, false).await;
    assert!(sick.upstream_reason.is_some());
    agent.says("answered 500 Internal Server Error to /readyz").await;
    upstream.sick(false);
    status(&mut session, true).await;
}

/// A message of a later version, as it travels.
fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat()
}

#[tokio::test]
async fn f27_a_server_of_the_next_version_is_understood() {
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.hello().await;
    let id = session.hello.session_id;
    let welcome = format!(
        r#"{{"type":"welcome","protocol":1,"server_version":"0.2.0","session_id":"{id}","cluster":"prod",
            "heartbeat_interval_ms":60000,"limits":{{"streams":9,"request_head":1000000,"colours":3}},"features":["x"]}}"#
    );
    session.say_bytes(&framed(&welcome)).await;
    status(&mut session, true).await;
    session.say_bytes(&framed(r#"{"type":"dance","steps":3}"#)).await;
    let kind = session.find(|message| match message {
        Message::Error(error) => Some(error.message_type.clone()),
        _other => None,
    });
    assert_eq!(kind.await.as_deref(), Some("dance"));
    assert_eq!(session.get("/api/v1/pods").await.status(), 200, "it serves");
    agent.says("readyz check passed").await;
}

#[tokio::test]
async fn f27_an_agent_says_that_it_is_too_old_and_what_to_do() {
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.hello().await;
    let message = moorline_wire::too_far_apart("0.0.1", 0, 0, "0.1.0");
    let reason = CloseReason::VersionUnsupported;
    session.say(&Message::Refused(Refused { reason, message, reconnect_after_ms: None })).await;
    agent.says("upgrade the agent").await;
    // A server that chooses what was not offered.
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.hello().await;
    let id = session.hello.session_id;
    let welcome = format!(
        r#"{{"type":"welcome","protocol":7,"server_version":"0.7.0","session_id":"{id}","cluster":"prod",
            "heartbeat_interval_ms":60000}}"#
    );
    session.say_bytes(&framed(&welcome)).await;
    agent.says("version 7").await;
}

#[tokio::test]
async fn heartbeats_go_both_ways_and_strange_messages_are_answered() {
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.session(Duration::from_millis(500)).await;
    session.say(&Message::Heartbeat(Heartbeat { sequence: 77 })).await;
    session.find(|message| matches!(message, Message::HeartbeatAck(ack) if ack.sequence == 77).then_some(())).await;
    session.say(&Message::Unknown("from-the-future".to_owned())).await;
    let kind = session
        .find(|message| match message {
            Message::Error(error) => Some(error.message_type.clone()),
            _other => None,
        })
        .await;
    assert_eq!(kind.as_deref(), Some("from-the-future"));
    let mut beats = 0;
    session
        .find(|message| {
            beats += u32::from(matches!(message, Message::Heartbeat(_)));
            (beats == 10).then_some(())
        })
        .await;
    let metrics = agent.page("/metrics").await;
    assert!(metrics.contains("moorline_agent_dials_total{result=\"ok\"} 1"), "still the first session: {metrics}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_within_three_beats() {
    let (hub, upstream, agent) = world().await;
    let first = hub.session(Duration::from_secs(1)).await;
    let response = first.get("/watch").await;
    let began = Instant::now();
    let second = hub.session(QUIET).await;
    // Three beats, the backoff's first step, and what a loaded machine adds.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_ne!(first.hello.session_id, second.hello.session_id);
    eventually("its requests end", || upstream.running() == 0).await;
    assert!(within(response.into_body().collect()).await.unwrap().is_err(), "and not as if they were whole");
    eventually("the old session is cut", || !first.handle.is_open()).await;
    let metrics = agent.page("/metrics").await;
    assert!(metrics.contains("moorline_agent_session_ends_total{reason=\"heartbeat-missed\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_lost_connection_is_dialled_again() {
    let (hub, upstream, _agent) = world().await;
    for _round in 0..3 {
        let session = hub.session(QUIET).await;
        assert_eq!(text(session.get("/x").await).await, "fine");
        session.handle.close(moorline_mux::CloseReason::Local("test"));
    }
    assert_eq!(upstream.heads("/x").len(), 3);
}

#[tokio::test]
async fn sent_away_the_successor_comes_first_and_what_runs_goes_on() {
    let (hub, upstream, _agent) = world().await;
    let mut first = hub.session(QUIET).await;
    let response = first.get("/watch").await;
    let mut body = response.into_body();
    within(body.frame()).await.unwrap().unwrap().unwrap();
    first
        .say(&Message::GoAway(GoAway {
            reason: CloseReason::Draining,
            message: "rolling upgrade".to_owned(),
            reconnect_after_ms: Some(50),
        }))
        .await;
    let mut second = hub.hello().await;
    assert_eq!(text(first.get("/meanwhile").await).await, "fine", "the old session serves until the new one does");
    second.welcome(QUIET).await;
    assert_eq!(text(second.get("/after").await).await, "fine");
    assert_eq!(upstream.running(), 1, "the watch goes on over the old session");
    drop(body);
    let reason = first.ended().await;
    assert!(reason.is_graceful(), "{reason:?}");
    assert_eq!(text(second.get("/later").await).await, "fine");
}

#[tokio::test]
async fn a_refusal_is_told_and_not_repeated_at_once() {
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.hello().await;
    let message = "revoked by an administrator".to_owned();
    session
        .say(&Message::Refused(Refused { reason: CloseReason::Revoked, message, reconnect_after_ms: Some(60_000) }))
        .await;
    agent.says("refused the session: revoked (revoked by an administrator)").await;
    assert!(agent.page("/metrics").await.contains("moorline_agent_dials_total{result=\"refused\"} 1"));
}

#[tokio::test]
async fn an_agent_whose_certificate_is_of_another_cluster_is_told_what_to_install() {
    let logs = moorline_testkit::logs::Logs::capture();
    let (hub, _upstream, agent) = world().await;
    let mut session = hub.hello().await;
    // What an agent claims to be is what its certificate was made for.
    assert_eq!(session.hello.cluster.as_ref().unwrap().as_str(), "prod");
    let message = "this certificate does not stand for cluster prod".to_owned();
    session
        .say(&Message::Refused(Refused { reason: CloseReason::WrongCluster, message, reconnect_after_ms: None }))
        .await;
    agent.says("refused the session: wrong-cluster (this certificate does not stand for cluster prod)").await;
    assert!(logs.contain(&["no session with the server", "wrong-cluster", "the certificate that was made for this"]));
}

#[tokio::test]
async fn several_sessions_serve_at_once() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let mut raw = hub.raw(&upstream.url());
    raw.sessions = Some(2);
    let agent = Agent::start(&raw);
    let sessions = [hub.session(QUIET).await, hub.session(QUIET).await];
    for session in &sessions {
        assert_eq!(text(session.get("/x").await).await, "fine");
    }
    assert!(agent.page("/metrics").await.contains("moorline_agent_sessions 2"));
}

#[tokio::test]
async fn on_shutdown_running_requests_finish_and_the_server_is_told() {
    let (hub, upstream, agent) = world().await;
    let mut session = hub.session(QUIET).await;
    let kept = session.http().await;
    let mut body = session.get("/watch").await.into_body();
    within(body.frame()).await.unwrap().unwrap().unwrap();
    let mut stopped = agent.stop();
    let going = session
        .find(|message| match message {
            Message::GoAway(going) => Some(going.reason.clone()),
            _other => None,
        })
        .await;
    assert_eq!(going, CloseReason::Shutdown);
    eventually("idle streams are closed", || kept.is_closed() || session.handle.stats().streams_open_outbound <= 2)
        .await;
    // The agent may be closing just then what is idle; a stream that it closes unanswered is a refusal too.
    let mut http = session.http().await;
    if let Ok(late) = within(http.send_request(request("GET", "/late"))).await.expect("no answer and no end in time") {
        let refused = Failure::of_response(late.headers()) == Some(Failure::ShuttingDown);
        assert!(late.status() == 200 || refused, "{late:?}");
    }
    assert_eq!(upstream.running(), 1, "the running request goes on");
    assert!(!stopped.is_finished());
    drop(body);
    let reason = session.ended().await;
    within(&mut stopped).await.expect("it ends with its last request").unwrap();
    assert!(reason.is_graceful(), "{reason:?}");
}

#[tokio::test]
async fn what_does_not_finish_is_cut_after_the_grace() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let mut raw = hub.raw(&upstream.url());
    raw.drain_grace = Some("200ms".to_owned());
    let agent = Agent::start(&raw);
    let session = hub.session(QUIET).await;
    let body = session.get("/watch").await.into_body();
    within(agent.stop()).await.expect("it ends").unwrap();
    assert!(within(body.collect()).await.unwrap().is_err());
    eventually("nothing is left", || upstream.running() == 0).await;
}

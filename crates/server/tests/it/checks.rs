//! What "connected" means: a request went through the tunnel and back.

use std::time::{Duration, Instant};

use http::Method;
use moorline_api::{Condition, ConditionStatus, condition};
use moorline_mux::CloseReason as MuxReason;
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::{CloseReason, GoAway, Message};

use crate::{
    agent::{Agent, Credentials},
    house::{House, LIMIT},
};

/// What an agent answers to a probe, and in these tests to everything else.
const WELL: &str = r#"{"upstream_ok":true}"#;

const INTERVAL: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(1);

/// A server that asks often, and the credentials of `east`.
async fn house() -> (House, Credentials) {
    let house = House::start_with(|raw| {
        raw.check_interval = Some(format!("{}s", INTERVAL.as_secs()));
        raw.check_timeout = Some(format!("{}s", TIMEOUT.as_secs()));
    })
    .await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);
    (house, credentials)
}

async fn conditions(house: &House) -> (Condition, Condition) {
    let of = |kind: &str, all: &[Condition]| all.iter().find(|one| one.kind == kind).unwrap().clone();
    let all = house.user().cluster("east").await.status.conditions;
    (of(condition::CONNECTED, &all), of(condition::REACHABLE, &all))
}

/// Waits for a reason of the condition `ManagedClusterConnected`.
async fn connected_is(house: &House, reason: &str) -> (Condition, Condition) {
    let found = eventually(LIMIT, async || {
        let both = conditions(house).await;
        (both.0.reason == reason).then_some(both)
    });
    found.await.unwrap_or_else(|_| panic!("never {reason}"))
}

#[tokio::test]
async fn f19_a_session_that_answers_heartbeats_and_carries_nothing_is_shown_and_cut() {
    let logs = Logs::capture();
    let (house, credentials) = house().await;
    let mut agent = Agent::connect_probed(&house, &credentials).await;
    // What it says of itself is not enough.
    agent.say_healthy().await;
    let began = Instant::now();
    let beating = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(message) = agent.hear().await {
            if let Message::Heartbeat(beat) = message {
                agent.acknowledge(beat.sequence).await;
            } else {
                told.push(message);
            }
        }
        told
    });
    assert_eq!(conditions(&house).await.0.status, ConditionStatus::Unknown);
    let (connected, reachable) = connected_is(&house, "TunnelNotCarrying").await;
    assert_eq!((connected.status, reachable.status), (ConditionStatus::False, ConditionStatus::Unknown));
    assert_eq!(connected.last_probe_time, None, "none was ever answered");
    assert!(connected.message.contains("answers heartbeats, and no requests"), "{}", connected.message);
    // The rest is for a busy machine.
    assert!(began.elapsed() < 3 * INTERVAL + 3 * TIMEOUT + Duration::from_secs(5), "{:?}", began.elapsed());
    let told = tokio::time::timeout(LIMIT, beating).await.expect("it is cut").unwrap();
    let cut = |message: &Message| matches!(message, Message::GoAway(GoAway { reason: CloseReason::NotCarrying, .. }));
    assert!(told.iter().any(cut), "{told:?}");
    assert!(logs.contain(&["the session carries no requests", "no answer to a probe"]));
    connected_is(&house, "Disconnected").await;
    drop(house.ended().await);
}

#[tokio::test]
async fn f19_requests_go_around_a_session_that_carries_nothing() {
    let _logs = Logs::capture();
    let (house, credentials) = house().await;
    let good = Agent::connect_probed(&house, &credentials).await.live(WELL);
    let (connected, reachable) = connected_is(&house, "Connected").await;
    assert!(connected.last_probe_time.is_some());
    assert_eq!((reachable.status, reachable.reason.as_str()), (ConditionStatus::True, "ProbeSucceeded"));
    // The newest would be preferred.
    let mut stuck = Agent::connect_probed(&house, &credentials).await;
    let stuck = tokio::spawn(async move {
        while let Some(message) = stuck.hear().await {
            if let Message::Heartbeat(beat) = message {
                stuck.acknowledge(beat.sequence).await;
            }
        }
    });
    eventually(LIMIT, async || {
        let metrics = house.metrics().await;
        let failed = metrics.lines().find_map(|line| line.strip_prefix("moorline_tunnel_checks_failed_total "));
        failed.filter(|failed| *failed != "0").map(drop)
    })
    .await
    .unwrap();
    let user = house.user();
    for _ in 0..10 {
        assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.1, WELL);
    }
    assert_eq!(conditions(&house).await.0.status, ConditionStatus::True, "the best session counts");
    tokio::time::timeout(LIMIT, stuck).await.expect("it is cut").unwrap();
    assert_eq!(user.cluster("east").await.status.sessions.len(), 1);
    good.handle.close(MuxReason::Local("the test is over"));
    drop(house.ended().await);
}

#[tokio::test]
async fn f19_what_a_probe_finds_is_the_kube_apiserver_and_not_the_agent() {
    let _logs = Logs::capture();
    let (house, credentials) = house().await;
    const FAILS: &str = r#"{"upstream_ok":false,"upstream_reason":"connection refused"}"#;
    let agent = Agent::connect_probed(&house, &credentials).await.live(FAILS);
    let (connected, reachable) = connected_is(&house, "KubeAPIServerUnreachable").await;
    assert_eq!((connected.status, reachable.status), (ConditionStatus::False, ConditionStatus::False));
    assert!(reachable.message.contains("connection refused"), "{}", reachable.message);
    assert!(connected.last_probe_time.is_some(), "an answer came");
    assert!(agent.handle.is_open());
    drop(house.ended().await);
}

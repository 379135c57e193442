//! Agents of other versions: what they say beyond what we know does no harm, and who is too old is told so.
//!
//! Their words are written out as they travel, since this build cannot speak them.

use http::{Method, StatusCode};
use moorline_api::{ClusterEventList, paths};
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::{CloseReason, Message};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, Credentials},
    house::{House, LIMIT, logs_tell},
};

/// A message as it travels.
fn framed(message: &Value) -> Vec<u8> {
    let json = serde_json::to_vec(message).unwrap();
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], &json].concat()
}

fn hello(min: u32, max: u32, version: &str) -> Value {
    let session = moorline_model::SessionId::from_bytes(rand::random());
    json!({
        "type": "hello", "protocol_min": min, "protocol_max": max, "agent_version": version,
        "session_id": session,
    })
}

#[tokio::test]
async fn f27_an_agent_of_the_next_version_is_served() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);
    let mut agent = Agent::dial(&house, &credentials).await;
    let mut hello = hello(1, 2, "0.2.0");
    hello["capabilities"] = json!(["probe", "renew", "fly"]);
    hello["node"] = json!({"name": "n1", "zone": ["a", "b"]});
    agent.say_bytes(&framed(&hello)).await;
    assert_eq!(agent.welcome().await.protocol, 1, "the newest that both speak");
    agent.say_bytes(&framed(&json!({"type": "weather", "sky": "blue"}))).await;
    let status = json!({"type": "status", "upstream_ok": true, "kubernetes_version": "v1.40.0", "nodes": 3});
    agent.say_bytes(&framed(&status)).await;
    // What a later agent finds out about itself may come in an answer, too.
    let agent = agent.live(r#"{"upstream_ok":true,"latency":{"p99":3}}"#);
    let user = house.user();
    eventually(LIMIT, async || user.cluster("east").await.status.connected.then_some(())).await.unwrap();
    let status = user.cluster("east").await.status;
    assert_eq!(status.agent_version.as_deref(), Some("0.2.0"));
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.0, StatusCode::OK);
    agent.handle.close(moorline_mux::CloseReason::Local("the test is over"));
    let (said, _how) = agent.ended().await;
    let unknown =
        |said: &Message| matches!(said, Message::Error(error) if error.message_type.as_deref() == Some("weather"));
    assert!(said.iter().any(unknown), "{said:?}");
    drop(house.ended().await);
}

#[tokio::test]
async fn f27_an_agent_of_the_version_before_is_served_without_what_it_cannot_do() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);
    let mut agent = Agent::dial(&house, &credentials).await;
    // No capabilities at all: what it says of itself has to do.
    agent.say_bytes(&framed(&hello(0, 1, "0.0.9"))).await;
    agent.welcome().await;
    agent.say_bytes(&framed(&json!({"type": "status", "upstream_ok": true}))).await;
    let _agent = agent.live("old but well");
    let user = house.user();
    eventually(LIMIT, async || user.cluster("east").await.status.connected.then_some(())).await.unwrap();
    assert_eq!(user.ask(Method::GET, "/clusters/east/api", "").await.1, "old but well");
    drop(house.ended().await);
}

#[tokio::test]
async fn f27_too_old_an_agent_is_told_both_versions_and_so_is_its_owner() {
    let logs = Logs::capture();
    let house = House::start().await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);
    let mut agent = Agent::dial(&house, &credentials).await;
    agent.say_bytes(&framed(&hello(0, 0, "0.0.1"))).await;
    let refused = agent.refused().await;
    assert_eq!(refused.reason, CloseReason::VersionUnsupported);
    for part in ["\"0.0.1\"", env!("CARGO_PKG_VERSION"), "0 to 0", "1 to 1", "upgrade the agent"] {
        assert!(refused.message.contains(part), "{part} in {}", refused.message);
    }
    logs_tell(&logs, &["agent refused", "version-unsupported", "0.0.1"]).await;
    let (_, body) = house.user().ask(Method::GET, &paths::events(&"east".parse().unwrap()), "").await;
    let events = serde_json::from_str::<ClusterEventList>(&body).unwrap().items;
    let event = events.iter().find(|event| event.reason == "Refused").expect("its owner can see it");
    assert!(event.message.contains("\"0.0.1\"") && event.message.ends_with("upgrade the agent"), "{}", event.message);
    drop(house.ended().await);
}

//! What happened to a cluster, as its owner reads it.

use http::{Method, StatusCode};
use moorline_api::{ClusterEvent, ClusterEventList, EventType, paths};
use moorline_mux::CloseReason as MuxReason;
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::{CloseReason, Message};

use crate::{
    agent::{Agent, Credentials, hello},
    house::{House, LIMIT},
};

async fn events(house: &House, name: &str) -> Vec<ClusterEvent> {
    let (code, body) = house.user().ask(Method::GET, &paths::events(&name.parse().unwrap()), "").await;
    assert_eq!(code, StatusCode::OK, "{body}");
    serde_json::from_str::<ClusterEventList>(&body).unwrap().items
}

async fn event(house: &House, reason: &str) -> ClusterEvent {
    let of_reason = async || events(house, "east").await.into_iter().find(|event| event.reason == reason);
    eventually(LIMIT, of_reason).await.unwrap_or_else(|_| panic!("no {reason}"))
}

#[tokio::test]
async fn the_life_of_a_cluster_is_told_in_order() {
    let _logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let credentials = Credentials::from(&user.create("east").await.enrolment);
    user.create("west").await;
    let mut agent = Agent::connect(&house, &credentials).await;
    agent.say_healthy().await;
    let agent = agent.live("east");
    event(&house, "KubeAPIServerReachable").await;
    agent.handle.close(MuxReason::Local("the test is over"));
    agent.ended().await;
    let lost = event(&house, "Disconnected").await;
    assert_eq!(lost.kind, EventType::Warning);
    assert!(lost.message.contains("ended after ") && lost.message.ends_with("; sessions: 0"), "{}", lost.message);

    for _ in 0..3 {
        let mut agent = Agent::dial(&house, &credentials).await;
        agent.say(&Message::Hello(hello(Some("west")))).await;
        assert_eq!(agent.refused().await.reason, CloseReason::WrongCluster);
    }
    let refused = event(&house, "Refused").await;
    assert_eq!(
        refused.message,
        "an agent from 127.0.0.1 was refused (wrong-cluster): this certificate does not stand \
                                 for cluster west"
    );
    let all = events(&house, "east").await;
    let reasons: Vec<_> = all.iter().map(|event| (event.reason.as_str(), event.count)).collect();
    let expected = ["Registered", "Connected", "KubeAPIServerReachable", "Disconnected"].map(|reason| (reason, 1));
    assert_eq!(reasons, [&expected[..], &[("Refused", 3)]].concat());
    assert!(all[1].message.contains("from 127.0.0.1:") && all[1].message.contains("agent test"), "{}", all[1].message);
    assert_eq!(events(&house, "west").await.len(), 1, "nobody else's");
    drop(house.ended().await);
}

#[tokio::test]
async fn events_are_for_who_may_get_the_cluster() {
    let _logs = Logs::capture();
    let house = House::start_with(|raw| {
        let dir = raw.state_dir.clone().unwrap();
        let tokens = dir.join("t.csv");
        std::fs::write(&tokens, "tok,ann,1,\"devs\"\n").unwrap();
        raw.token_auth_file = Some(tokens);
    })
    .await;
    let ann = house.user().with_token("tok");
    // Not even whether there is such a cluster.
    for name in ["east", "nowhere"] {
        let path = paths::events(&name.parse().unwrap());
        assert_eq!(ann.ask(Method::GET, &path, "").await.0, StatusCode::FORBIDDEN);
    }
    drop(house.ended().await);
}

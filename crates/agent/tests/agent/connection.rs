//! The connection resource: read, followed, reported on. The kube-apiserver is scripted.

use http::Method;
use http_body_util::BodyExt as _;
use moorline_agent::RawConfig;
use moorline_testkit::Refusing;
use moorline_wire::{CloseReason, Message, Refused};
use serde_json::json;

use crate::{
    api::{Api, CONNECTIONS},
    bench::{Agent, eventually, within},
    hub::{Hub, QUIET, text},
    upstream::Upstream,
};

fn following(hub: &Hub, upstream: &str) -> RawConfig {
    RawConfig {
        management_cluster_addr: None,
        management_cluster_connection: Some("default".to_owned()),
        ..hub.raw(upstream)
    }
}

fn at(hub: &Hub) -> String {
    format!("127.0.0.1:{}", hub.port())
}

#[tokio::test]
async fn an_agent_waits_for_the_resource_and_says_how_it_fares() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    let agent = Agent::start(&following(&hub, &api.url()));
    agent.says("tunnel failed: NotConfigured").await;
    api.connect_to(&at(&hub));
    let _session = hub.session(QUIET).await;
    let condition = api.becomes("True", "Connected").await;
    assert_eq!(condition["observedGeneration"], 1);
    assert_eq!(condition["message"], format!("connected to {}", at(&hub)));
    assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'), "{condition}");
    assert!(agent.page("/metrics").await.contains("moorline_agent_standing{reason=\"Connected\"} 1"));
    // It is written once, and not again for having been written.
    let writes = api.count(&Method::PATCH, CONNECTIONS);
    api.apply(&format!("{CONNECTIONS}/other"), json!({ "metadata": {}, "spec": {} }));
    eventually("it reads on", || api.count(&Method::GET, CONNECTIONS) >= 2).await;
    assert_eq!((writes, api.count(&Method::PATCH, CONNECTIONS)), (1, 1));
    assert!(api.impersonated(CONNECTIONS).iter().all(Option::is_none), "these are the agent's own");
}

#[tokio::test]
async fn another_address_is_connected_first_and_then_the_old_one_left() {
    let (old, api, upstream) = (Hub::start().await, Api::start().await, Upstream::start().await);
    let new = old.twin().await;
    api.connect_to(&at(&old));
    // Requests and the resource come from different servers here, as the scripted ones know different things.
    let agent = Agent::start(&following(&old, &api.url()));
    let first = old.session(QUIET).await;
    api.becomes("True", "Connected").await;
    let watching = first
        .get(&format!(
            "{CONNECTIONS}?watch=true&fieldSelector=metadata.name%3Ddefault&allowWatchBookmarks=true&resourceVersion=0"
        ))
        .await;
    let mut body = watching.into_body();
    within(body.frame()).await.unwrap().unwrap().unwrap();

    api.connect_to(&at(&new));
    let mut second = new.hello().await;
    assert_eq!(first.get("/version").await.status(), 200, "the old session serves until the new one does");
    assert_eq!(api.available()["observedGeneration"], 1, "nothing is known yet of the new address");
    second.welcome(QUIET).await;
    let condition = api.becomes("True", "Connected").await;
    eventually("the new one is reported", || api.available()["observedGeneration"] == 2).await;
    assert_eq!(api.available()["lastTransitionTime"], condition["lastTransitionTime"], "it was available all along");
    assert_eq!(text(second.get("/version").await).await.len(), r#"{"gitVersion":"v1.33.0"}"#.len());
    within(body.frame()).await.unwrap().unwrap().expect("the request in flight goes on over the old session");
    drop(body);
    assert!(first.ended().await.is_graceful());
    agent.shows("moorline_agent_sessions 1").await;
    drop(upstream);
}

#[tokio::test]
async fn a_wrong_address_is_told_and_the_last_good_one_stays() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    api.connect_to(&at(&hub));
    let agent = Agent::start(&following(&hub, &api.url()));
    let session = hub.session(QUIET).await;
    api.becomes("True", "Connected").await;
    api.connect_to("https://no.address");
    let condition = api.becomes("False", "InvalidConfiguration").await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("HOST:PORT") && message.contains("stays in use"), "{message}");
    assert_eq!(
        (session.get("/version").await.status().as_u16(), condition["observedGeneration"].clone()),
        (200, json!(2))
    );
    // An address where nobody listens: the old session serves on.
    let nobody = Refusing::bind().unwrap();
    api.connect_to(&nobody.address().to_string());
    let condition = api.becomes("False", "ConnectionRefused").await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("Remedy:") && message.contains("still serves"), "{message}");
    assert_eq!(session.get("/version").await.status(), 200);
    // Gone: what it said last stays.
    api.delete(&format!("{CONNECTIONS}/default"));
    api.connect_to(&at(&hub));
    let again = hub.session(QUIET).await;
    api.becomes("True", "Connected").await;
    assert_eq!(again.get("/version").await.status(), 200);
    assert!(agent.page("/metrics").await.contains("moorline_agent_standing{reason=\"Connected\"} 1"));
}

#[tokio::test]
async fn a_removed_cluster_is_told_why_and_a_changed_resource_ends_its_wait() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    let other = hub.twin().await;
    api.connect_to(&at(&hub));
    let agent = Agent::start(&following(&hub, &api.url()));
    let mut session = hub.hello().await;
    let message = "removed by an administrator".to_owned();
    session
        .say(&Message::Refused(Refused { reason: CloseReason::ClusterDeleted, message, reconnect_after_ms: None }))
        .await;
    let condition = api.becomes("False", "ClusterDeleted").await;
    assert!(condition["message"].as_str().unwrap().contains("moorline cluster add"), "{condition}");
    agent.says("tunnel failed: ClusterDeleted").await;
    // The agent rests for up to ten seconds and more; another address ends that.
    api.connect_to(&at(&other));
    let _session = other.session(QUIET).await;
    api.becomes("True", "Connected").await;
}

#[tokio::test]
async fn a_kube_apiserver_that_stumbles_only_delays() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    api.connect_to(&at(&hub));
    // The kind is not known, then the agent may not, then its token is refused, then it broke.
    for code in [404, 403, 401, 500] {
        api.script(Method::GET, code);
    }
    api.script(Method::PATCH, 409);
    api.script(Method::PATCH, 500);
    let agent = Agent::start(&following(&hub, &api.url()));
    let _session = hub.session(QUIET).await;
    api.becomes("True", "Connected").await;
    let metrics = agent.page("/metrics").await;
    assert!(metrics.contains("moorline_agent_condition_writes_total{result=\"conflict\"} 1"), "{metrics}");
    // A line of its own: the line of help begins with the same words.
    assert!(metrics.contains("\nmoorline_agent_connection_resource_ok 1\n"), "{metrics}");
}

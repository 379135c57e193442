//! Who is told, without asking, what happens to clusters.

use std::time::Duration;

use http::StatusCode;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;

use super::audit::Receiver;
use super::people::until;

/// Longer than an agent takes to come back, on a busy machine as well.
const SETTLE: Duration = Duration::from_secs(10);

/// What the webhook was told of `east` so far.
fn told(receiver: &Receiver) -> Vec<String> {
    let posted = receiver.posted.lock().unwrap();
    let events = posted.iter().flat_map(|list| {
        assert_eq!((&list["kind"], &list["apiVersion"]), (&"ClusterEventList".into(), &"moorline.io/v1alpha1".into()));
        list["items"].as_array().unwrap()
    });
    let of_east = events.filter(|event| event["involvedObject"]["name"] == "east");
    of_east.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_webhook_is_told_what_lasts_and_not_what_passes() {
    let _logs = Logs::capture();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("webhook.kubeconfig");
    let receiver = Receiver::start(&kubeconfig).await;
    // Down at first: it is tried again.
    receiver.answers(StatusCode::SERVICE_UNAVAILABLE);
    let server = Server::start_with(|raw| {
        raw.event_webhook_config_file = Some(kubeconfig);
        raw.event_webhook_settle = Some(format!("{}s", SETTLE.as_secs()));
    })
    .await
    .unwrap();
    let upstream = Upstream::start().await.unwrap();
    let created = server.create("east").await.unwrap();
    let mut agent = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    receiver.answers(StatusCode::OK);
    let reasons = |reason: &str| told(&receiver).iter().filter(|told| *told == reason).count();
    until("it is told that it connected", async || reasons("Connected") == 1).await;
    assert_eq!(told(&receiver)[0], "Registered");
    assert_eq!(reasons("Disconnected"), 0);
    // An agent that restarts is there again before its absence has lasted.
    agent.stop();
    agent.ended().await.unwrap();
    let mut agent = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    // One that goes for good is told, and the restart before it never.
    let sessions = async || server.cluster("east").await.unwrap().status.sessions.len();
    until("one session", async || sessions().await == 1).await;
    agent.stop();
    agent.ended().await.unwrap();
    until("it is told that it is gone", async || reasons("Disconnected") == 1).await;
    assert_eq!(reasons("Connected"), 1);
    assert_eq!(server.metric("moorline_event_webhook_events_total", &["dropped"]).await.unwrap(), 0.0);
}

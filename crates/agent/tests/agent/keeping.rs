//! The identity kept in a Secret. The kube-apiserver is scripted.

use std::time::Duration;

use http::Method;
use moorline_agent::RawConfig;
use moorline_ca::Authority;

use crate::{
    api::Api,
    bench::{Agent, eventually, now, spawn},
    hub::{Hub, QUIET},
};

pub(crate) const SECRET: &str = "/api/v1/namespaces/moorline/secrets/moorline-agent-certs";

fn keeping(hub: &Hub, api: &Api) -> RawConfig {
    RawConfig {
        identity_secret: Some("moorline/moorline-agent-certs".to_owned()),
        management_cluster_connection: Some("default".to_owned()),
        ..hub.raw(&api.url())
    }
}

#[tokio::test]
async fn a_repaired_secret_is_taken_at_once_and_counts_before_the_mount() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    let good = hub.secret();
    let stranger = Authority::generate("stranger", now(), Duration::from_secs(86_400)).unwrap();
    hub.install(&stranger);
    api.apply(SECRET, hub.secret());
    api.connect_to(&format!("127.0.0.1:{}", hub.port()));
    let agent = Agent::start(&keeping(&hub, &api));
    hub.handshake().await.unwrap_err();
    // The agent does not know this server's authority; it rests for long after such a failure.
    api.becomes("False", "UnknownAuthority").await;
    api.apply(SECRET, good);
    let _session = hub.session(QUIET).await;
    api.becomes("True", "Connected").await;
    // A line of its own: the line of help begins with the same words.
    assert!(agent.page("/metrics").await.contains("\nmoorline_agent_identity_secret_ok 1\n"));
    assert!(api.impersonated(SECRET).iter().all(Option::is_none));
    assert_eq!(api.count(&Method::PUT, SECRET), 0, "nothing was renewed");
}

#[tokio::test]
async fn an_older_certificate_that_is_put_back_is_replaced_again() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    let hours_ago = |hours: u64| now().saturating_sub(Duration::from_secs(hours * 3600));
    let authority = Authority::generate("tunnel", hours_ago(3), Duration::from_secs(864_000)).unwrap();
    hub.install_at(&authority, hours_ago(1));
    let old = hub.secret();
    hub.install_at(&authority, now());
    let new = hub.secret();
    api.connect_to(&format!("127.0.0.1:{}", hub.port()));
    api.apply(SECRET, new.clone());
    let _agent = Agent::start(&keeping(&hub, &api));
    spawn(async move {
        loop {
            drop(hub.handshake().await);
        }
    });
    // The server is another's, so the agent has no session and looks often.
    api.becomes("False", "UnknownAuthority").await;
    api.apply(SECRET, old);
    let back = || api.object(SECRET).unwrap()["data"] == new["data"];
    eventually("the newer one is back", || api.count(&Method::PUT, SECRET) == 1 && back()).await;
}

#[tokio::test]
async fn without_its_secret_an_agent_goes_on_with_the_mount_and_says_so() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    api.connect_to(&format!("127.0.0.1:{}", hub.port()));
    let agent = Agent::start(&keeping(&hub, &api));
    let _session = hub.session(QUIET).await;
    let what = "the condition tells of it";
    eventually(what, || api.available()["message"].as_str().is_some_and(|text| text.contains("create it"))).await;
    let condition = api.available();
    assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("True"), Some("Connected")));
    assert!(agent.page("/metrics").await.contains("\nmoorline_agent_identity_secret_ok 0\n"));
}

#[tokio::test]
async fn a_secret_that_can_be_read_again_is_no_longer_told_of() {
    let (hub, api) = (Hub::start().await, Api::start().await);
    hub.install(&Authority::generate("stranger", now(), Duration::from_secs(86_400)).unwrap());
    api.apply(SECRET, hub.secret());
    api.connect_to(&format!("127.0.0.1:{}", hub.port()));
    let secret = api.object(SECRET).unwrap();
    let agent = Agent::start(&keeping(&hub, &api));
    spawn(async move {
        loop {
            drop(hub.handshake().await);
        }
    });
    // The server is another's, so the agent has no session and looks often.
    agent.shows("moorline_agent_identity_secret_ok 1").await;
    api.delete(SECRET);
    agent.shows("moorline_agent_identity_secret_ok 0").await;
    api.apply(SECRET, secret);
    agent.shows("moorline_agent_identity_secret_ok 1").await;
    assert_eq!(api.count(&Method::PUT, SECRET), 0, "nothing was written");
}

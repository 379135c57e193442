//! Each certificate opens the door of its own dialect and no other; what nobody registered opens none.

use std::time::Duration;

use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, paths};
use moorline_ca::Authority;
use moorline_model::{ClusterUid, Timestamp};
use moorline_mtls::{ClientStream, HttpsConnector, KeyPair, Roots, Source};
use moorline_testkit::logs::Logs;
use moorline_wire::{CloseReason, Message};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    agent::{Agent, Credentials, hello},
    house::{House, LIMIT, logs_tell},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A cluster whose agent is Calico's Guardian.
pub(crate) async fn guardian(house: &House, name: &str) -> Credentials {
    let body = serde_json::json!({"name": name, "dialect": "guardian"}).to_string();
    let (code, body) = house.user().ask(Method::POST, paths::CLUSTERS, &body).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    Credentials::from(&serde_json::from_str::<CreatedCluster>(&body).unwrap().enrolment)
}

/// The handshake of a Guardian, with any certificate.
pub(crate) async fn as_guardian(house: &House, with: &Credentials) -> ClientStream<TcpStream> {
    let roots = Roots::from_pem(with.authority.as_bytes()).unwrap();
    let keys = KeyPair::from_pem(with.certificate.as_bytes(), with.key.as_bytes()).unwrap();
    let connector = HttpsConnector::new(roots, Some(Source::fixed(keys)), &[]);
    let socket = TcpStream::connect(house.tunnel).await.unwrap();
    connector.connect(socket, "moorline-tunnel", LIMIT).await.unwrap()
}

/// It was hung up on, politely: Guardian dials again after a clean end, and after nothing else.
async fn is_hung_up_on(mut stream: ClientStream<TcpStream>) {
    let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await.expect("it hangs");
    ended.unwrap();
}

#[tokio::test]
async fn a_guardian_comes_in_by_its_certificate_until_that_is_revoked() {
    let logs = Logs::capture();
    let house = House::start().await;
    let west = guardian(&house, "west").await;
    let inside = as_guardian(&house, &west).await;
    logs_tell(&logs, &["session began", "west"]).await;
    let (code, body) = house.user().ask(Method::POST, &paths::revocation(&"west".parse().unwrap()), "").await;
    assert_eq!(code, StatusCode::OK, "{body}");
    is_hung_up_on(inside).await;
    // Another one keeps the door open to Guardians.
    guardian(&house, "north").await;
    is_hung_up_on(as_guardian(&house, &west).await).await;
    logs_tell(&logs, &["a Guardian refused", "not registered, revoked or replaced"]).await;
    drop(house.ended().await);
}

#[tokio::test]
async fn a_guardians_certificate_lets_no_other_agent_in() {
    let logs = Logs::capture();
    let house = House::start().await;
    let west = guardian(&house, "west").await;
    let mut agent = Agent::dial(&house, &west).await;
    agent.say(&Message::Hello(hello(Some("west")))).await;
    let refused = agent.refused().await;
    assert_eq!(refused.reason, CloseReason::UnknownCertificate);
    assert!(refused.message.contains("issued for Calico's Guardian"), "{}", refused.message);
    logs_tell(&logs, &["agent refused", "lets no other agent in"]).await;
    assert!(house.user().cluster("west").await.status.agent_version.is_none());
    drop(house.ended().await);
}

#[tokio::test]
async fn an_agents_certificate_lets_no_guardian_in() {
    let logs = Logs::capture();
    let house = House::start().await;
    guardian(&house, "west").await;
    let east = Credentials::from(&house.user().create("east").await.enrolment);
    is_hung_up_on(as_guardian(&house, &east).await).await;
    logs_tell(&logs, &["a Guardian refused", "issued for Moorline's own agent"]).await;
    assert!(house.user().cluster("east").await.status.agent_version.is_none());
    // It opens its own.
    let mut agent = Agent::dial(&house, &east).await;
    agent.say(&Message::Hello(hello(Some("east")))).await;
    assert_eq!(agent.welcome().await.cluster.as_str(), "east");
    drop(house.ended().await);
}

#[tokio::test]
async fn a_certificate_that_nobody_registered_is_nobodys() {
    let logs = Logs::capture();
    let house = House::start().await;
    let west = guardian(&house, "west").await;
    let now: Timestamp = std::time::SystemTime::now().into();
    let (name, uid) = ("west".parse().unwrap(), ClusterUid::from_bytes([1; 16]));
    // Signed by anybody, or by ours.
    for authority in [Authority::generate("anybody", now, HOUR).unwrap(), house.tunnel_authority()] {
        let made = west.with(&authority.issue_guardian(&name, &uid, now, HOUR).unwrap());
        is_hung_up_on(as_guardian(&house, &made).await).await;
    }
    let metrics = house.metrics().await;
    assert!(metrics.contains("moorline_tunnel_refused_total{reason=\"unknown-certificate\"} 2"), "{metrics}");
    logs_tell(&logs, &["a Guardian refused", "no cluster of dialect guardian has its certificate"]).await;
    assert!(house.user().cluster("west").await.status.agent_version.is_none());
    drop(house.ended().await);
}

#[tokio::test]
async fn where_no_guardian_is_registered_none_is_heard() {
    let logs = Logs::capture();
    let house = House::start().await;
    let east = Credentials::from(&house.user().create("east").await.enrolment);
    is_hung_up_on(as_guardian(&house, &east).await).await;
    logs_tell(&logs, &["agent refused", "does not speak \"moorline/1\""]).await;
    drop(house.ended().await);
}

//! Who is not let in, what they are told, and what our log says.

use std::time::Duration;

use moorline_ca::Authority;
use moorline_model::{ClusterUid, Timestamp};
use moorline_mtls::{HandshakeError, Refusal};
use moorline_testkit::{eventually, logs::Logs};
use moorline_wire::{CloseReason, Heartbeat, Message};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    agent::{Agent, Credentials, hello, refused_by_tls},
    house::{House, LIMIT, logs_tell},
};

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn no_certificate() {
    let logs = Logs::capture();
    let house = House::start().await;
    let authority = house.tunnel_authority();
    let roots = moorline_mtls::Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap();
    let connector = moorline_mtls::HttpsConnector::new(roots, None, &[moorline_wire::ALPN]);
    let socket = TcpStream::connect(house.tunnel).await.unwrap();
    let mut tls = connector.connect(socket, "moorline-tunnel", LIMIT).await.unwrap();
    let error = tls.read_u8().await.unwrap_err();
    let refused = HandshakeError::Refused(Refusal::CertificateRequired);
    assert_eq!(moorline_mtls::explain_io(&error), Some(refused));
    logs_tell(&logs, &["agent refused", "presented no client certificate"]).await;
    let metrics = house.metrics().await;
    assert!(metrics.contains("moorline_tunnel_refused_total{reason=\"no-client-certificate\"} 1"), "{metrics}");
    drop(house.ended().await);
}

#[tokio::test]
async fn a_certificate_of_another_authority() {
    let logs = Logs::capture();
    let house = House::start().await;
    let good = Credentials::from(&house.user().create("east").await.enrolment);
    let stranger = Authority::generate("somebody else", now(), HOUR).unwrap();
    let east = "east".parse().unwrap();
    let issued = stranger.issue_agent(&east, &ClusterUid::from_bytes([1; 16]), now(), HOUR).unwrap();
    let error = refused_by_tls(&house, &good.with(&issued)).await;
    assert_eq!(error, HandshakeError::Refused(Refusal::UnknownAuthority));
    logs_tell(&logs, &["agent refused", "authority that is not trusted"]).await;
    drop(house.ended().await);
}

#[tokio::test]
async fn an_expired_certificate() {
    let logs = Logs::capture();
    let house = House::start().await;
    let good = Credentials::from(&house.user().create("east").await.enrolment);
    let past = now().saturating_sub(Duration::from_secs(240));
    let uid = ClusterUid::from_bytes([1; 16]);
    let issued =
        house.tunnel_authority().issue_agent(&"east".parse().unwrap(), &uid, past, Duration::from_secs(60)).unwrap();
    let error = refused_by_tls(&house, &good.with(&issued)).await;
    assert_eq!(error, HandshakeError::Refused(Refusal::CertificateTime));
    logs_tell(&logs, &["agent refused", "expired 3 minutes ago"]).await;
    drop(house.ended().await);
}

#[tokio::test]
async fn the_certificate_of_a_deleted_cluster() {
    let logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let credentials = Credentials::from(&user.create("gone").await.enrolment);
    user.create("other").await;
    assert_eq!(user.delete("gone").await.0, 200);
    let mut agent = Agent::dial(&house, &credentials).await;
    agent.say(&Message::Hello(hello(None))).await;
    let refused = agent.refused().await;
    assert_eq!(refused.reason, CloseReason::ClusterDeleted);
    assert!(!refused.message.contains("other"), "{}", refused.message);
    logs_tell(&logs, &["agent refused", "was issued for is not registered here", "gone"]).await;
    // Nor does the name help when it is given to another cluster.
    user.create("gone").await;
    let mut agent = Agent::dial(&house, &credentials).await;
    agent.say(&Message::Hello(hello(Some("gone")))).await;
    assert_eq!(agent.refused().await.reason, CloseReason::ClusterDeleted);
    drop(house.ended().await);
}

/// After an older store was restored, what an authority of ours signed is enough, but not for the other dialect's door.
#[tokio::test]
async fn a_guardians_certificate_is_not_adopted_for_another_agent() {
    let logs = Logs::capture();
    let until = now().saturating_add(HOUR).to_string();
    let house = House::start_with(|raw| raw.adopt_until = Some(until)).await;
    let good = Credentials::from(&house.user().create("east").await.enrolment);
    let (authority, uid) = (house.tunnel_authority(), ClusterUid::from_bytes([1; 16]));
    let lost = authority.issue_guardian(&"west".parse().unwrap(), &uid, now(), HOUR).unwrap();
    let mut agent = Agent::dial(&house, &good.with(&lost)).await;
    agent.say(&Message::Hello(hello(Some("west")))).await;
    assert_eq!(agent.refused().await.reason, CloseReason::ClusterDeleted);
    logs_tell(&logs, &["not adopted", "Guardian", "west"]).await;
    let ours = authority.issue_agent(&"west".parse().unwrap(), &uid, now(), HOUR).unwrap();
    let mut agent = Agent::dial(&house, &good.with(&ours)).await;
    agent.say(&Message::Hello(hello(Some("west")))).await;
    assert_eq!(agent.welcome().await.cluster.as_str(), "west");
    drop(house.ended().await);
}

#[tokio::test]
async fn a_certificate_that_claims_to_be_another_cluster() {
    let logs = Logs::capture();
    let house = House::start().await;
    let user = house.user();
    let east = Credentials::from(&user.create("east").await.enrolment);
    user.create("west").await;
    for claim in ["west", "nowhere"] {
        let mut agent = Agent::dial(&house, &east).await;
        agent.say(&Message::Hello(hello(Some(claim)))).await;
        let refused = agent.refused().await;
        // The same words whether the claimed cluster exists or not.
        assert_eq!(refused.reason, CloseReason::WrongCluster);
        assert_eq!(refused.message, format!("this certificate does not stand for cluster {claim}"));
        assert_eq!(agent.hear().await, None);
    }
    logs_tell(&logs, &["agent refused", "claims to be cluster west", "certificate is of east"]).await;
    let mut agent = Agent::dial(&house, &east).await;
    agent.say(&Message::Hello(hello(Some("east")))).await;
    assert_eq!(agent.welcome().await.cluster.as_str(), "east");
    drop(house.ended().await);
}

#[tokio::test]
async fn agents_that_speak_otherwise() {
    let logs = Logs::capture();
    let house = House::start_with(|raw| raw.hello_timeout = Some("2s".to_owned())).await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);

    let mut newer = Agent::dial(&house, &credentials).await;
    newer.say(&Message::Hello(moorline_wire::Hello { protocol_min: 7, protocol_max: 9, ..hello(None) })).await;
    let refused = newer.refused().await;
    assert_eq!(refused.reason, CloseReason::VersionUnsupported);
    assert!(refused.message.contains("7 to 9") && refused.message.contains("1 to 1"), "{}", refused.message);

    let mut rude = Agent::dial(&house, &credentials).await;
    rude.say(&Message::Heartbeat(Heartbeat { sequence: 1 })).await;
    assert_eq!(rude.refused().await.reason, CloseReason::ProtocolError);

    let mut garbage = Agent::dial(&house, &credentials).await;
    garbage.say_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(garbage.refused().await.reason, CloseReason::ProtocolError);

    let mut slow = Agent::dial(&house, &credentials).await;
    slow.say_bytes(&[0, 0]).await;
    assert_eq!(slow.refused().await.reason, CloseReason::HelloTimeout);

    let silent = Agent::dial(&house, &credentials).await;
    silent.driver.await.unwrap();
    logs_tell(&logs, &["agent refused", "opened no control stream in time"]).await;
    drop(house.ended().await);
}

#[tokio::test]
async fn f32_silent_connections_do_not_keep_agents_out() {
    let logs = Logs::capture();
    let house = House::start_with(|raw| {
        raw.max_handshakes = Some(8);
        raw.max_handshakes_per_address = Some(4);
        raw.handshake_timeout = Some("2s".to_owned());
    })
    .await;
    let credentials = Credentials::from(&house.user().create("east").await.enrolment);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(house.tunnel).await.unwrap());
    }
    // Those over the address's share are hung up on at once, the others when their time is up.
    for mut socket in silent {
        drop(socket.write_all(b"x").await);
        drop(tokio::time::timeout(LIMIT, socket.read_u8()).await.expect("hung up"));
    }
    let mut agent = Agent::dial(&house, &credentials).await;
    agent.say(&Message::Hello(hello(None))).await;
    agent.welcome().await;
    let metrics = house.metrics().await;
    assert!(metrics.contains("moorline_tunnel_refused_total{reason=\"address-busy\"}"), "{metrics}");
    drop((logs, house.ended().await));
}

#[tokio::test]
async fn f06_handshakes_are_admitted_at_a_bounded_rate() {
    let house = House::start_with(|raw| raw.handshake_rate = Some(1)).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(TcpStream::connect(house.tunnel).await.unwrap());
    }
    // Two at once, and one a second.
    let refused = |metrics: &str| -> Option<u64> {
        let count =
            metrics.lines().find_map(|line| line.strip_prefix("moorline_tunnel_refused_total{reason=\"rate\"} "));
        count?.parse().ok().filter(|count| *count >= 6)
    };
    eventually(LIMIT, async || refused(&house.metrics().await)).await.unwrap();
    drop(open);
    drop(house.ended().await);
}

//! Whoever joins: shows no certificate, knows the server by a pin only, and can never become an agent that way.

use moorline_model::Fingerprint;
use moorline_mtls::{
    Arrived, Connector, HandshakeError, HttpsConnector, JoinConnector, Refusal, Roots, TunnelAcceptor,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::minted::{ALPN, LIMIT, SERVER_NAME, World, days_from_now, first_read, link};

const JOIN: &[u8] = b"moorline-join/1";

fn pin(world: &World) -> Fingerprint {
    moorline_pki::fingerprint(&world.roots().authorities()[0].public_key)
}

fn door(world: &World) -> TunnelAcceptor {
    world.acceptor().with_join(JOIN).unwrap()
}

async fn meet(door: &TunnelAcceptor, pins: &[Fingerprint]) -> (Result<(), HandshakeError>, Result<(), HandshakeError>) {
    let (near, far) = link();
    let joiner = JoinConnector::new(pins.to_vec(), JOIN);
    let client = async {
        let mut stream = joiner.connect(near, SERVER_NAME, LIMIT).await?;
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        first_read(&mut stream).await
    };
    let server = async {
        let arriving = door.hear(far, LIMIT).await?;
        assert!(arriving.joins());
        let Arrived::Stranger(mut stream) = arriving.finish().await? else { panic!("no agent") };
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
        stream.write_all(b"!").await.unwrap();
        stream.flush().await.unwrap();
        Ok(())
    };
    tokio::join!(server, client)
}

#[tokio::test]
async fn the_pin_of_the_authority_is_enough() {
    let world = World::new();
    assert_eq!(meet(&door(&world), &[pin(&world)]).await, (Ok(()), Ok(())));
    let guardians_too = door(&world).with_guardian(|| true).unwrap();
    assert_eq!(meet(&guardians_too, &[pin(&world)]).await, (Ok(()), Ok(())));
    let several = [Fingerprint::from_bytes([1; 32]), pin(&world)];
    assert_eq!(meet(&door(&world), &several).await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn any_authority_of_an_overlap_is_shown() {
    let (old, new) = (World::new(), World::new());
    let both = Roots::from_pem(format!("{}{}", new.roots_pem(), old.roots_pem()).as_bytes()).unwrap();
    let door = TunnelAcceptor::new(new.server(), both, ALPN).unwrap().with_join(JOIN).unwrap();
    assert_eq!(meet(&door, &[pin(&new)]).await, (Ok(()), Ok(())));
    // The old one is shown, and did not sign this server.
    let (_, joined) = meet(&door, &[pin(&old)]).await;
    assert_eq!(joined, Err(HandshakeError::UnknownAuthority));
}

#[tokio::test]
async fn another_servers_pin_is_refused_before_anything_is_said() {
    let (ours, theirs) = (World::new(), World::new());
    let (accepted, joined) = meet(&door(&ours), &[pin(&theirs)]).await;
    let error = joined.unwrap_err();
    assert_eq!((&error, error.reason()), (&HandshakeError::WrongPin, "wrong-pin"));
    assert!(matches!(accepted, Err(HandshakeError::Refused(_))), "{accepted:?}");
    // Nor is the pin of a server's own certificate one of an authority.
    let leaf = moorline_pki::fingerprint(&ours.server().info().public_key);
    assert_eq!(meet(&door(&ours), &[leaf]).await.1, Err(HandshakeError::WrongPin));
    assert_eq!(meet(&door(&ours), &[]).await.1, Err(HandshakeError::WrongPin));
}

#[tokio::test]
async fn name_and_time_count_as_always() {
    let world = World::new();
    let other = world.server_at(days_from_now(0), &["else.example"]);
    let door = TunnelAcceptor::new(other, world.roots(), ALPN).unwrap().with_join(JOIN).unwrap();
    assert!(matches!(meet(&door, &[pin(&world)]).await.1, Err(HandshakeError::WrongName { .. })));
    let old = world.server_at(days_from_now(-5), &[SERVER_NAME]);
    let door = TunnelAcceptor::new(old, world.roots(), ALPN).unwrap().with_join(JOIN).unwrap();
    assert_eq!(meet(&door, &[pin(&world)]).await.1.unwrap_err().reason(), "expired");
    // An agent is no server, although the same authority signed it.
    let door = TunnelAcceptor::new(world.agent(), world.roots(), ALPN).unwrap().with_join(JOIN).unwrap();
    assert!(meet(&door, &[pin(&world)]).await.1.is_err());
}

#[tokio::test]
async fn no_offer_gets_a_tunnel_without_a_certificate() {
    let world = World::new();
    nobody_enters_without_a_certificate(&world, &door(&world)).await;
    nobody_enters_without_a_certificate(&world, &door(&world).with_guardian(|| true).unwrap()).await;
}

async fn nobody_enters_without_a_certificate(world: &World, door: &TunnelAcceptor) {
    for offer in [&[ALPN][..], &[ALPN, JOIN], &[JOIN, ALPN], &[JOIN, b"h2"], &[]] {
        let (near, far) = link();
        let offer: &'static [&'static [u8]] = Box::leak(offer.to_vec().into_boxed_slice());
        let stranger = HttpsConnector::new(world.roots(), None, offer);
        let client = async {
            let mut stream = stranger.connect(near, SERVER_NAME, LIMIT).await?;
            first_read(&mut stream).await
        };
        let server = async {
            let arriving = door.hear(far, LIMIT).await?;
            assert!(!arriving.joins(), "{offer:?}");
            arriving.finish().await
        };
        let (accepted, connected) = tokio::join!(server, client);
        assert!(accepted.is_err() && connected.is_err(), "{offer:?}: {accepted:?} {connected:?}");
    }
}

#[tokio::test]
async fn a_certificate_does_not_make_an_agent_of_who_joins() {
    let world = World::new();
    let (near, far) = link();
    let agent = Connector::new(world.agent(), world.roots(), JOIN);
    let door = door(&world);
    let server = async { door.hear(far, LIMIT).await?.finish().await };
    let (accepted, connected) = tokio::join!(server, agent.connect(near, SERVER_NAME, LIMIT));
    assert!(matches!(accepted.unwrap(), Arrived::Stranger(_)));
    connected.unwrap();
}

#[tokio::test]
async fn a_door_without_joining_says_so() {
    let world = World::new();
    let (near, far) = link();
    let (acceptor, joiner) = (world.acceptor(), JoinConnector::new(vec![pin(&world)], JOIN));
    let server = async { acceptor.hear(far, LIMIT).await?.finish().await };
    let (accepted, joined) = tokio::join!(server, joiner.connect(near, SERVER_NAME, LIMIT));
    assert!(matches!(accepted, Err(HandshakeError::AlpnMismatch { .. })), "{accepted:?}");
    assert_eq!(joined.unwrap_err(), HandshakeError::Refused(Refusal::NoApplicationProtocol));
}

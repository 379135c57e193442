//! Users and the gateway, and plain HTTPS clients: certificates are optional, wrong ones are not.

use moorline_mtls::{GatewayAcceptor, HandshakeError, HttpsConnector, KeyPair, Refusal, Source, VerifiedPeer};

use crate::minted::{LIMIT, SERVER_NAME, World, first_read, link};

const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];

type Met = (Result<Option<VerifiedPeer>, HandshakeError>, Result<(), HandshakeError>);

async fn meet(gateway: &GatewayAcceptor, client: &HttpsConnector, name: &str) -> Met {
    let (near, far) = link();
    let server = async {
        let (mut stream, peer) = gateway.accept(far, LIMIT).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"!").await.unwrap();
        tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
        assert_eq!(stream.alpn(), Some(&b"h2"[..]));
        Ok(peer)
    };
    let client = async {
        let mut stream = client.connect(near, name, LIMIT).await?;
        first_read(&mut stream).await
    };
    tokio::join!(server, client)
}

fn user(world: &World, keys: Option<KeyPair>) -> HttpsConnector {
    HttpsConnector::new(world.roots(), keys.map(Source::fixed), HTTP)
}

#[tokio::test]
async fn a_user_may_come_with_a_certificate_or_without() {
    let (gateway_ca, user_ca) = (World::new(), World::new());
    let gateway = GatewayAcceptor::new(gateway_ca.server(), Some(user_ca.roots().into())).unwrap();
    let (peer, connected) = meet(&gateway, &user(&gateway_ca, None), SERVER_NAME).await;
    connected.unwrap();
    assert_eq!(peer, Ok(None));

    let jane = user(&gateway_ca, Some(user_ca.user("jane", "dev")));
    let (peer, connected) = meet(&gateway, &jane, SERVER_NAME).await;
    connected.unwrap();
    let identity = peer.unwrap().unwrap().identity().unwrap();
    assert_eq!(
        (identity.user(), identity.groups()),
        ("jane", &["dev".to_owned(), "system:authenticated".to_owned()][..])
    );
}

#[tokio::test]
async fn a_wrong_certificate_is_no_way_to_be_nobody() {
    let (gateway_ca, user_ca, other) = (World::new(), World::new(), World::new());
    let gateway = GatewayAcceptor::new(gateway_ca.server(), Some(user_ca.roots().into())).unwrap();
    let mallory = user(&gateway_ca, Some(other.user("jane", "dev")));
    let (peer, connected) = meet(&gateway, &mallory, SERVER_NAME).await;
    assert_eq!(peer, Err(HandshakeError::UnknownAuthority));
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::UnknownAuthority)));
}

#[tokio::test]
async fn without_user_authorities_certificates_are_not_asked_for() {
    let world = World::new();
    let gateway = GatewayAcceptor::new(world.server(), None).unwrap();
    let (peer, connected) = meet(&gateway, &user(&world, Some(world.user("jane", "dev"))), SERVER_NAME).await;
    connected.unwrap();
    assert_eq!(peer, Ok(None), "nothing verified it, so it says nothing");
}

#[tokio::test]
async fn addresses_are_verified_like_names() {
    let world = World::new();
    let gateway = GatewayAcceptor::new(world.server(), None).unwrap();
    meet(&gateway, &user(&world, None), "127.0.0.1").await.1.unwrap();
    let (peer, connected) = meet(&gateway, &user(&world, None), "127.0.0.2").await;
    assert_eq!(connected.unwrap_err().reason(), "wrong-name");
    assert_eq!(peer, Err(HandshakeError::Refused(Refusal::BadCertificate)));
}

#[tokio::test]
async fn only_the_dangerous_client_believes_anybody() {
    let (world, other) = (World::new(), World::new());
    let gateway = GatewayAcceptor::new(world.server(), None).unwrap();
    assert_eq!(meet(&gateway, &user(&other, None), SERVER_NAME).await.1, Err(HandshakeError::UnknownAuthority));
    let reckless = HttpsConnector::dangerous_without_verification(None, HTTP);
    meet(&gateway, &reckless, "no.such.name").await.1.unwrap();
}

#[tokio::test]
async fn names_that_are_none_are_refused_before_anything_is_sent() {
    let world = World::new();
    let (near, _far) = link();
    let error = user(&world, None).connect(near, "not a name", LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("neither a DNS name nor an IP address"), "{error}");
    moorline_mtls::client::check_server_name("::1").unwrap();
    moorline_mtls::client::check_server_name("a_b.example").unwrap();
    moorline_mtls::client::check_server_name("host:443").unwrap_err();
}

//! Agent and server: what they accept of each other, and what both say when they do not.

use moorline_model::Timestamp;
use moorline_mtls::{Connector, Fault, HandshakeError, HttpsConnector, Refusal, Source, TunnelAcceptor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::minted::{ALPN, LIMIT, SERVER_NAME, World, days_from_now, first_read, link, meet};

#[tokio::test]
async fn both_sides_know_each_other() {
    let world = World::new();
    let (near, far) = link();
    let (acceptor, connector) = (world.acceptor(), world.connector());
    let (accepted, connected) = tokio::join!(acceptor.accept(far, LIMIT), connector.connect(near, SERVER_NAME, LIMIT));
    let ((mut server, agent), (mut client, seen)) = (accepted.unwrap(), connected.unwrap());
    assert_eq!(agent.common_name().as_deref(), Some("east"));
    assert_eq!(agent.info().unwrap().fingerprint, agent.fingerprint());
    assert_eq!(seen.info().unwrap().dns_names, [SERVER_NAME]);
    assert_eq!((server.alpn(), client.alpn()), (Some(ALPN), Some(ALPN)));
    assert_eq!((server.tls_version(), client.tls_version()), ("1.3", "1.3"));

    client.write_all(b"to the server").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to the server");
    server.write_all(b"and back, after the half-close").await.unwrap();
    server.shutdown().await.unwrap();
    text.clear();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "and back, after the half-close");
}

#[tokio::test]
async fn a_cut_is_not_a_clean_end() {
    let world = World::new();
    let (near, far) = link();
    let (acceptor, connector) = (world.acceptor(), world.connector());
    let (accepted, connected) = tokio::join!(acceptor.accept(far, LIMIT), connector.connect(near, SERVER_NAME, LIMIT));
    let ((mut server, _), (client, _)) = (accepted.unwrap(), connected.unwrap());
    drop(client);
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(server.read(&mut [0; 8]).await.map_err(|error| error.kind()), Err(std::io::ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn without_a_certificate_nobody_enters() {
    let world = World::new();
    let (near, far) = link();
    let stranger = HttpsConnector::new(world.roots(), None, &[ALPN]);
    let client = async {
        let mut stream = stranger.connect(near, SERVER_NAME, LIMIT).await?;
        first_read(&mut stream).await
    };
    let acceptor = world.acceptor();
    let (accepted, connected) = tokio::join!(acceptor.accept(far, LIMIT), client);
    let error = accepted.unwrap_err();
    assert_eq!(error, HandshakeError::NoClientCertificate);
    assert_eq!((error.fault(), error.reason()), (Fault::Peer, "no-client-certificate"));
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::CertificateRequired)));
}

#[tokio::test]
async fn an_agent_of_another_authority_is_refused() {
    let (ours, theirs) = (World::new(), World::new());
    let connector = Connector::new(theirs.agent(), ours.roots(), ALPN);
    let (accepted, connected) = meet(&ours.acceptor(), &connector).await;
    assert_eq!(accepted.unwrap_err(), HandshakeError::UnknownAuthority);
    let error = connected.unwrap_err();
    assert_eq!(error, HandshakeError::Refused(Refusal::UnknownAuthority));
    assert_eq!(error.fault(), Fault::Ours);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (World::new(), World::new());
    let connector = Connector::new(ours.agent(), theirs.roots(), ALPN);
    let (accepted, connected) = meet(&ours.acceptor(), &connector).await;
    assert_eq!(connected, Err(HandshakeError::UnknownAuthority));
    assert_eq!(accepted.unwrap_err(), HandshakeError::Refused(Refusal::UnknownAuthority));
}

#[tokio::test]
async fn an_expired_agent_is_told_and_the_log_says_since_when() {
    let world = World::new();
    let connector = Connector::new(world.agent_at(days_from_now(-5)), world.roots(), ALPN);
    let (accepted, connected) = meet(&world.acceptor(), &connector).await;
    let error = accepted.unwrap_err();
    assert_eq!(error.reason(), "expired");
    assert!(error.to_string().starts_with("the peer's certificate is expired 3 days ago, at "), "{error}");
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::CertificateTime)));
    let own = world.agent_at(days_from_now(-5)).check_validity(Timestamp::from(std::time::SystemTime::now()));
    assert!(own.unwrap_err().to_string().starts_with("expired 3 days ago"));
}

#[tokio::test]
async fn an_agent_from_the_future_is_told() {
    let world = World::new();
    let connector = Connector::new(world.agent_at(days_from_now(3)), world.roots(), ALPN);
    let (accepted, connected) = meet(&world.acceptor(), &connector).await;
    assert_eq!(accepted.unwrap_err().reason(), "not-yet-valid");
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::CertificateTime)));
}

#[tokio::test]
async fn an_expired_server_is_refused() {
    let world = World::new();
    let old = world.server_at(days_from_now(-5), &[SERVER_NAME]);
    let acceptor = TunnelAcceptor::new(old, world.roots(), ALPN).unwrap();
    let (accepted, connected) = meet(&acceptor, &world.connector()).await;
    assert_eq!(connected.unwrap_err().reason(), "expired");
    assert_eq!(accepted.unwrap_err(), HandshakeError::Refused(Refusal::CertificateTime));
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_with_both_names() {
    let world = World::new();
    let other = world.server_at(days_from_now(0), &["else.example", "10.0.0.1"]);
    let acceptor = TunnelAcceptor::new(other, world.roots(), ALPN).unwrap();
    let (accepted, connected) = meet(&acceptor, &world.connector()).await;
    let Err(HandshakeError::WrongName { expected, presented }) = connected else { panic!("{connected:?}") };
    assert_eq!(expected, SERVER_NAME);
    assert!(presented.contains("else.example"), "{presented}");
    assert_eq!(accepted.unwrap_err(), HandshakeError::Refused(Refusal::BadCertificate));
}

#[tokio::test]
async fn a_server_certificate_does_not_make_an_agent_nor_the_reverse() {
    let world = World::new();
    let connector = Connector::new(world.server(), world.roots(), ALPN);
    let (accepted, connected) = meet(&world.acceptor(), &connector).await;
    assert_eq!(accepted.unwrap_err(), HandshakeError::WrongPurpose);
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::WrongPurpose)));

    let acceptor = TunnelAcceptor::new(world.agent(), world.roots(), ALPN).unwrap();
    let (accepted, connected) = meet(&acceptor, &world.connector()).await;
    // Which of its faults is named first is the TLS library's choice: it has neither the name nor the purpose.
    assert!(matches!(connected, Err(HandshakeError::WrongPurpose | HandshakeError::WrongName { .. })), "{connected:?}");
    assert!(matches!(accepted.unwrap_err(), HandshakeError::Refused(_)));
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let world = World::new();
    let connector = Connector::new(world.agent(), world.roots(), b"h2");
    let (accepted, connected) = meet(&world.acceptor(), &connector).await;
    assert_eq!(accepted.unwrap_err(), HandshakeError::AlpnMismatch { wanted: "moorline/1".to_owned() });
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::NoApplicationProtocol)));
}

#[tokio::test]
async fn no_protocol_is_refused() {
    let world = World::new();
    let (near, far) = link();
    let silent = HttpsConnector::new(world.roots(), Some(world.agent().into()), &[]);
    let client = async {
        let mut stream = silent.connect(near, SERVER_NAME, LIMIT).await.unwrap();
        stream.read(&mut [0; 1]).await
    };
    let acceptor = world.acceptor();
    let (accepted, read) = tokio::join!(acceptor.accept(far, LIMIT), client);
    assert_eq!(accepted.unwrap_err().reason(), "alpn-mismatch");
    assert_eq!(read.unwrap(), 0, "a clean close: TLS has no alert for this");
}

#[tokio::test]
async fn new_keys_and_roots_count_from_the_next_handshake() {
    let (before, after) = (World::new(), World::new());
    let (keys, roots) = (Source::fixed(before.server()), Source::fixed(before.roots()));
    let acceptor = TunnelAcceptor::new(keys.clone(), roots.clone(), ALPN).unwrap();
    meet(&acceptor, &before.connector()).await.0.unwrap();
    keys.replace(after.server());
    roots.replace(after.roots());
    meet(&acceptor, &after.connector()).await.0.unwrap();
    meet(&acceptor, &before.connector()).await.0.unwrap_err();

    let (keys, roots) = (Source::fixed(before.agent()), Source::fixed(before.roots()));
    let connector = Connector::new(keys.clone(), roots.clone(), ALPN);
    meet(&acceptor, &connector).await.1.unwrap_err();
    keys.replace(after.agent());
    roots.replace(after.roots());
    meet(&acceptor, &connector).await.1.unwrap();
}

/// Both authorities are trusted while one replaces the other, so that no agent is lost.
#[tokio::test]
async fn authorities_overlap_in_a_bundle() {
    let (old, new) = (World::new(), World::new());
    let bundle = moorline_mtls::Roots::from_pem(format!("{}{}", old.roots_pem(), new.roots_pem()).as_bytes()).unwrap();
    let acceptor = TunnelAcceptor::new(old.server(), bundle.clone(), ALPN).unwrap();
    for world in [&old, &new] {
        let connector = Connector::new(world.agent(), bundle.clone(), ALPN);
        meet(&acceptor, &connector).await.1.unwrap();
    }
}

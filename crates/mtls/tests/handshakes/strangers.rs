//! Peers that are not ours: silent ones, ones that hang up, ones that speak something else, and old TLS.

use std::{sync::Arc, time::Duration};

use moorline_mtls::{HandshakeError, HttpsConnector, Refusal};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS12};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::minted::{ALPN, LIMIT, SERVER_NAME, World, first_read, link};

#[tokio::test(start_paused = true)]
async fn a_silent_peer_costs_the_limit_and_no_more() {
    let world = World::new();
    let limit = Duration::from_secs(7);
    let began = tokio::time::Instant::now();
    let (_silent, far) = link();
    assert_eq!(world.acceptor().accept(far, limit).await.unwrap_err(), HandshakeError::Timeout(limit));
    assert_eq!(began.elapsed(), limit);
    let (_silent, near) = link();
    let error = world.connector().connect(near, SERVER_NAME, limit).await.unwrap_err();
    assert_eq!(error, HandshakeError::Timeout(limit));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_a_byte_a_second_is_bounded_too() {
    let world = World::new();
    let (mut slow, far) = link();
    let trickle = async move {
        for byte in [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(0)) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let acceptor = world.acceptor();
    let (accepted, ()) = tokio::join!(acceptor.accept(far, LIMIT), trickle);
    assert_eq!(accepted.unwrap_err(), HandshakeError::Timeout(LIMIT));
}

#[tokio::test]
async fn hanging_up_is_told_from_probing() {
    let world = World::new();
    let (near, far) = link();
    drop(near);
    assert_eq!(world.acceptor().accept(far, LIMIT).await.unwrap_err(), HandshakeError::ClosedUnused);
    let (mut near, far) = link();
    near.write_all(&[22, 3, 1, 2]).await.unwrap();
    drop(near);
    assert_eq!(world.acceptor().accept(far, LIMIT).await.unwrap_err(), HandshakeError::Closed);
}

#[tokio::test]
async fn plain_http_is_named_on_both_sides() {
    let world = World::new();
    let (mut near, far) = link();
    near.write_all(b"GET / HTTP/1.1\r\nHost: tunnel\r\n\r\n").await.unwrap();
    let browser = async {
        let mut heard = Vec::new();
        near.shutdown().await.unwrap();
        near.read_to_end(&mut heard).await.unwrap();
    };
    let acceptor = world.acceptor();
    let (accepted, ()) = tokio::join!(acceptor.accept(far, LIMIT), browser);
    let error = accepted.unwrap_err();
    assert_eq!(error.to_string(), "the peer does not speak TLS: it sent a request in plain HTTP");

    let (near, mut far) = link();
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = world.connector().connect(near, SERVER_NAME, LIMIT).await.unwrap_err();
    assert_eq!(error.to_string(), "the peer does not speak TLS: it sent an answer in plain HTTP");
}

#[tokio::test]
async fn noise_is_an_error_and_never_a_panic() {
    let world = World::new();
    for noise in [&[0_u8; 64][..], &[0xff; 64], &[22, 3, 3, 0, 4, 1, 0, 0, 0], b"SSH-2.0-OpenSSH_9.9\r\n"] {
        let (mut near, far) = link();
        near.write_all(noise).await.unwrap();
        near.shutdown().await.unwrap();
        let peer = async move { near.read_to_end(&mut Vec::new()).await.unwrap() };
        let acceptor = world.acceptor();
        let (accepted, _heard) = tokio::join!(acceptor.accept(far, LIMIT), peer);
        let reason = accepted.unwrap_err().reason();
        assert!(matches!(reason, "not-tls" | "protocol"), "{noise:?}: {reason}");
    }
}

fn other_client(world: &World, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.roots_pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

#[tokio::test]
async fn old_tls_is_refused_at_the_tunnel() {
    let world = World::new();
    let (near, far) = link();
    let connector = TlsConnector::from(Arc::new(other_client(&world, &[&TLS12])));
    let acceptor = world.acceptor();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let (accepted, connected) = tokio::join!(acceptor.accept(far, LIMIT), connector.connect(name, near));
    assert_eq!(accepted.unwrap_err().reason(), "incompatible");
    let error = moorline_mtls::explain_io(&connected.unwrap_err()).unwrap();
    assert_eq!(error, HandshakeError::Refused(Refusal::Incompatible));
}

#[tokio::test]
async fn an_agent_notices_that_something_in_between_ends_tls() {
    let world = World::new();
    let issued = world.issue_server_pem();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
            rustls_pki_types::PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let (near, far) = link();
    let connector = world.connector();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (_either, connected) = tokio::join!(acceptor.accept(far), connector.connect(near, SERVER_NAME, LIMIT));
    assert_eq!(connected.unwrap_err(), HandshakeError::AlpnMismatch { wanted: "moorline/1".to_owned() });
}

/// Over real sockets: a client that goes on sending after its certificate was refused would meet a reset, which
/// throws the reason away, if the server hung up at once.
#[tokio::test]
async fn a_refused_client_that_keeps_talking_still_hears_why() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = async {
        let connector = HttpsConnector::new(world.roots(), None, &[ALPN]);
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(stream, SERVER_NAME, LIMIT).await.unwrap();
        let sent = stream.write_all(&[0; 16 * 1024]).await;
        drop(sent);
        first_read(&mut stream).await
    };
    let server = async {
        let (stream, _peer) = listener.accept().await.unwrap();
        world.acceptor().accept(stream, LIMIT).await.map(drop)
    };
    let (accepted, connected) = tokio::join!(server, client);
    assert_eq!(accepted, Err(HandshakeError::NoClientCertificate));
    assert_eq!(connected, Err(HandshakeError::Refused(Refusal::CertificateRequired)));
}

/// The check of the client's certificate belongs to the full handshake, so there must be no other.
#[tokio::test]
async fn nobody_resumes_a_session() {
    let world = World::new();
    let gateway = moorline_mtls::GatewayAcceptor::new(world.server(), None).unwrap();
    for version in [&rustls::version::TLS13, &TLS12] {
        let mut config = other_client(&world, &[version]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        for _attempt in 0..2 {
            let (near, far) = link();
            let name = ServerName::try_from(SERVER_NAME).unwrap();
            let server = async {
                let (mut stream, _none) = gateway.accept(far, LIMIT).await.unwrap();
                stream.write_all(b"!").await.unwrap();
                stream.flush().await.unwrap();
                stream
            };
            let client = async {
                let mut stream = connector.connect(name, near).await.unwrap();
                stream.read_u8().await.unwrap();
                stream.get_ref().1.handshake_kind()
            };
            let (_server, kind) = tokio::join!(server, client);
            // `FullWithHelloRetryRequest` would be as good.
            assert_ne!(kind, Some(rustls::HandshakeKind::Resumed));
            assert!(kind.is_some());
        }
    }
}

//! Within a stream of a Guardian session: we are the TLS client, Guardian is the server, and it is known by the one
//! certificate that its session came with.

use std::{sync::Arc, time::Duration};

use moorline_mtls::{ClientStream, Fault, HandshakeError, InnerConnector, Refusal};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    brought::{Shown, VERSIONS, brought, server},
    minted::{LIMIT, link},
};

const H2: &[&[u8]] = &[b"h2"];

/// Lets the two meet over one stream, and one byte each way go through.
async fn meet(server: &TlsAcceptor, pinned: &Shown, h2: bool) -> Result<ClientStream<DuplexStream>, HandshakeError> {
    let (near, far) = link();
    let connector = InnerConnector::new(pinned.fingerprint()).unwrap();
    let dialling = async {
        let mut stream =
            if h2 { connector.connect_h2(near, LIMIT).await? } else { connector.connect_http1(near, LIMIT).await? };
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'!');
        Ok(stream)
    };
    let serving = async {
        if let Ok(mut stream) = server.accept(far).await
            && stream.read_u8().await.is_ok()
        {
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
        }
    };
    tokio::join!(dialling, serving).0
}

#[tokio::test]
async fn the_one_certificate_is_believed_whatever_its_form() {
    for name in ["rsa-2048", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"] {
        let guardian = brought(name, name);
        for (version, spoken) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
            let server = server(&guardian, version, H2);
            let stream = meet(&server, &guardian, true).await.unwrap();
            assert_eq!((stream.alpn(), stream.tls_version()), (Some(&b"h2"[..]), spoken), "{name}");
            let stream = meet(&server, &guardian, false).await.unwrap();
            assert_eq!((stream.alpn(), stream.tls_version()), (None, spoken), "{name}");
        }
    }
}

#[tokio::test]
async fn another_certificate_is_refused_also_over_the_same_key() {
    let pinned = brought("rsa-2048", "rsa-2048");
    for shown in
        [brought("rsa-2048-again", "rsa-2048"), brought("rsa-2048-v3", "rsa-2048"), brought("ecdsa-p256", "ecdsa-p256")]
    {
        for version in VERSIONS {
            for h2 in [true, false] {
                let error = meet(&server(&shown, version, H2), &pinned, h2).await.unwrap_err();
                let (expected, presented) = (pinned.fingerprint(), shown.fingerprint());
                assert_eq!(error, HandshakeError::WrongCertificate { expected, presented });
                assert_eq!((error.reason(), error.fault()), ("wrong-certificate", Fault::Peer));
                let text = error.to_string();
                assert!(text.contains(&expected.to_string()) && text.contains(&presented.to_string()), "{text}");
            }
        }
    }
    // Nor is the right one behind another.
    let mut chain = brought("rsa-2048-again", "rsa-2048");
    chain.chain.push(pinned.leaf().clone());
    let error = meet(&server(&chain, &TLS13, H2), &pinned, true).await.unwrap_err();
    assert_eq!(error.reason(), "wrong-certificate");
}

#[tokio::test]
async fn the_certificate_without_its_key_is_of_no_use() {
    for shown in
        [brought("ecdsa-p256", "rsa-2048"), brought("rsa-2048", "ecdsa-p256"), brought("ed25519", "ecdsa-p384")]
    {
        for version in VERSIONS {
            let error = meet(&server(&shown, version, H2), &shown, true).await.unwrap_err();
            assert_eq!(error, HandshakeError::WrongKey);
        }
    }
}

#[tokio::test]
async fn http2_is_insisted_on_where_it_is_meant() {
    let guardian = brought("ecdsa-p256", "ecdsa-p256");
    for version in VERSIONS {
        let error = meet(&server(&guardian, version, &[]), &guardian, true).await.unwrap_err();
        assert_eq!(error, HandshakeError::AlpnMismatch { wanted: "h2".to_owned() });
        let error = meet(&server(&guardian, version, &[b"http/1.1"]), &guardian, true).await.unwrap_err();
        assert_eq!(error, HandshakeError::Refused(Refusal::NoApplicationProtocol));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_guardian_costs_the_limit_and_no_more() {
    let connector = InnerConnector::new(brought("ed25519", "ed25519").fingerprint()).unwrap();
    let limit = Duration::from_secs(3);
    for h2 in [true, false] {
        let (near, _silent) = link();
        let began = tokio::time::Instant::now();
        let connected =
            if h2 { connector.connect_h2(near, limit).await } else { connector.connect_http1(near, limit).await };
        assert_eq!(connected.unwrap_err(), HandshakeError::Timeout(limit));
        assert_eq!(began.elapsed(), limit);
    }
}

/// Refuses whoever names a server.
#[derive(Debug)]
struct Nameless(Arc<CertifiedKey>);

impl ResolvesServerCert for Nameless {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().is_none().then(|| Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn no_server_is_named() {
    let guardian = brought("ecdsa-p256", "ecdsa-p256");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(guardian.key.clone_key()).unwrap();
    let certified = Arc::new(CertifiedKey::new(guardian.chain.clone(), key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nameless(certified)));
    meet(&TlsAcceptor::from(Arc::new(config)), &guardian, false).await.unwrap();
}

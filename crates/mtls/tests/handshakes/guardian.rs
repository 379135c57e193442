//! Calico's Guardian at the tunnel door: no application protocol, TLS 1.2 or 1.3, and any certificate whose key it holds.
//! Nothing of that loosens the rules for anybody else.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use moorline_mtls::{Arrived, Fault, HandshakeError, KeyPair, PresentedPeer, Refusal, TunnelAcceptor, explain_io};
use moorline_pki::KeyKind;
use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::{
    brought::{Shown, VERSIONS, brought, client},
    minted::{ALPN, LIMIT, SERVER_NAME, World, days_from_now, link},
};

fn door(world: &World) -> TunnelAcceptor {
    world.acceptor().with_guardian(|| true).unwrap()
}

/// Who came, and the version that was spoken.
type Came = Result<(PresentedPeer, &'static str), HandshakeError>;

/// Lets a client that is no agent meet the door. Its side is what it knows after its handshake and one byte each way.
async fn meet(door: &TunnelAcceptor, client: &TlsConnector) -> (Came, io::Result<u8>) {
    let (near, far) = link();
    let dialling = async {
        let mut stream = client.connect(ServerName::try_from(SERVER_NAME).unwrap(), near).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let accepting = async {
        let arriving = door.hear(far, LIMIT).await?;
        assert!(!arriving.joins());
        match arriving.finish().await? {
            Arrived::Guardian(mut stream, peer) => {
                assert_eq!(stream.read_u8().await.unwrap(), b'?');
                stream.write_all(b"!").await.unwrap();
                stream.flush().await.unwrap();
                assert_eq!(stream.alpn(), None);
                Ok((peer, stream.tls_version()))
            }
            other @ (Arrived::Agent(..) | Arrived::Stranger(_)) => panic!("{other:?}"),
        }
    };
    tokio::join!(accepting, dialling)
}

fn told(error: &io::Error) -> Option<HandshakeError> {
    explain_io(error)
}

#[tokio::test]
async fn any_certificate_with_a_usable_key_comes_in_and_is_known_by_its_fingerprint() {
    let world = World::new();
    let issued = world.issue_agent(days_from_now(-1_000));
    let expired = Shown::from_pem(&issued.certificate_pem, issued.key_pem.as_str());
    let names = ["rsa-2048", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"];
    let of_version_1 = names.map(|name| (Some(name), brought(name, name)));
    for (name, shown) in of_version_1.into_iter().chain([(None, expired)]) {
        for (version, spoken) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
            let (came, answered) = meet(&door(&world), &client(&world, Some(&shown), version, &[])).await;
            let (peer, tls_version) = came.unwrap();
            assert_eq!((peer.fingerprint(), tls_version), (shown.fingerprint(), spoken), "{name:?}");
            assert_eq!(peer.common_name().as_deref(), name.or(Some("east")));
            let info = peer.info().unwrap();
            assert_eq!(peer.not_after(), info.not_after);
            assert_eq!(peer.check_validity(info.not_before), Ok(()));
            assert!(peer.check_validity(days_from_now(36_600)).unwrap_err().to_string().starts_with("expired "));
            assert_eq!(answered.unwrap(), b'!');
        }
    }
}

#[tokio::test]
async fn a_chain_behind_the_leaf_is_passed_over_and_bounded() {
    let world = World::new();
    let mut shown = brought("ecdsa-p256", "ecdsa-p256");
    let leaf = shown.fingerprint();
    let other = brought("rsa-2048", "rsa-2048").leaf().clone();
    shown.chain.extend([CertificateDer::from(vec![1, 2, 3]), other.clone()]);
    for version in VERSIONS {
        let (came, _answered) = meet(&door(&world), &client(&world, Some(&shown), version, &[])).await;
        assert_eq!(came.unwrap().0.fingerprint(), leaf);
    }
    let mut long = shown.clone();
    long.chain.extend(vec![other; 8]);
    for version in VERSIONS {
        let (came, _refused) = meet(&door(&world), &client(&world, Some(&long), version, &[])).await;
        let told = "the peer's certificate is not acceptable: 10 others are shown behind it, and 8 at most are taken; \
                    leave them out";
        assert_eq!(came.unwrap_err().to_string(), told);
    }
    // What the TLS library bounds, before anybody looks at it.
    for chain in [vec![CertificateDer::from(vec![0x30; 70_000])], vec![shown.leaf().clone(); 500]] {
        let huge = Shown { chain, key: Arc::clone(&shown.key) };
        for version in VERSIONS {
            let (came, _refused) = meet(&door(&world), &client(&world, Some(&huge), version, &[])).await;
            assert_eq!(came.unwrap_err().reason(), "protocol");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_judged_is_refused_with_a_remedy() {
    let world = World::new();
    let mut large = brought("ecdsa-p256", "ecdsa-p256");
    large.chain = vec![CertificateDer::from(vec![0x30; 17_000])];
    let mut noise = large.clone();
    noise.chain = vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])];
    for (shown, expected) in [
        (brought("rsa-1024", "rsa-2048"), "its key is RSA of 1024 bits; make a new one: RSA of 2048 to 8192 bits, "),
        (large, "it has 17000 bytes, and 16384 at most are read; make a smaller one"),
        (noise, "not an X.509 certificate: "),
    ] {
        for version in VERSIONS {
            let (came, refused) = meet(&door(&world), &client(&world, Some(&shown), version, &[])).await;
            let error = came.unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("the peer's certificate is not acceptable: {expected}")), "{text}");
            assert_eq!((error.reason(), error.fault()), ("bad-certificate", Fault::Peer));
            assert_eq!(told(&refused.unwrap_err()), Some(HandshakeError::Refused(Refusal::BadCertificate)));
        }
    }
}

#[tokio::test]
async fn somebody_elses_certificate_is_of_no_use() {
    let world = World::new();
    let issued = world.issue_agent(days_from_now(0));
    let ours = Shown::from_pem(&issued.certificate_pem, issued.key_pem.as_str());
    let same_kind = Shown { chain: brought("ecdsa-p256", "ecdsa-p256").chain, ..ours.clone() };
    let stolen = Shown { chain: ours.chain, ..brought("ecdsa-p256", "ecdsa-p256") };
    for shown in [
        same_kind,
        stolen,
        brought("ecdsa-p256", "rsa-2048"),
        brought("rsa-2048", "ecdsa-p256"),
        brought("ecdsa-p256", "ecdsa-p384"),
        brought("ed25519", "ecdsa-p256"),
        brought("rsa-2048", "ed25519"),
    ] {
        for version in VERSIONS {
            let (came, refused) = meet(&door(&world), &client(&world, Some(&shown), version, &[])).await;
            let error = came.unwrap_err();
            assert_eq!((&error, error.reason(), error.fault()), (&HandshakeError::WrongKey, "wrong-key", Fault::Peer));
            assert!(error.to_string().contains("does not hold its private key"), "{error}");
            // `decrypt_error`, as RFC 8446 has it.
            assert_eq!(told(&refused.unwrap_err()), Some(HandshakeError::Refused(Refusal::UnknownAuthority)));
        }
    }
}

#[tokio::test]
async fn without_a_certificate_nobody_comes_in() {
    let world = World::new();
    for version in VERSIONS {
        let (came, refused) = meet(&door(&world), &client(&world, None, version, &[])).await;
        assert_eq!(came.unwrap_err(), HandshakeError::NoClientCertificate);
        assert!(matches!(told(&refused.unwrap_err()), Some(HandshakeError::Refused(_))));
    }
}

/// A TLS 1.2 handshake that is not bound to its certificates (RFC 7627) is none.
#[tokio::test]
async fn an_unbound_handshake_is_refused() {
    let world = World::new();
    for (bound, expected) in [(true, "closed"), (false, "incompatible")] {
        let client = client(&world, Some(&brought("ed25519", "ed25519")), &TLS12, &[]);
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let mut hello = Vec::new();
        rustls::ClientConnection::new(Arc::clone(client.config()), name).unwrap().write_tls(&mut hello).unwrap();
        if !bound {
            hello = without_extended_master_secret(&hello);
        }
        let (mut near, far) = link();
        near.write_all(&hello).await.unwrap();
        near.shutdown().await.unwrap();
        let hanging_up = async move { near.read_to_end(&mut Vec::new()).await.map(drop) };
        let acceptor = door(&world);
        let hearing = async { acceptor.hear(far, LIMIT).await?.finish().await };
        let (arrived, read) = tokio::join!(hearing, hanging_up);
        read.unwrap();
        assert_eq!(arrived.unwrap_err().reason(), expected);
    }
}

/// The same first message without that extension, which is empty: lengths are set right.
fn without_extended_master_secret(hello: &[u8]) -> Vec<u8> {
    const HEADERS: usize = 5 + 4;
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let session_id = HEADERS + 2 + 32;
    let suites = session_id + 1 + usize::from(hello[session_id]);
    let compression = suites + 2 + number(suites);
    let extensions = compression + 1 + usize::from(hello[compression]);
    let mut at = extensions + 2;
    while number(at) != 0x17 {
        at += 4 + number(at + 2);
    }
    let mut shorter = [&hello[..at], &hello[at + 4..]].concat();
    for length in [3, HEADERS - 2, extensions] {
        let less = u16::try_from(number(length) - 4).unwrap();
        shorter[length..length + 2].copy_from_slice(&less.to_be_bytes());
    }
    shorter
}

/// The same at a door with guardians and at one without: the rules for our own agents know nothing of them.
#[tokio::test]
async fn the_rules_for_agents_stay_what_they_are() {
    let world = World::new();
    let agent = world.issue_agent(days_from_now(0));
    let agent = Shown::from_pem(&agent.certificate_pem, agent.key_pem.as_str());
    let version_1 = brought("rsa-2048", "rsa-2048");
    let foreign = World::new().issue_agent(days_from_now(0));
    let foreign = Shown::from_pem(&foreign.certificate_pem, foreign.key_pem.as_str());
    for door in [world.acceptor(), door(&world)] {
        for (shown, version, alpn, expected) in [
            (&agent, &TLS12, &[ALPN][..], "incompatible"),
            (&agent, &TLS12, &[ALPN, b"h2"], "incompatible"),
            (&version_1, &TLS12, &[ALPN], "incompatible"),
            (&version_1, &TLS13, &[ALPN], "bad-certificate"),
            (&version_1, &TLS13, &[b"h2", ALPN], "bad-certificate"),
            (&foreign, &TLS13, &[ALPN], "unknown-authority"),
            (&version_1, &TLS13, &[b"h2"], "alpn-mismatch"),
            (&version_1, &TLS12, &[b"h2"], "incompatible"),
            (&agent, &TLS13, &[b"h2"], "alpn-mismatch"),
        ] {
            let (came, refused) = meet(&door, &client(&world, Some(shown), version, alpn)).await;
            assert_eq!(came.unwrap_err().reason(), expected, "{alpn:?}");
            refused.unwrap_err();
        }
        let (near, far) = link();
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        let connector = client(&world, Some(&agent), &TLS13, &[ALPN]);
        let hearing = async {
            let arriving = door.hear(far, LIMIT).await.unwrap();
            assert!(!arriving.is_guardian() && !arriving.joins());
            arriving.finish().await.unwrap()
        };
        let (arrived, connected) = tokio::join!(hearing, connector.connect(name, near));
        connected.unwrap();
        assert!(matches!(arrived, Arrived::Agent(..)), "{arrived:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_version_1_is_named_as_such_to_who_runs_our_agent_with_it() {
    let world = World::new();
    let shown = brought("rsa-2048", "rsa-2048");
    let (came, _refused) = meet(&door(&world), &client(&world, Some(&shown), &TLS13, &[ALPN])).await;
    let text = came.unwrap_err().to_string();
    assert!(text.contains("X.509 version 1 or 2, and version 3 is needed"), "{text}");
}

/// An agent's certificate opens this door, too, as anybody's does: what comes in is a fingerprint and no more.
#[tokio::test]
async fn who_offers_no_protocol_is_never_an_agent() {
    let world = World::new();
    let agent = world.issue_agent(days_from_now(0));
    let agent = Shown::from_pem(&agent.certificate_pem, agent.key_pem.as_str());
    for version in VERSIONS {
        // `meet` takes nothing but a guardian.
        let (came, _answered) = meet(&door(&world), &client(&world, Some(&agent), version, &[])).await;
        assert_eq!(came.unwrap().0.fingerprint(), agent.fingerprint());
    }
    let (near, far) = link();
    let (acceptor, connector) = (door(&world), client(&world, Some(&agent), &TLS13, &[]));
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let (accepted, _connected) = tokio::join!(acceptor.accept(far, LIMIT), connector.connect(name, near));
    assert_eq!(accepted.unwrap_err().reason(), "alpn-mismatch", "who asks for agents gets agents");
}

#[tokio::test]
async fn while_no_guardian_is_wanted_the_door_is_as_it_was() {
    let world = World::new();
    let wanted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&wanted);
    let door = world.acceptor().with_guardian(move || asked.load(Ordering::Relaxed)).unwrap();
    let agent = world.issue_agent(days_from_now(0));
    let agent = Shown::from_pem(&agent.certificate_pem, agent.key_pem.as_str());
    let version_1 = brought("rsa-2048", "rsa-2048");
    for (shown, version, unwanted) in [
        (&agent, &TLS13, "alpn-mismatch"),
        (&agent, &TLS12, "incompatible"),
        (&version_1, &TLS13, "bad-certificate"),
        (&version_1, &TLS12, "incompatible"),
    ] {
        let client = client(&world, Some(shown), version, &[]);
        for plain in [&world.acceptor(), &door] {
            assert_eq!(meet(plain, &client).await.0.unwrap_err().reason(), unwanted);
        }
        wanted.store(true, Ordering::Relaxed);
        meet(&door, &client).await.0.unwrap();
        wanted.store(false, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_claimed_name_can_harm_no_log() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let claimed = format!("evil\r\n\u{1b}[2J{}", "x".repeat(500));
    params.distinguished_name.push(rcgen::DnType::CommonName, claimed);
    let shown = Shown::from_pem(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem());
    let (came, _answered) = meet(&door(&world), &client(&world, Some(&shown), &TLS13, &[])).await;
    let peer = came.unwrap().0;
    for text in [peer.common_name().unwrap(), format!("{peer:?}")] {
        assert!(!text.chars().any(char::is_control) && text.len() < 400, "{text:?}");
    }
}

#[test]
fn keys_of_the_older_openssl_are_read() {
    let file = |name: &str| std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let key = file("rsa-2048.key");
    assert!(key.starts_with(b"-----BEGIN RSA PRIVATE KEY-----"), "PKCS#1");
    let pair = KeyPair::from_pem(&file("rsa-2048-v3.crt"), &key).unwrap();
    assert_eq!(pair.info().key_kind, KeyKind::Rsa { bits: 2048 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Who shows a damaged certificate is refused, or comes in as the holder of the same key under another fingerprint:
    /// nobody verifies what a self-signed certificate says.
    #[test]
    fn a_damaged_certificate_is_never_another_one(at in any::<prop::sample::Index>(), to: u8, cut: bool, old: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let world = World::new();
        let whole = brought("ecdsa-p256", "ecdsa-p256");
        let mut der = whole.leaf().to_vec();
        let at = at.index(der.len());
        if cut {
            der.truncate(at);
        } else {
            der[at] = to;
        }
        let shown = Shown { chain: vec![CertificateDer::from(der)], ..whole.clone() };
        let version = VERSIONS[usize::from(old)];
        let (came, _told) = runtime.block_on(meet(&door(&world), &client(&world, Some(&shown), version, &[])));
        if let Ok((peer, _version)) = came {
            let key = |der: &[u8]| moorline_pki::CertificateInfo::parse(der).unwrap().public_key;
            prop_assert_eq!(peer.fingerprint(), shown.fingerprint());
            prop_assert_eq!(peer.info().unwrap().public_key, key(whole.leaf()));
        }
    }
}

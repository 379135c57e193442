//! First messages of all kinds: those of a real client, and those that somebody bends.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::config::provider;

const LIMIT: Duration = Duration::from_secs(10);

/// What a client says first that wants this server.
fn hello(name: &str, named: bool) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = named;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Where the only name stands in a hello.
fn name_at(hello: &[u8], name: &str) -> usize {
    let mut found = hello.windows(name.len()).enumerate().filter(|(_, window)| *window == name.as_bytes());
    let at = found.next().unwrap().0;
    assert!(found.next().is_none());
    at
}

async fn heard(bytes: &[u8]) -> Result<Option<String>, HelloError> {
    match hear_hello(bytes, LIMIT).await {
        Ok(Heard { server_name, mut io }) => {
            let mut again = Vec::new();
            io.read_to_end(&mut again).await.unwrap();
            assert_eq!(again, bytes, "everything goes on as it came");
            Ok(server_name)
        }
        Err((error, _io)) => Err(error),
    }
}

#[tokio::test]
async fn the_name_is_read_and_everything_goes_on() {
    let bytes = hello("logs.example.com", true);
    assert_eq!(heard(&bytes).await, Ok(Some("logs.example.com".to_owned())));
    let more = [&bytes[..], b"and what follows at once"].concat();
    assert_eq!(heard(&more).await, Ok(Some("logs.example.com".to_owned())));
    assert_eq!(heard(&hello("logs.example.com", false)).await, Ok(None));
    assert_eq!(heard(&hello("192.0.2.1", true)).await, Ok(None));
}

/// As a slow peer sends it, and in records of a few bytes each.
#[tokio::test]
async fn it_may_come_in_pieces() {
    let bytes = hello("logs.example.com", true);
    let (mut ours, theirs) = tokio::io::duplex(1);
    let sent = bytes.clone();
    let sending = async move {
        ours.write_all(&sent).await.unwrap();
    };
    let (heard_it, ()) = tokio::join!(hear_hello(theirs, LIMIT), sending);
    assert_eq!(heard_it.unwrap().server_name.as_deref(), Some("logs.example.com"));

    let mut records = Vec::new();
    for fragment in bytes[5..].chunks(50) {
        records.extend([22, 3, 1, 0, u8::try_from(fragment.len()).unwrap()]);
        records.extend(fragment);
    }
    assert_eq!(heard(&records).await, Ok(Some("logs.example.com".to_owned())));
}

#[tokio::test]
async fn tricks_with_the_name_give_no_other_name() {
    let bytes = hello("logs.example.com", true);
    let at = name_at(&bytes, "logs.example.com");
    let bent = |name: &[u8; 16]| {
        let mut bent = bytes.clone();
        bent[at..at + 16].copy_from_slice(name);
        bent
    };
    // Case is not part of a name.
    assert_eq!(heard(&bent(b"LOGS.Example.COM")).await, Ok(Some("logs.example.com".to_owned())));
    for odd in [
        b"logs\0example.com",
        b"logs.example.co\0",
        b"logs example.com",
        b"logs.example.c\xc3\xb6",
        b"*.gs.example.com",
    ] {
        let heard = heard(&bent(odd)).await;
        assert!(matches!(heard, Err(HelloError::Malformed) | Ok(None)), "{odd:?} {heard:?}");
    }
    // An address is no name.
    assert!(!matches!(heard(&bent(b"111.122.133.144.")).await, Ok(Some(_))));
    assert!(!matches!(heard(&bent(b"2001:db8::1:2:34")).await, Ok(Some(_))));
    // A final dot stays, so that it is no name that anybody configures.
    let dotted = heard(&bent(b"logs.example.co.")).await;
    assert!(
        matches!(dotted.as_ref().map(Option::as_deref), Err(_) | Ok(None | Some("logs.example.co."))),
        "{dotted:?}"
    );
}

/// Two names in the list, of which the first would be allowed: nobody can say which of them another reader takes.
#[tokio::test]
async fn several_names_are_refused() {
    let bytes = hello("logs.example.com", true);
    let at = name_at(&bytes, "logs.example.com");
    // Two names of six and seven bytes in the room of one of sixteen, with the head of the second between them.
    let mut two = bytes.clone();
    two[at - 2..at].copy_from_slice(&[0, 6]);
    two[at..at + 16].copy_from_slice(b"a.test\0\0\x07b.test1");
    let heard_both = heard(&two).await;
    assert!(matches!(heard_both, Err(HelloError::Malformed)), "{heard_both:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_hello_is_told_apart() {
    assert_eq!(heard(b"GET / HTTP/1.1\r\n\r\n").await, Err(HelloError::NotTls));
    assert_eq!(heard(b"").await, Err(HelloError::Ended));
    let bytes = hello("logs.example.com", true);
    assert_eq!(heard(&bytes[..100]).await, Err(HelloError::Ended));
    assert_eq!(heard(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).await, Err(HelloError::Malformed));
    // A message that is announced with more than is allowed, in records of the largest size.
    let mut large = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0];
    large.resize(MAX_HELLO * 2, 0);
    let heard_large = heard(&large).await;
    assert_eq!(heard_large, Err(HelloError::TooLarge));
    // And one that never comes to its end.
    let (mut slow, theirs) = tokio::io::duplex(1024);
    slow.write_all(&bytes[..100]).await.unwrap();
    assert_eq!(hear_hello(theirs, LIMIT).await.unwrap_err().0, HelloError::Timeout);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A hello with any bytes changed is refused, or names a name: never a panic, never bytes lost.
    #[test]
    fn bent_hellos_are_refused_or_read(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = hello("logs.example.com", true);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        if let Ok(Some(name)) = runtime.block_on(heard(&bytes)) {
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{name:?}");
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        drop(runtime.block_on(heard(&[&[22, 3, 1][..], &bytes].concat())));
    }
}

//! For any input, exactly the given identity comes out and nothing of the input's.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::requested;

/// Stands in every value that must not come out.
const TAINT: &str = "taint";

/// Written down here a second time, apart from the list that the code goes by.
const TAINTED: &[&str] = &[
    "Authorization",
    "Cookie",
    "Forwarded",
    "Impersonate-Extra-",
    "Impersonate-Extra-Acme%2fProject",
    "Impersonate-Extra-Acme.com%2FProject",
    "Impersonate-Extra-%",
    "Impersonate-Group",
    "Impersonate-Later",
    "Impersonate-Uid",
    "Impersonate-User",
    "Impersonate_User",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For",
    "X-Moorline-",
    "X-Moorline-Failure",
    "X-Moorline-Identity",
    "X-Moorline-Request-Id",
    "X-Remote-Extra-Scopes",
    "X-Remote-Group",
    "X-Remote-User",
    "X_Remote_User",
];

const HARMLESS: &[&str] = &["accept", "content-type", "host", "kubectl-session", "user-agent", "x-odd", "x-request-id"];

type Pair = (Vec<u8>, Vec<u8>);

fn odd_case(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<bool>(), name.len()).prop_map(move |upper| {
        let bytes = name.bytes().zip(upper);
        bytes.map(|(byte, up)| if up { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }).collect()
    })
}

/// Any bytes that a header value can hold, obs-text among them.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b'\t')], 0..12)
}

fn pair() -> impl Strategy<Value = Pair> {
    let tainted = prop::sample::select(TAINTED)
        .prop_flat_map(|name| (odd_case(name), value()))
        .prop_map(|(name, value)| (name, [value, TAINT.into()].concat()));
    let harmless = (prop::sample::select(HARMLESS), value()).prop_map(|(name, value)| (name.into(), value));
    let listed = prop_oneof![
        prop::sample::select(TAINTED),
        prop::sample::select(HARMLESS),
        Just("close"),
        Just("upgrade"),
        Just("connection"),
        Just(" \u{ff}"),
    ];
    let connection =
        prop::collection::vec(listed, 0..4).prop_map(|names| (b"Connection".to_vec(), names.join(" ,").into_bytes()));
    let upgrade = prop::sample::select(vec!["websocket", "SPDY/3.1", "h2c, taint", "taint", "TLS/1.0, websocket"])
        .prop_map(|protocol| (b"Upgrade".to_vec(), protocol.into()));
    let subprotocol = "(v5\\.channel\\.k8s\\.io, ?)?base64url\\.bearer\\.authorization\\.k8s\\.io\\.taint(,v4)?"
        .prop_map(|protocols| (b"Sec-WebSocket-Protocol".to_vec(), protocols.into_bytes()));
    prop_oneof![4 => tainted, 3 => harmless, 2 => connection, 1 => upgrade, 1 => subprotocol]
}

fn identity() -> impl Strategy<Value = Identity> {
    let part = || "[^\\p{Cc} ]([^\\p{Cc}]{0,10}[^\\p{Cc} ])?";
    (
        part(),
        prop::collection::vec(part(), 0..5),
        prop::option::of(part()),
        prop::collection::btree_map(part(), prop::collection::vec(part(), 1..3), 0..4),
    )
        .prop_map(|(user, groups, uid, extra)| {
            let named = Identity::new(user).unwrap().with_groups(groups).unwrap();
            let known = uid.map_or(Ok(named.clone()), |uid| named.with_uid(uid)).unwrap();
            extra.into_iter().fold(known, |identity, (key, values)| identity.with_extra(key, values).unwrap())
        })
}

fn head(pairs: &[Pair]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap()))
        .collect()
}

/// What the identity looks like on the wire, written down without the code under test.
fn expected(identity: &Identity) -> Vec<(String, Vec<u8>)> {
    let mut lines = vec![("impersonate-user".to_owned(), identity.user().into())];
    lines.extend(identity.uid().map(|uid| ("impersonate-uid".to_owned(), uid.into())));
    lines.extend(identity.groups().iter().map(|group| ("impersonate-group".to_owned(), group.as_bytes().into())));
    for (key, values) in identity.extra() {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        let escape = |byte: u8| if legal(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
        let name = format!("impersonate-extra-{}", key.bytes().map(escape).collect::<String>());
        lines.extend(values.iter().map(|value| (name.clone(), value.as_bytes().into())));
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn exactly_the_given_identity_comes_out(pairs in prop::collection::vec(pair(), 0..20), identity in identity()) {
        let before = head(&pairs);
        let mut after = before.clone();
        prop_assert_eq!(apply(&mut after, &identity), Ok(()));

        let mut written: Vec<(String, Vec<u8>)> = after
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("impersonate"))
            .map(|(name, value)| (name.to_string(), value.as_bytes().into()))
            .collect();
        written.sort();
        prop_assert_eq!(written, expected(&identity));
        let groups: Vec<&[u8]> = after.get_all("impersonate-group").iter().map(HeaderValue::as_bytes).collect();
        prop_assert_eq!(groups, identity.groups().iter().map(String::as_bytes).collect::<Vec<_>>());
        prop_assert_eq!(requested(&after), Ok(Some(identity)));

        for (name, value) in after.iter().filter(|(name, _)| !name.as_str().starts_with("impersonate-")) {
            let holds_taint = value.as_bytes().windows(TAINT.len()).any(|part| part == TAINT.as_bytes());
            prop_assert!(!holds_taint, "{}: {:?}", name, value);
        }

        let connection = before.get_all("connection").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let connection = connection.collect::<Vec<_>>().join(",");
        let listed: BTreeSet<&str> = connection.split(',').map(str::trim).collect();
        for name in HARMLESS {
            let kept: Vec<_> = after.get_all(*name).iter().collect();
            let sent: Vec<_> = before.get_all(*name).iter().filter(|_| !listed.contains(*name)).collect();
            prop_assert_eq!(kept, sent, "{}", name);
        }
    }

    #[test]
    fn any_names_at_all(names in prop::collection::vec("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", 0..20), identity in identity()) {
        let mut headers = head(&names.into_iter().map(|name| (name.into_bytes(), b"v".to_vec())).collect::<Vec<_>>());
        prop_assert_eq!(apply(&mut headers, &identity), Ok(()));
        prop_assert_eq!(requested(&headers), Ok(Some(identity)));
    }

    #[test]
    fn twice_is_once(pairs in prop::collection::vec(pair(), 0..20), first in identity(), second in identity()) {
        let mut once = head(&pairs);
        let mut twice = once.clone();
        prop_assert_eq!(apply(&mut once, &second), Ok(()));
        prop_assert_eq!(apply(&mut twice, &first), Ok(()));
        prop_assert_eq!(apply(&mut twice, &second), Ok(()));
        prop_assert_eq!(twice, once);
    }
}

#[test]
fn names_beyond_ascii_go_out_as_utf_8() {
    let mut headers = HeaderMap::new();
    apply(&mut headers, &Identity::new("Zoë 雪").unwrap()).unwrap();
    assert_eq!(headers["impersonate-user"].as_bytes(), "Zoë 雪".as_bytes());
}

#[test]
fn a_head_that_cannot_hold_the_identity_is_emptied() {
    let mut headers = HeaderMap::new();
    while headers.try_append("x-odd", HeaderValue::from_static("v")).is_ok() && headers.len() < 32_000 {}
    while headers
        .try_append(HeaderName::try_from(format!("x-{}", headers.len())).unwrap(), HeaderValue::from_static("v"))
        .is_ok()
    {}
    let groups = (0..8000).map(|n| n.to_string());
    let extra = (0..100).fold(Identity::new("ann").unwrap().with_groups(groups).unwrap(), |identity, n| {
        identity.with_extra(format!("key-{n}"), ["v"]).unwrap()
    });
    assert_eq!(apply(&mut headers, &extra), Err(ApplyError::TooManyHeaders));
    assert!(headers.is_empty());
}

#[test]
fn a_user_in_five_hundred_groups_is_written_whole() {
    let groups: Vec<String> = (0..500).map(|n| format!("directory-group-with-a-rather-long-name-{n:080}")).collect();
    let identity = Identity::new("ann").unwrap().with_groups(groups.clone()).unwrap();
    let mut headers = HeaderMap::new();
    apply(&mut headers, &identity).unwrap();
    assert_eq!(headers.get_all("impersonate-group").iter().count(), 500);
    assert_eq!(requested(&headers).unwrap().unwrap(), identity);
}

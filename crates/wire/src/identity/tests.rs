//! Round trips of the identity header, and everything that must be refused.

use moorline_model::identity_limits;
use proptest::prelude::*;

use super::*;

fn request(values: &[&[u8]]) -> HeaderMap {
    values.iter().map(|value| (headers::IDENTITY, HeaderValue::from_bytes(value).unwrap())).collect()
}

fn read_json(json: &str) -> Result<Identity, IdentityError> {
    read_identity(&request(&[URL_SAFE_NO_PAD.encode(json).as_bytes()]))
}

#[test]
fn exactly_one_is_needed() {
    let ann = write_identity(&Identity::new("ann").unwrap());
    assert!(matches!(read_identity(&HeaderMap::new()), Err(IdentityError::Missing)));
    assert!(matches!(read_identity(&request(&[ann.as_bytes(), ann.as_bytes()])), Err(IdentityError::Repeated)));
    assert_eq!(read_identity(&request(&[ann.as_bytes()])).unwrap().user(), "ann");
}

#[test]
fn anything_but_our_own_writing_is_refused() {
    let ann = URL_SAFE_NO_PAD.encode(r#"{"user":"ann"}"#);
    for bad in [format!("{ann}="), format!("{ann},{ann}"), format!("{ann} "), format!(" {ann}"), "+/8".to_owned()] {
        let read = read_identity(&request(&[bad.as_bytes()]));
        assert!(matches!(read, Err(IdentityError::NotBase64(_))), "{bad}: {read:?}");
    }
    for bad in [
        "",
        "{",
        "null",
        "[]",
        r#""ann""#,
        "{}",
        r#"{"user":""}"#,
        r#"{"user":null}"#,
        r#"{"user":"a\nb"}"#,
        r#"{"user":"a","groups":[""]}"#,
        r#"{"user":"a","user":"b"}"#,
        r#"{"user":"a","restrictedTo":["pods"]}"#,
        r#"{"user":"a"} {"user":"b"}"#,
    ] {
        assert!(matches!(read_json(bad), Err(IdentityError::NotAnIdentity(_))), "{bad}");
    }
    let long = vec![b'A'; limits::IDENTITY_HEADER + 1];
    assert!(matches!(read_identity(&request(&[&long])), Err(IdentityError::TooLarge { .. })));
}

#[test]
fn the_largest_identity_fits() {
    let group = |n: usize| format!("{n:05}{}", "\"".repeat(58));
    let groups: Vec<_> = (0..identity_limits::PARTS).map(group).collect();
    let identity = Identity::new("a").unwrap().with_groups(groups).unwrap();
    let value = write_identity(&identity);
    assert!(value.is_sensitive() && value.len() <= limits::IDENTITY_HEADER, "{}", value.len());
    assert_eq!(read_identity(&HeaderMap::from_iter([(headers::IDENTITY, value)])).unwrap(), identity);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        user in "[^\\p{Cc} ]{1,40}",
        groups in prop::collection::vec("[^\\p{Cc} ]{1,40}", 0..20),
        key in "[^\\p{Cc} ]{1,40}",
        values in prop::collection::vec("[^\\p{Cc} ]{0,40}", 0..4),
    ) {
        let identity = Identity::new(user).unwrap().with_groups(groups).unwrap().with_extra(key, values).unwrap();
        let request = HeaderMap::from_iter([(headers::IDENTITY, write_identity(&identity))]);
        prop_assert_eq!(read_identity(&request).unwrap(), identity);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_lack_a_user(bytes: Vec<u8>, json in ".{0,60}") {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let read = read_identity(&HeaderMap::from_iter([(headers::IDENTITY, value)]));
            prop_assert!(read.map_or(true, |identity| !identity.user().is_empty()));
        }
        prop_assert!(read_json(&json).map_or(true, |identity| !identity.user().is_empty()));
    }
}

//! What `kubectl --as` sends, and what nobody should.

use http::HeaderName;

use super::*;

type Pair<'a> = (&'a str, &'a [u8]);

fn read(pairs: &[Pair<'_>]) -> Result<Option<Identity>, RequestedError> {
    let header = |(name, value): &Pair<'_>| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    requested(&pairs.iter().map(header).collect())
}

#[test]
fn reads_what_kubectl_writes() {
    assert_eq!(read(&[("authorization", b"Bearer x")]), Ok(None));
    let ann = read(&[
        ("Impersonate-User", "änn".as_bytes()),
        ("Impersonate-Group", b"a"),
        ("Impersonate-Group", b"b"),
        ("Impersonate-Uid", b"7"),
        ("Impersonate-Extra-Acme.Com%2fProject", b"x"),
        ("Impersonate-Extra-Acme.com%2FPROJECT", b""),
    ]);
    let ann = ann.unwrap().unwrap();
    assert_eq!((ann.user(), ann.uid()), ("änn", Some("7")));
    assert_eq!(ann.groups(), ["a", "b"]);
    assert_eq!(ann.extra()["acme.com/project"], ["x", ""]);
}

#[test]
fn refuses_what_two_readers_would_read_differently() {
    use moorline_model::IdentityPart::{Group, User};
    let cases: [(&[Pair<'_>], RequestedError); 10] = [
        (&[("impersonate-group", b"a")], RequestedError::NoUser),
        (&[("impersonate-uid", b"a")], RequestedError::NoUser),
        (&[("impersonate-extra-a", b"a")], RequestedError::NoUser),
        (&[("impersonate-later", b"a")], RequestedError::NoUser),
        (&[("impersonate-user", b"a"), ("impersonate-user", b"a")], RequestedError::Repeated),
        (&[("impersonate-user", b"a"), ("impersonate-later", b"a")], RequestedError::UnknownHeader),
        (&[("impersonate-user", b"\xff")], RequestedError::NotText),
        (&[("impersonate-user", b"a"), ("impersonate-extra-%ff", b"a")], RequestedError::NotText),
        (&[("impersonate-user", b"")], RequestedError::Invalid(InvalidIdentity::Empty(User))),
        (
            &[("impersonate-user", b"a"), ("impersonate-group", b"")],
            RequestedError::Invalid(InvalidIdentity::Empty(Group)),
        ),
    ];
    for (headers, why) in cases {
        assert_eq!(read(headers), Err(why), "{headers:?}");
    }
}

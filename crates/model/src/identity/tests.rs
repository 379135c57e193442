//! What an identity refuses, and that JSON is no way around it.

use proptest::prelude::*;

use super::*;

#[test]
fn refuses_what_a_header_would_change() {
    use IdentityPart::User;
    for (user, why) in [
        ("", InvalidIdentity::Empty(User)),
        ("a\nb", InvalidIdentity::ControlCharacter(User)),
        ("a\r", InvalidIdentity::ControlCharacter(User)),
        ("a\0", InvalidIdentity::ControlCharacter(User)),
        ("a\tb", InvalidIdentity::ControlCharacter(User)),
        ("a\u{7f}", InvalidIdentity::ControlCharacter(User)),
        ("a\u{85}", InvalidIdentity::ControlCharacter(User)),
        (" a", InvalidIdentity::OuterSpace(User)),
        ("a ", InvalidIdentity::OuterSpace(User)),
        (" ", InvalidIdentity::OuterSpace(User)),
        (&"a".repeat(1025), InvalidIdentity::TooLong(User)),
    ] {
        assert_eq!(Identity::new(user), Err(why), "{user:?}");
    }
    for user in ["a", "a b", "Ünï çødé", "CN=a,O=b", "system:serviceaccount:ns:name", &"a".repeat(1024)] {
        assert_eq!(Identity::new(user).unwrap().user(), user);
    }
}

#[test]
fn every_part_is_checked() {
    let ann = || Identity::new("ann").unwrap();
    assert_eq!(ann().with_groups([""]), Err(InvalidIdentity::Empty(IdentityPart::Group)));
    assert_eq!(ann().with_groups(["a\nb"]), Err(InvalidIdentity::ControlCharacter(IdentityPart::Group)));
    assert_eq!(ann().with_uid(""), Err(InvalidIdentity::Empty(IdentityPart::Uid)));
    assert_eq!(ann().with_extra("", ["v"]), Err(InvalidIdentity::Empty(IdentityPart::ExtraKey)));
    assert_eq!(ann().with_extra("k", ["v\n"]), Err(InvalidIdentity::ControlCharacter(IdentityPart::ExtraValue)));
    let extra = ann().with_extra("Key", ["", "2"]).unwrap().with_extra("kEY", ["3"]).unwrap();
    assert_eq!(extra.extra()["key"], ["", "2", "3"]);
    assert!(ann().with_extra("k", [""; 0]).unwrap().extra().is_empty());
    let groups = ann().with_groups(["a", "b", "a"]).unwrap().with_groups(["b", "c"]).unwrap();
    assert_eq!(groups.groups(), ["a", "b", "c"]);
}

#[test]
fn is_bounded() {
    let ann = || Identity::new("ann").unwrap();
    let many = |count: usize| (0..count).map(|n| n.to_string());
    assert!(ann().with_groups(many(8192)).is_ok());
    assert_eq!(ann().with_groups(many(8193)), Err(InvalidIdentity::TooMany));
    assert_eq!(ann().with_groups(many(8192)).unwrap().with_extra("k", ["v"]), Err(InvalidIdentity::TooMany));
    let long = (0..600).map(|n| format!("{n:01000}"));
    assert_eq!(ann().with_groups(long), Err(InvalidIdentity::TooLarge));
}

#[test]
fn json_is_no_way_around() {
    for bad in [
        r#"{"user":""}"#,
        r#"{"user":"a\nb"}"#,
        r#"{"user":"a","groups":["g\r\nImpersonate-Group: system:masters"]}"#,
        r#"{"user":"a","uid":""}"#,
        r#"{"user":"a","extra":{"":["v"]}}"#,
        r#"{"user":"a","later":true}"#,
        r#"{"user":"a","user":"b"}"#,
        r#"{}"#,
    ] {
        assert!(serde_json::from_str::<Identity>(bad).is_err(), "{bad}");
    }
    let small: Identity = serde_json::from_str(r#"{"user":"a"}"#).unwrap();
    assert_eq!(serde_json::to_string(&small).unwrap(), r#"{"user":"a"}"#);
}

proptest! {
    #[test]
    fn survives_json(
        user in "[^\\p{Cc} ]{1,20}",
        groups in prop::collection::vec("[^\\p{Cc} ]{1,20}", 0..5),
        uid in prop::option::of("[a-z0-9-]{1,36}"),
        extra in prop::collection::btree_map("[^\\p{Cc} ]{1,20}", prop::collection::vec("[^\\p{Cc} ]{0,20}", 1..3), 0..4),
    ) {
        let mut identity = Identity::new(user).unwrap().with_groups(groups).unwrap();
        if let Some(uid) = uid {
            identity = identity.with_uid(uid).unwrap();
        }
        for (key, values) in extra {
            identity = identity.with_extra(key, values).unwrap();
        }
        let json = serde_json::to_string(&identity).unwrap();
        prop_assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), identity);
    }
}

//! How an extra key travels in a header name: Kubernetes writes whatever a name cannot hold as `%` and two digits, as
//! client-go does for its own impersonation and its authentication documentation asks of everybody.

use std::str;

use http::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use crate::names::IMPERSONATE_EXTRA;

/// What is not in RFC 9110's alphabet of header names, and `%` itself.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

/// The header in which values of this key travel; none where it would be longer than a header name can be.
pub(crate) fn header_name(key: &str) -> Option<HeaderName> {
    let name: String = [IMPERSONATE_EXTRA].into_iter().chain(percent_encode(key.as_bytes(), ESCAPED)).collect();
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// The key of what follows `impersonate-extra-` in a header name. What is not properly encoded is taken as it stands,
/// as kube-apiserver does; none where the result is not UTF-8.
pub(crate) fn key(encoded: &str) -> Option<String> {
    if is_encoded(encoded.as_bytes()) {
        let bytes: Vec<u8> = percent_decode(encoded.as_bytes()).collect();
        return String::from_utf8(bytes).ok();
    }
    Some(encoded.to_owned())
}

fn is_encoded(encoded: &[u8]) -> bool {
    encoded
        .split(|byte| *byte == b'%')
        .skip(1)
        .all(|after| after.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_as_kubernetes_does() {
        for (plain, encoded) in [
            ("scopes", "scopes"),
            ("acme.com/project", "acme.com%2fproject"),
            ("a%b", "a%25b"),
            ("a b:c", "a%20b%3ac"),
            ("é", "%c3%a9"),
            ("!#$&'*+-.^_`|~09", "!#$&'*+-.^_`|~09"),
        ] {
            let name = header_name(plain).unwrap();
            assert_eq!(name.as_str(), format!("impersonate-extra-{encoded}"));
            assert_eq!(key(encoded).as_deref(), Some(plain));
        }
    }

    #[test]
    fn what_is_not_encoded_is_taken_as_it_stands() {
        for odd in ["%", "%2", "a%zz", "%2f%", "%%", "%2f%zz"] {
            assert_eq!(key(odd).as_deref(), Some(odd));
        }
        assert_eq!(key("%ff"), None);
    }

    proptest! {
        #[test]
        fn every_key_comes_back(plain in "[^A-Z\\p{Cc}]{1,100}") {
            let name = header_name(&plain).unwrap();
            prop_assert_eq!(key(name.as_str().strip_prefix(IMPERSONATE_EXTRA).unwrap()), Some(plain));
        }
    }
}

//! What must not be written down of a URI: values that say by their name, or by their form, that they are secret.
//!
//! Written for the worst: an audit log is read by more people than the systems behind it. What a caller hides in a path
//! segment, or in a parameter of an innocent name, cannot be known.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Stands where a secret stood.
pub const REDACTED: &str = "REDACTED";

/// A parameter whose name holds one of these, in whatever case and with whatever separators, holds a secret.
const WITHIN_NAMES: [&str; 17] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "credential",
    "authorization",
    "authentication",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "bearer",
    "jwt",
    "cookie",
    "session",
    "assertion",
    "onetime",
];

/// And one whose name is one of these.
const NAMES: [&str; 11] = ["auth", "key", "sig", "pwd", "pass", "code", "sid", "otp", "pin", "nonce", "hmac"];

/// But not this: it names a token without being one.
const TOKEN_ID: &str = "tokenid";

/// How often a value is decoded again to see what is inside: a URL in a parameter of a URL in a parameter.
const DEPTH: usize = 3;

/// The path and query of a URI without its secrets; borrowed where there are none.
#[must_use]
pub fn redact_uri(uri: &str) -> Cow<'_, str> {
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    let path_suspect = path.split('/').any(is_secret_value);
    let query_suspect = query.is_some_and(|query| query.split(['&', ';']).any(is_secret_pair));
    if !path_suspect && !query_suspect {
        return Cow::Borrowed(uri);
    }
    let segments = path.split('/').map(redact_part);
    let mut clean = segments.collect::<Vec<_>>().join("/");
    if let Some(query) = query {
        clean.push('?');
        for pair in query.split_inclusive(['&', ';']) {
            let (bare, separator) = match pair.strip_suffix(['&', ';']) {
                Some(bare) => (bare, pair.get(bare.len()..).unwrap_or_default()),
                None => (pair, ""),
            };
            if is_secret_pair(bare) {
                if let Some((key, _value)) = bare.split_once('=').filter(|(key, _)| !is_secret_value(key)) {
                    clean.push_str(key);
                    clean.push('=');
                }
                clean.push_str(REDACTED);
            } else {
                clean.push_str(bare);
            }
            clean.push_str(separator);
        }
    }
    Cow::Owned(clean)
}

/// A segment of a path, or what stands in its place.
pub(crate) fn redact_part(part: &str) -> &str {
    if is_secret_value(part) { REDACTED } else { part }
}

fn is_secret_pair(pair: &str) -> bool {
    match pair.split_once('=') {
        Some((key, "")) => is_secret_value(key),
        Some((key, value)) => is_secret_name(&decode(key)) || is_secret_value(key) || is_secret_value(value),
        None => is_secret_value(pair),
    }
}

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let says_so = NAMES.contains(&plain.as_str()) || WITHIN_NAMES.iter().any(|word| plain.contains(word));
    says_so && plain != TOKEN_ID
}

fn is_secret_value(value: &str) -> bool {
    // Nearly all are plain: neither a token nor a name and its value is written without one of these.
    if !value.bytes().any(|byte| matches!(byte, b'%' | b'+' | b'=' | b'.' | b' ')) {
        return false;
    }
    let mut value = Cow::Borrowed(value);
    for _ in 0..DEPTH {
        if has_token(&value) || names_secret(&value) {
            return true;
        }
        if !value.contains(['%', '+']) {
            return false;
        }
        let decoded = decode(&value).into_owned();
        value = Cow::Owned(decoded);
    }
    has_token(&value) || names_secret(&value)
}

/// A JSON Web Token, or the beginning of an `Authorization` header.
fn has_token(value: &str) -> bool {
    let in_token = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let starts = |word: &str| value.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    starts("bearer ")
        || starts("basic ")
        || value.contains("bearer.authorization.k8s.io.")
        || value.split(|letter| !in_token(letter)).any(|piece| piece.starts_with("eyJ") && piece.contains('.'))
}

/// Whether somewhere within a name of a secret is followed by `=` and a value, as in `--password=x` or a URL's query.
fn names_secret(value: &str) -> bool {
    let mut pieces = value.split('=').peekable();
    while let Some(piece) = pieces.next() {
        let followed = pieces.peek().is_some_and(|next| !next.is_empty());
        let in_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let name = piece.rsplit(|letter| !in_name(letter)).next().unwrap_or_default();
        if followed && is_secret_name(name) {
            return true;
        }
    }
    false
}

fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_by_name_and_by_form_are_gone() {
        for (uri, clean) in [
            ("/api?token=PLANTED", "/api?token=REDACTED"),
            ("/api?a=1&access_token=PLANTED&b=2", "/api?a=1&access_token=REDACTED&b=2"),
            ("/api?Access-Token=PLANTED", "/api?Access-Token=REDACTED"),
            ("/api?acc%65ss_t%6fken=PLANTED", "/api?acc%65ss_t%6fken=REDACTED"),
            ("/api?client%5Fsecret=PLANTED;x=1", "/api?client%5Fsecret=REDACTED;x=1"),
            ("/api?authorization=Bearer+PLANTED", "/api?authorization=REDACTED"),
            ("/api?x=Bearer%20PLANTED", "/api?x=REDACTED"),
            ("/api?q=basic+PLANTED", "/api?q=REDACTED"),
            ("/api?X-Amz-Signature=PLANTED&X-Amz-Date=1", "/api?X-Amz-Signature=REDACTED&X-Amz-Date=1"),
            ("/api?sig=PLANTED", "/api?sig=REDACTED"),
            ("/api?x=eyJhbGciOiJub25lIn0.eyJQTEFOVEVEIjoxfQ.x", "/api?x=REDACTED"),
            ("/api?eyJhbGciOiJub25lIn0.PLANTED.x", "/api?REDACTED"),
            ("/api?eyJhbGciOiJub25lIn0.PLANTED.x=1", "/api?REDACTED"),
            ("/login/eyJhbGciOiJub25lIn0.PLANTED.x/end", "/login/REDACTED/end"),
            ("/login;jsessionid=PLANTED/end", "/REDACTED/end"),
            ("/exec?command=mysql&command=--password%3DPLANTED", "/exec?command=mysql&command=REDACTED"),
            ("/exec?command=env&command=DB_PASSWORD=PLANTED", "/exec?command=env&command=REDACTED"),
            ("/proxy?next=https%3A%2F%2Fh%2F%3Faccess_token%3DPLANTED", "/proxy?next=REDACTED"),
            ("/proxy?next=x%253Faccess_token%253DPLANTED", "/proxy?next=REDACTED"),
        ] {
            let redacted = redact_uri(uri);
            assert!(!redacted.contains("PLANTED"), "{uri} -> {redacted}");
            assert_eq!(redacted, clean);
        }
    }

    #[test]
    fn the_parameters_of_kubernetes_are_kept() {
        for uri in [
            "",
            "/",
            "/api/v1/namespaces/a/secrets/token-xyz",
            "/api/v1/pods?limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0",
            "/api/v1/pods?fieldSelector=metadata.name%3Da&labelSelector=app%3Dweb&watch=true&resourceVersion=1",
            "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fservice-account-token",
            "/api/v1/namespaces/a/pods/b/exec?command=ls&command=-la&container=c&stdin=true&stdout=true&tty=true",
            "/api/v1/namespaces/a/pods/b/log?follow=true&sinceTime=2026-11-21T03:53:00Z&tailLines=10&timestamps=true",
            "/apis/apps/v1/deployments?dryRun=All&fieldManager=kubectl&force=true&timeoutSeconds=5",
            "/api?token=&a",
            "/v1/users/ann?tokenId=0123",
        ] {
            assert_eq!(redact_uri(uri), uri);
        }
    }

    proptest! {
        #[test]
        fn nothing_of_a_secret_survives(before in "[a-z]{0,4}", name in "(t|T)oken|pass-?word|SECRET", after in "[a-z&=;%+]{0,8}") {
            let uri = format!("/{before}?{before}=1&{name}=PLANTED&{after}");
            let redacted = redact_uri(&uri);
            prop_assert!(!redacted.contains("PLANTED"), "{}", redacted);
        }

        #[test]
        fn anything_can_be_looked_at(uri in "\\PC*") {
            prop_assert!(redact_uri(&uri).len() <= uri.len() * REDACTED.len() + REDACTED.len());
        }
    }
}

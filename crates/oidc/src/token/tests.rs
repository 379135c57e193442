//! What is believed, held against every known way to forge.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::AsDer as _,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{EncodingKey, encode, jwk::Jwk};
use proptest::{prelude::*, test_runner::Config};
use serde_json::{Value, json};

use super::*;
use crate::config::{Configuration, Flags};

const ISSUER: &str = "https://login.example.com";

pub(crate) struct Signer {
    pub(crate) key: EncodingKey,
    pub(crate) jwk: Value,
    algorithm: Algorithm,
}

fn rsa(id: &str) -> Signer {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    // The PKCS#1 key within PKCS#8 begins after 26 bytes where it has 2048 bits.
    let key = EncodingKey::from_rsa_der(&pair.as_der().unwrap().as_ref()[26..]);
    signer(id, key, Algorithm::RS256)
}

fn elliptic(id: &str) -> Signer {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    signer(id, EncodingKey::from_ec_der(pkcs8.unwrap().as_ref()), Algorithm::ES256)
}

fn signer(id: &str, key: EncodingKey, algorithm: Algorithm) -> Signer {
    let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    Signer { key, jwk: serde_json::to_value(jwk).unwrap(), algorithm }
}

pub(crate) static ONE: LazyLock<Signer> = LazyLock::new(|| rsa("one"));
pub(crate) static TWO: LazyLock<Signer> = LazyLock::new(|| elliptic("two"));
static STRANGER: LazyLock<Signer> = LazyLock::new(|| rsa("one"));

fn keys() -> KeySet {
    let document =
        json!({"keys": [ONE.jwk, TWO.jwk, {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}, {"kty": "new"}, 7]});
    KeySet::parse(document.to_string().as_bytes()).unwrap()
}

fn config(algorithms: &[&str]) -> IssuerConfig {
    let flags = Flags {
        issuer_url: Some(ISSUER.to_owned()),
        client_id: Some("moorline".to_owned()),
        signing_algs: algorithms.iter().map(|&name| name.to_owned()).collect(),
        ..Flags::default()
    };
    Configuration::from_flags(flags).unwrap().unwrap().issuers.remove(0)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(changes: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "moorline", "sub": "ann", "exp": now() + 600});
    let fields = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    claims
}

pub(crate) fn header(signer: &Signer) -> Header {
    let mut header = Header::new(signer.algorithm);
    header.kid = signer.jwk["kid"].as_str().map(str::to_owned);
    header
}

fn check(token: &str, algorithms: &[&str]) -> Result<Verified, String> {
    let presented = Presented::read(token).ok_or("not a token")?;
    presented.verify(&config(algorithms), &keys()).map_err(|reason| reason.to_string())
}

const ALL: [&str; 2] = ["RS256", "ES256"];

#[test]
fn a_good_token_is_believed_by_each_kind_of_key() {
    for signer in [&*ONE, &*TWO] {
        let token = encode(&header(signer), &claims(&json!({})), &signer.key).unwrap();
        assert_eq!(check(&token, &ALL).unwrap().claims["sub"], "ann");
        let nameless = encode(&Header::new(signer.algorithm), &claims(&json!({})), &signer.key).unwrap();
        assert!(check(&nameless, &ALL).is_ok(), "without key id");
    }
    let token = encode(&header(&ONE), &claims(&json!({"aud": ["other", "moorline"]})), &ONE.key).unwrap();
    assert!(check(&token, &ALL).is_ok(), "one of several audiences");
}

#[test]
fn claims_that_are_not_in_order_are_refused() {
    // Made first: on a slow machine a key takes longer than the skew.
    LazyLock::force(&ONE);
    LazyLock::force(&TWO);
    let now = now();
    for (changes, why) in [
        (json!({"iss": "https://login.example.com/"}), "InvalidIssuer"),
        (json!({"iss": [ISSUER]}), "not a token"),
        (json!({"iss": null}), "not a token"),
        (json!({"aud": "other"}), "InvalidAudience"),
        (json!({"aud": []}), ""),
        (json!({"aud": 7}), ""),
        (json!({"aud": null}), "aud"),
        (json!({"exp": now - 60}), "ExpiredSignature"),
        (json!({"exp": null}), "exp"),
        (json!({"exp": "never"}), ""),
        (json!({"exp": -1}), ""),
        (json!({"nbf": now + 60}), "ImmatureSignature"),
        (json!({"nbf": "yesterday"}), ""),
    ] {
        let token = encode(&header(&ONE), &claims(&changes), &ONE.key).unwrap();
        let refused = check(&token, &ALL).expect_err(&changes.to_string());
        assert!(refused.contains(why), "{changes}: {refused}");
    }
    for changes in [json!({"exp": now - 2}), json!({"nbf": now + 2})] {
        let token = encode(&header(&ONE), &claims(&changes), &ONE.key).unwrap();
        assert!(check(&token, &ALL).is_ok(), "within the skew: {changes}");
    }
}

#[test]
fn the_token_does_not_choose_how_it_is_checked() {
    let refuse = |token: &str, why: &str| {
        let refused = check(token, &["RS256"]).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    };
    // A good signature by an algorithm that is not allowed.
    refuse(&encode(&header(&TWO), &claims(&json!({})), &TWO.key).unwrap(), "not allowed");
    // The public key, used as the shared secret.
    let public = EncodingKey::from_secret(ONE.jwk["n"].as_str().unwrap().as_bytes());
    let mut confused = Header::new(Algorithm::HS256);
    confused.kid = Some("one".to_owned());
    refuse(&encode(&confused, &claims(&json!({})), &public).unwrap(), "not allowed");
    // The shared secret of the document.
    confused.kid = Some("secret".to_owned());
    refuse(&encode(&confused, &claims(&json!({})), &EncodingKey::from_secret(b"secret")).unwrap(), "not allowed");
    // Another's key under a known id, and a key that the token brings itself.
    refuse(&encode(&header(&STRANGER), &claims(&json!({})), &STRANGER.key).unwrap(), "no key");
    let mut own = header(&STRANGER);
    own.jwk = Some(serde_json::from_value(STRANGER.jwk.clone()).unwrap());
    own.jku = Some("https://evil.example/keys".to_owned());
    own.kid = None;
    refuse(&encode(&own, &claims(&json!({})), &STRANGER.key).unwrap(), "no key");
    // A key of one kind under an algorithm of another.
    let mut crossed = header(&ONE);
    crossed.kid = Some("two".to_owned());
    refuse(&encode(&crossed, &claims(&json!({})), &ONE.key).unwrap(), "no key");
    for id in ["../../etc/passwd", "one\0", "' OR 1=1", "One", ""] {
        let mut injected = header(&ONE);
        injected.kid = Some(id.to_owned());
        refuse(&encode(&injected, &claims(&json!({})), &ONE.key).unwrap(), "no key");
    }
    let mut critical = header(&ONE);
    critical.crit = Some(vec!["exp".to_owned()]);
    refuse(&encode(&critical, &claims(&json!({})), &ONE.key).unwrap(), "");
}

#[test]
fn what_is_no_token_is_not_read() {
    let good = encode(&header(&ONE), &claims(&json!({})), &ONE.key).unwrap();
    let (_, payload) = good.split_once('.').unwrap();
    // {"alg":"none"} and {"alg":"NONE","kid":"one"}
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIiwia2lkIjoib25lIn0"] {
        assert!(Presented::read(&format!("{head}.{payload}")).is_none());
    }
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    assert!(check(&unsigned, &ALL).is_err());
    for text in ["", ".", "..", "a.b.c", "a.b", &good[1..], &format!("{good}.x")] {
        assert!(Presented::read(text).is_none(), "{text}");
    }
    let large = encode(&header(&ONE), &claims(&json!({"x": "y".repeat(MAX_TOKEN)})), &ONE.key).unwrap();
    assert!(Presented::read(&large).is_none());
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_changed_token_is_never_believed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        static GOOD: LazyLock<String> = LazyLock::new(|| encode(&header(&ONE), &claims(&json!({})), &ONE.key).unwrap());
        let at = at.index(GOOD.len());
        let mut changed = GOOD.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != *GOOD);
        prop_assert!(check(&changed, &ALL).is_err());
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}") {
        drop(check(&text, &ALL));
        drop(KeySet::parse(text.as_bytes()));
    }
}

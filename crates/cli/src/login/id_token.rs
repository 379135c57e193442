//! What an ID token says, as far as a client has to look. Called by `provider`; pure but for the clock.
//!
//! It came from the token endpoint over TLS, which stands for the signature (OpenID Connect Core, 3.1.3.7, item 6). The
//! gateway, which gets it from anybody, verifies that.

use std::time::SystemTime;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use moorline_model::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// What was sent with this login; none where nothing was.
    pub(super) nonce: Option<&'a str>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Value,
    exp: f64,
    nonce: Option<String>,
}

/// Until when the token counts, in seconds since 1970.
///
/// # Errors
/// It is not the answer to what was asked.
pub(super) fn check(token: &str, expected: &Expected<'_>) -> Result<i64, &'static str> {
    const NONE: &str = "the issuer gave something else than an ID token";
    let payload = token.split('.').nth(1).ok_or(NONE)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_invalid| NONE)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_invalid| NONE)?;
    if claims.iss != expected.issuer {
        return Err("the ID token is of another issuer");
    }
    let for_us = match &claims.aud {
        Value::String(one) => one == expected.client_id,
        Value::Array(many) => many.iter().any(|one| one == expected.client_id),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if !for_us {
        return Err("the ID token is for another client");
    }
    if expected.nonce.is_some() && claims.nonce.as_deref() != expected.nonce {
        return Err("the ID token is the answer to another login");
    }
    let expires = claims.exp as i64;
    if expires <= now() {
        return Err("the ID token has expired already: is the clock of this machine right?");
    }
    Ok(expires)
}

/// The moment now, in seconds since 1970.
pub(super) fn now() -> i64 {
    Timestamp::from(SystemTime::now()).unix_seconds()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: &Value) -> Result<i64, &'static str> {
        let token = format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        check(&token, &Expected { issuer: "https://a.example", client_id: "us", nonce: Some("n") })
    }

    #[test]
    fn a_token_is_the_answer_to_what_was_asked() {
        let exp = now() + 60;
        let good = json!({"iss": "https://a.example", "aud": "us", "exp": exp, "nonce": "n"});
        assert_eq!(of(&good), Ok(exp));
        for (claim, value, good_so) in [
            ("aud", json!(["them", "us"]), true),
            ("exp", json!(exp as f64 + 0.5), true),
            ("iss", json!("https://a.example/"), false),
            ("aud", json!("them"), false),
            ("aud", json!([]), false),
            ("aud", Value::Null, false),
            ("nonce", json!("m"), false),
            ("nonce", Value::Null, false),
            ("exp", json!(now() - 1), false),
            ("exp", json!("soon"), false),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            assert_eq!(of(&claims).is_ok(), good_so, "{claims}");
        }
        for token in ["", "a.b.c", "a", "..", "e30.e30.e30"] {
            let expected = Expected { issuer: "https://a.example", client_id: "us", nonce: None };
            assert!(check(token, &expected).is_err(), "{token}");
        }
    }
}

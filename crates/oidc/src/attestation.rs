//! Whether a token of a managed cluster's Kubernetes shows that it is held by one certain service account there.
//!
//! Called by the server for agents that join without a secret that somebody carried. The keys are those that the cluster's
//! record holds; nothing is fetched. Pure, but for the clock.

use thiserror::Error;

use crate::{
    keys::{InvalidKeySet, KeySet, SUPPORTED},
    token::{Believed, MAX_TOKEN, Presented, Rejected},
};

/// What a token must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// Who issued it: its `iss`.
    pub issuer: &'a str,
    /// Whom it is for: one of its `aud`.
    pub audience: &'a str,
    /// Whose it is: its `sub`, `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: &'a str,
    /// The public keys of the issuer, a JSON Web Key Set.
    pub jwks: &'a str,
}

/// Why a token does not show it. Never repeats any of it.
#[derive(Debug, Error)]
pub enum NotShown {
    /// No JSON Web Token, or too long for one.
    #[error("it is no JSON Web Token of a service account")]
    NoToken,
    /// The keys of the record cannot be read.
    #[error("the issuer's keys in the cluster's record cannot be used: {0}")]
    Keys(String),
    /// Another issuer.
    #[error("it is of another issuer")]
    Issuer,
    /// Signature, audience or time.
    #[error("{0}")]
    Rejected(String),
    /// Another service account.
    #[error("it is of another service account")]
    Subject,
}

impl Expected<'_> {
    /// Checks a token: issuer, signature, audience, time (it must end), and whose it is.
    ///
    /// # Errors
    /// [`NotShown`].
    pub fn check(&self, token: &str) -> Result<(), NotShown> {
        let presented = Some(token).filter(|token| token.len() <= MAX_TOKEN).and_then(Presented::read);
        let presented = presented.ok_or(NotShown::NoToken)?;
        if presented.issuer() != self.issuer {
            return Err(NotShown::Issuer);
        }
        let keys = KeySet::parse(self.jwks.as_bytes());
        let keys = keys.map_err(|error: InvalidKeySet| NotShown::Keys(error.to_string()))?;
        let audiences = [self.audience.to_owned()];
        let believed = Believed { issuer: self.issuer, audiences: &audiences, algorithms: &SUPPORTED };
        let verified = presented.verify_by(believed, &keys);
        let verified = verified.map_err(|error: Rejected| NotShown::Rejected(error.to_string()))?;
        match verified.claims.get("sub").and_then(|subject| subject.as_str()) {
            Some(subject) if subject == self.subject => Ok(()),
            _other => Err(NotShown::Subject),
        }
    }
}

/// Whether a JSON Web Key Set holds a key that tokens can be verified with.
///
/// # Errors
/// Why not, for people.
pub fn usable_keys(jwks: &str) -> Result<(), String> {
    match KeySet::parse(jwks.as_bytes()) {
        Ok(keys) if keys.len() > 0 => Ok(()),
        Ok(_none) => Err("it holds no key that tokens can be verified with (RSA, P-256, P-384)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::encode;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        clock,
        token::tests::{ONE, TWO, header},
    };

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const SUBJECT: &str = "system:serviceaccount:moorline:moorline-agent";

    fn claims() -> Value {
        json!({"iss": ISSUER, "aud": ["moorline"], "sub": SUBJECT, "exp": clock::now() + 600})
    }

    fn check(claims: &Value, jwks: &Value) -> Result<(), NotShown> {
        let token = encode(&header(&ONE), claims, &ONE.key).unwrap();
        let jwks = jwks.to_string();
        Expected { issuer: ISSUER, audience: "moorline", subject: SUBJECT, jwks: &jwks }.check(&token)
    }

    #[test]
    fn the_very_service_account_is_believed() {
        check(&claims(), &json!({"keys": [TWO.jwk, ONE.jwk]})).unwrap();
    }

    #[test]
    fn nobody_else_is() {
        let keys = json!({"keys": [ONE.jwk]});
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            check(&claims, &keys)
        };
        assert!(matches!(with("sub", json!("system:serviceaccount:moorline:other")), Err(NotShown::Subject)));
        assert!(matches!(with("sub", json!([SUBJECT])), Err(NotShown::Subject | NotShown::Rejected(_))));
        assert!(matches!(with("iss", json!("https://else.example")), Err(NotShown::Issuer)));
        assert!(matches!(with("aud", json!("https://kubernetes.default.svc")), Err(NotShown::Rejected(_))));
        assert!(matches!(with("exp", json!(clock::now() - 60)), Err(NotShown::Rejected(_))));
        assert!(matches!(with("exp", Value::Null), Err(NotShown::Rejected(_))), "a token that never ends");
        assert!(matches!(check(&claims(), &json!({"keys": [TWO.jwk]})), Err(NotShown::Rejected(_))));
        assert!(matches!(check(&claims(), &json!({"keys": []})), Err(NotShown::Rejected(_))));
        assert!(matches!(check(&claims(), &json!(7)), Err(NotShown::Keys(_))));
        let expected = Expected { issuer: ISSUER, audience: "moorline", subject: SUBJECT, jwks: "{\"keys\":[]}" };
        for noise in ["", "a.b.c", &"x".repeat(100_000)] {
            assert!(matches!(expected.check(noise), Err(NotShown::NoToken)), "{noise:.10}");
        }
    }
}

//! Checks a token: form, signature, issuer, audience and time. Called by `authenticator` and `issuer`.
//!
//! Nothing of the token chooses how it is checked: the algorithms are those of the configuration that the key can be
//! used with, keys come from the issuer's document only, and `jku`, `x5u`, `jwk` and their kin in a token's head are
//! never looked at.

use std::collections::HashSet;

use jsonwebtoken::{
    Algorithm, Header, Validation, dangerous::insecure_decode_claims, decode, decode_header, errors::ErrorKind,
};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::{
    claims::{ClaimError, Claims},
    config::IssuerConfig,
    keys::KeySet,
};

/// Bytes of a token that are looked at: a user in some hundred groups, and less than the head of a request may have.
pub(crate) const MAX_TOKEN: usize = 32 * 1024;

/// How far the clocks of issuer and server may be apart: a token counts from this long before its `nbf` to this long
/// after its `exp`.
pub(crate) const CLOCK_SKEW: u64 = 10;

/// A token whose head can be read and which says who issued it. Nothing of it is verified.
pub(crate) struct Presented<'a> {
    text: &'a str,
    header: Header,
    issuer: String,
    issued_at: Option<f64>,
}

/// Whose tokens, for whom and signed how are believed.
#[derive(Clone, Copy)]
pub(crate) struct Believed<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) audiences: &'a [String],
    pub(crate) algorithms: &'a [Algorithm],
}

/// What a verified token says.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) claims: Claims,
    /// In seconds since 1970.
    pub(crate) expires: u64,
}

/// Why a token is not believed. Never repeats any of it.
#[derive(Debug, Error)]
pub(crate) enum Rejected {
    #[error("it is signed with an algorithm that is not allowed")]
    Algorithm,
    #[error("it needs extensions that are not understood")]
    Critical,
    #[error("no key of the issuer verifies it")]
    UnknownKey,
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Claims(#[from] ClaimError),
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
    #[serde(default)]
    iat: Value,
}

impl<'a> Presented<'a> {
    /// None where it is no token of OpenID Connect.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        if text.len() > MAX_TOKEN || text.matches('.').count() != 2 {
            return None;
        }
        let header = decode_header(text).ok()?;
        let Issued { iss: issuer, iat } = insecure_decode_claims(text).ok()?;
        Some(Self { text, header, issuer, issued_at: iat.as_f64() })
    }

    /// Who says to have issued it.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it may be signed with a key that was not published at a moment, in seconds since 1970, when these keys
    /// were: it names none of them, and says to have been issued after that, clocks that differ allowed for.
    pub(crate) fn may_be_newer_than(&self, moment: u64, keys: &KeySet) -> bool {
        !self.header.kid.as_deref().is_some_and(|id| keys.knows(id))
            && self.issued_at.is_some_and(|issued| issued + CLOCK_SKEW as f64 >= moment as f64)
    }

    /// Checks everything but what the mapping asks of the claims.
    ///
    /// # Errors
    /// [`Rejected::UnknownKey`] where newer keys might help, another reason where nothing does.
    pub(crate) fn verify(&self, config: &IssuerConfig, keys: &KeySet) -> Result<Verified, Rejected> {
        let IssuerConfig { url, audiences, algorithms, .. } = config;
        self.verify_by(Believed { issuer: url, audiences, algorithms }, keys)
    }

    /// As [`Presented::verify`], of an issuer that is in no configuration.
    ///
    /// # Errors
    /// As [`Presented::verify`].
    pub(crate) fn verify_by(&self, believed: Believed<'_>, keys: &KeySet) -> Result<Verified, Rejected> {
        if !believed.algorithms.contains(&self.header.alg) {
            return Err(Rejected::Algorithm);
        }
        if self.header.crit.is_some() {
            return Err(Rejected::Critical);
        }
        for (key, usable) in keys.candidates(self.header.kid.as_deref(), self.header.alg) {
            let algorithms = usable.iter().copied().filter(|one| believed.algorithms.contains(one)).collect();
            match decode::<Claims>(self.text, key, &validation(believed, algorithms)) {
                Ok(token) => return verified(token.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(error) => return Err(Rejected::Invalid(error.to_string())),
            }
        }
        Err(Rejected::UnknownKey)
    }
}

fn validation(believed: Believed<'_>, algorithms: Vec<Algorithm>) -> Validation {
    let mut validation = Validation {
        algorithms,
        leeway: CLOCK_SKEW,
        validate_exp: true,
        validate_nbf: true,
        validate_aud: true,
        aud: Some(believed.audiences.iter().cloned().collect()),
        iss: Some(HashSet::from([believed.issuer.to_owned()])),
        ..Validation::default()
    };
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation
}

fn verified(claims: Claims) -> Result<Verified, Rejected> {
    let expires = claims.get("exp").and_then(|expires| expires.as_u64().or_else(|| Some(expires.as_f64()? as u64)));
    let expires = expires.ok_or_else(|| Rejected::Invalid("its expiry is no time".to_owned()))?;
    Ok(Verified { claims, expires: expires.saturating_add(CLOCK_SKEW) })
}

#[cfg(test)]
pub(crate) mod tests;

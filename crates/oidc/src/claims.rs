//! From the claims of a verified token to a user. Called by `authenticator`; pure.
//!
//! A claim is a field at the top of the token. Claims within others, and those that are to be fetched elsewhere
//! (distributed and aggregated claims), are not looked for: such a user has no groups of that kind.

use moorline_model::{Identity, InvalidIdentity};
use serde_json::{Map, Value};
use thiserror::Error;

/// The claims of a token.
pub(crate) type Claims = Map<String, Value>;

/// What names in Kubernetes' own space begin with. An issuer cannot hand them out: kube-apiserver leaves that check to
/// `userValidationRules`, which are not supported here, so that it is made always. What counts is the whole name:
/// behind a prefix, any value may stand.
pub(crate) const RESERVED: &str = "system:";

/// A claim, and what is written in front of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefixed {
    pub(crate) claim: String,
    pub(crate) prefix: String,
}

/// Which claims make the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Claims that must be there with this very text.
    pub(crate) required: Vec<(String, String)>,
    pub(crate) username: Prefixed,
    pub(crate) groups: Option<Prefixed>,
    pub(crate) uid: Option<String>,
    /// Extra keys, and the claims of their values.
    pub(crate) extra: Vec<(String, String)>,
}

/// Why the claims make no user. Names claims, never their values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ClaimError {
    #[error("the claim {0:?} is missing")]
    Missing(String),
    #[error("the claim {0:?} is not a text")]
    NotText(String),
    #[error("the claim {0:?} is neither a text nor a list of texts")]
    NotTexts(String),
    #[error("the claim {0:?} has not the required value")]
    NotAsRequired(String),
    #[error("the claim \"email_verified\" is not true")]
    EmailNotVerified,
    #[error("the user or a group begins with \"system:\", which belongs to Kubernetes")]
    Reserved,
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
}

impl Mapping {
    /// The user that these claims name.
    ///
    /// # Errors
    /// They name none, or one that must not be.
    pub(crate) fn identity(&self, claims: &Claims) -> Result<Identity, ClaimError> {
        for (claim, value) in &self.required {
            if text(claims, claim)? != value {
                return Err(ClaimError::NotAsRequired(claim.clone()));
            }
        }
        let mut identity = Identity::new(self.user(claims)?)?.with_groups(self.groups(claims)?)?;
        if let Some(claim) = &self.uid {
            identity = identity.with_uid(text(claims, claim)?)?;
        }
        for (key, claim) in &self.extra {
            let value = present(claims, claim).ok_or_else(|| ClaimError::Missing(claim.clone()))?;
            identity = identity.with_extra(key, texts(claim, value)?)?;
        }
        Ok(identity.with_groups(["system:authenticated"])?)
    }

    fn user(&self, claims: &Claims) -> Result<String, ClaimError> {
        let Prefixed { claim, prefix } = &self.username;
        let name = text(claims, claim)?;
        if name.is_empty() {
            return Err(ClaimError::Missing(claim.clone()));
        }
        // As kube-apiserver: whoever can write any address into their account must not become its owner.
        if claim == "email" && claims.get("email_verified").is_some_and(|verified| verified != &Value::Bool(true)) {
            return Err(ClaimError::EmailNotVerified);
        }
        allowed(format!("{prefix}{name}"))
    }

    fn groups(&self, claims: &Claims) -> Result<Vec<String>, ClaimError> {
        let Some(Prefixed { claim, prefix }) = &self.groups else { return Ok(Vec::new()) };
        let Some(value) = present(claims, claim) else { return Ok(Vec::new()) };
        texts(claim, value)?.into_iter().map(|group| allowed(format!("{prefix}{group}"))).collect()
    }
}

fn allowed(name: String) -> Result<String, ClaimError> {
    if name.starts_with(RESERVED) { Err(ClaimError::Reserved) } else { Ok(name) }
}

fn present<'a>(claims: &'a Claims, claim: &str) -> Option<&'a Value> {
    claims.get(claim).filter(|value| !value.is_null())
}

fn text<'a>(claims: &'a Claims, claim: &str) -> Result<&'a str, ClaimError> {
    let value = present(claims, claim).ok_or_else(|| ClaimError::Missing(claim.to_owned()))?;
    value.as_str().ok_or_else(|| ClaimError::NotText(claim.to_owned()))
}

fn texts<'a>(claim: &str, value: &'a Value) -> Result<Vec<&'a str>, ClaimError> {
    let wrong = || ClaimError::NotTexts(claim.to_owned());
    match value {
        Value::String(one) => Ok(vec![one]),
        Value::Array(many) => many.iter().map(|value| value.as_str().ok_or_else(wrong)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping() -> Mapping {
        Mapping {
            required: vec![("hd".to_owned(), "example.com".to_owned())],
            username: Prefixed { claim: "email".to_owned(), prefix: "oidc:".to_owned() },
            groups: Some(Prefixed { claim: "groups".to_owned(), prefix: "oidc:".to_owned() }),
            uid: Some("sub".to_owned()),
            extra: vec![("example.com/team".to_owned(), "team".to_owned())],
        }
    }

    fn of(mapping: &Mapping, changes: &Value) -> Result<Identity, ClaimError> {
        let mut claims = json!({"hd": "example.com", "email": "ann@example.com", "sub": "1", "team": ["a", "b"]});
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            claims.insert(name.clone(), value.clone());
        }
        mapping.identity(claims)
    }

    #[test]
    fn claims_become_a_user() {
        let user = of(&mapping(), &json!({"groups": ["x", "y"], "email_verified": true})).unwrap();
        assert_eq!(user.user(), "oidc:ann@example.com");
        assert_eq!(user.groups(), ["oidc:x", "oidc:y", "system:authenticated"]);
        assert_eq!(user.uid(), Some("1"));
        assert_eq!(user.extra()["example.com/team"], ["a", "b"]);
        assert_eq!(of(&mapping(), &json!({"groups": "x"})).unwrap().groups()[0], "oidc:x");
        assert_eq!(of(&mapping(), &json!({})).unwrap().groups(), ["system:authenticated"]);
    }

    #[test]
    fn claims_that_make_no_user_are_refused() {
        let missing = |claim: &str| ClaimError::Missing(claim.to_owned());
        for (changes, error) in [
            (json!({"hd": "example.org"}), ClaimError::NotAsRequired("hd".to_owned())),
            (json!({"hd": null}), missing("hd")),
            (json!({"hd": ["example.com"]}), ClaimError::NotText("hd".to_owned())),
            (json!({"email": ""}), missing("email")),
            (json!({"email": 7}), ClaimError::NotText("email".to_owned())),
            (json!({"email_verified": false}), ClaimError::EmailNotVerified),
            (json!({"email_verified": "true"}), ClaimError::EmailNotVerified),
            (json!({"groups": 7}), ClaimError::NotTexts("groups".to_owned())),
            (json!({"groups": ["a", 7]}), ClaimError::NotTexts("groups".to_owned())),
            (json!({"sub": null}), missing("sub")),
            (json!({"team": null}), missing("team")),
        ] {
            assert_eq!(of(&mapping(), &changes), Err(error), "{changes}");
        }
        assert!(matches!(of(&mapping(), &json!({"email": "a\nb"})), Err(ClaimError::Identity(_))));
    }

    #[test]
    fn no_issuer_hands_out_names_of_kubernetes() {
        let mut bare = mapping();
        bare.username.prefix = String::new();
        bare.groups = Some(Prefixed { claim: "groups".to_owned(), prefix: "sys".to_owned() });
        assert_eq!(of(&bare, &json!({"email": "system:admin"})), Err(ClaimError::Reserved));
        assert_eq!(of(&bare, &json!({"groups": ["tem:masters"]})), Err(ClaimError::Reserved));
        assert_eq!(of(&mapping(), &json!({"email": "system:admin"})).unwrap().user(), "oidc:system:admin");
    }
}

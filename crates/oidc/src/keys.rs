//! The signing keys of an issuer, from its JWKS document. Called by `issuer` and `token`; pure.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// Keys of one issuer that are kept: large providers publish some ten. A token that names no key is tried with each.
const MAX_KEYS: usize = 64;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Every algorithm that can be allowed: those of kube-apiserver, but ES512. None with a shared secret.
pub(crate) const SUPPORTED: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The public keys of an issuer.
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    /// What it may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The document holds no list of keys.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON Web Key Set: {0}")]
pub(crate) struct InvalidKeySet(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a document. Keys that cannot be used here (another kind, for encryption, a shared secret) are left out.
    ///
    /// # Errors
    /// It is no key set at all.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, InvalidKeySet> {
        let document: Document = serde_json::from_slice(json)?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(Key::read).take(MAX_KEYS).collect();
        Ok(Self { keys })
    }

    pub(crate) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key has this key id.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The keys that a token with this key id and algorithm can be signed with. One without key id: all of the kind.
    pub(crate) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = (&DecodingKey, &[Algorithm])> {
        self.keys
            .iter()
            .filter(move |key| id.is_none_or(|id| key.id.as_deref() == Some(id)) && key.algorithms.contains(&algorithm))
            .map(|key| (&key.key, key.algorithms.as_slice()))
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &RSA,
            AlgorithmParameters::EllipticCurve(parameters) => match &parameters.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                EllipticCurve::P521 | EllipticCurve::Ed25519 | _ => return None,
            },
            AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::Other(_)
            | _ => return None,
        };
        let only = jwk.common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
        let algorithms: Vec<_> = kind.iter().copied().filter(|one| only.is_none_or(|only| only == *one)).collect();
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self { id: jwk.common.key_id, algorithms, key })
    }
}

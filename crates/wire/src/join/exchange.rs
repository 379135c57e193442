//! The request to join and its answer, or why there is none.

use std::fmt;

use moorline_model::ClusterName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::JoinSecret;

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Whose agent asks.
    pub name: ClusterName,
    /// Why it should get one.
    #[serde(flatten)]
    pub proof: JoinProof,
    /// The request for it: PKCS#10 in PEM.
    pub request: String,
}

/// What shows that an agent may join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinProof {
    /// A join token.
    Token {
        /// Which.
        id: String,
        /// Its secret.
        secret: JoinSecret,
    },
    /// A token of the cluster's own Kubernetes for its service account, which the server can verify.
    Attestation(Zeroizing<String>),
}

/// The first certificate. Nothing in it is secret: the key never travelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Whose agent it stands for.
    pub name: ClusterName,
    /// Where to dial from now on: `host:port`.
    pub address: String,
    /// The certificate, in PEM.
    pub certificate: String,
    /// The authorities by which the server is known, in PEM.
    pub roots: String,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// One word: a [`JoinRefusal`], or one of a later version.
    pub reason: String,
    /// What happened and what to do, for the operator of the cluster.
    pub message: String,
}

/// The reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinRefusal {
    /// No such token, or another secret: which of both is not told.
    UnknownToken,
    /// It was used, for another key.
    TokenUsed,
    /// Its time is over.
    TokenExpired,
    /// It is for another cluster.
    WrongName,
    /// The cluster's certificates were revoked after it was made.
    ClusterRevoked,
    /// The token of the cluster's Kubernetes does not show what it should.
    NotAttested,
    /// Too many tries, here or in all.
    TooMany,
    /// What was sent cannot be read, or the certificate request is not acceptable.
    BadRequest,
    /// The server cannot do it now.
    Unavailable,
}

impl JoinRefusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::UnknownToken,
        Self::TokenUsed,
        Self::TokenExpired,
        Self::WrongName,
        Self::ClusterRevoked,
        Self::NotAttested,
        Self::TooMany,
        Self::BadRequest,
        Self::Unavailable,
    ];

    /// The word on the wire, in metrics and in audit events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "UnknownToken",
            Self::TokenUsed => "TokenUsed",
            Self::TokenExpired => "TokenExpired",
            Self::WrongName => "WrongName",
            Self::ClusterRevoked => "ClusterRevoked",
            Self::NotAttested => "NotAttested",
            Self::TooMany => "TooMany",
            Self::BadRequest => "BadRequest",
            Self::Unavailable => "Unavailable",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::TooMany => 429,
            Self::Unavailable => 503,
            Self::UnknownToken
            | Self::TokenUsed
            | Self::TokenExpired
            | Self::WrongName
            | Self::ClusterRevoked
            | Self::NotAttested => 403,
        }
    }
}

impl JoinRefused {
    /// The reason, if this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<JoinRefusal> {
        JoinRefusal::ALL.into_iter().find(|reason| reason.as_str() == self.reason)
    }

    /// Whether the same request may succeed later, without anybody doing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self.known(), Some(JoinRefusal::TooMany | JoinRefusal::Unavailable))
    }
}

impl fmt::Debug for JoinProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, .. } => f.debug_struct("Token").field("id", id).finish_non_exhaustive(),
            Self::Attestation(_) => f.write_str("Attestation(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_either_proof_and_show_neither() {
        let secret = JoinSecret::from_bytes([0xa5; 32]);
        let by_token = JoinRequest {
            name: "east".parse().unwrap(),
            proof: JoinProof::Token { id: "one".to_owned(), secret: secret.clone() },
            request: "PEM".to_owned(),
        };
        let json = serde_json::to_value(&by_token).unwrap();
        let expected = serde_json::json!({
            "name": "east", "token": {"id": "one", "secret": secret}, "request": "PEM",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<JoinRequest>(json).unwrap(), by_token);
        let proof = JoinProof::Attestation(Zeroizing::new("eyJhbGciOi".to_owned()));
        let attested = JoinRequest { proof, ..by_token.clone() };
        let json = serde_json::to_string(&attested).unwrap();
        assert_eq!(json, r#"{"name":"east","attestation":"eyJhbGciOi","request":"PEM"}"#);
        assert_eq!(serde_json::from_str::<JoinRequest>(&json).unwrap(), attested);
        let shown = format!("{by_token:?} {attested:?}");
        assert!(!shown.contains("eyJ") && !shown.contains("paWl"), "{shown}");
        assert!(serde_json::from_str::<JoinRequest>(r#"{"name":"east","request":"PEM"}"#).is_err());
    }

    #[test]
    fn reasons_survive_and_later_ones_are_no_error() {
        for reason in JoinRefusal::ALL {
            let refused = JoinRefused { reason: reason.as_str().to_owned(), message: String::new() };
            assert_eq!(refused.known(), Some(reason));
            assert_eq!(refused.retryable(), matches!(reason.status(), 429 | 503));
        }
        let later = JoinRefused { reason: "Later".to_owned(), message: String::new() };
        assert!(later.known().is_none() && !later.retryable());
    }
}

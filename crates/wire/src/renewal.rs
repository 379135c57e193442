//! How an agent gets its next certificate: one HTTP/1.1 request on a stream that it opens itself. Whose certificate it
//! becomes is decided by the session alone.

use serde::{Deserialize, Serialize};

/// Where the request goes, by `POST`. The bodies are JSON, of at most [`crate::limits::AGENT_BODY`] bytes.
pub const RENEW_PATH: &str = "/v1/renew";

/// Asks for a certificate over a key that the agent has just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewRequest {
    /// A certificate request (PKCS#10), PEM.
    pub request: String,
}

/// The certificate, which stands for the cluster from now on, beside the one that the agent has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewAnswer {
    /// The certificate, PEM, leaf first.
    pub certificate: String,
    /// The authorities to believe about servers, PEM.
    pub roots: String,
}

//! Why a call of the agent's own brought nothing. Shown to operators on both sides.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use thiserror::Error;

use crate::serve::upstream::UpstreamError;

/// The most characters of the kube-apiserver's own words that are passed on.
const MAX_WORDS: usize = 300;

/// Why a call brought nothing.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// No answer at all.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Another answer than success.
    #[error("the kube-apiserver answered {code} to {what}{words}")]
    Refused {
        /// The status.
        code: StatusCode,
        /// What was asked.
        what: String,
        /// What it said, with a colon before, or nothing.
        words: String,
    },
    /// No answer in time, or not all of it.
    #[error("no full answer to {1} within {0:?}")]
    Timeout(Duration, String),
    /// The answer broke off, or is larger than any that is meant.
    #[error("the answer to {0} broke off or is too large")]
    Body(String),
    /// The answer is not what it should be.
    #[error("the answer to {0} cannot be read: {1}")]
    Unreadable(String, #[source] serde_json::Error),
    /// The kube-apiserver no longer has the version that a watch was to begin with.
    #[error("the kube-apiserver no longer knows that version")]
    Gone,
}

/// What a kube-apiserver says with a refusal.
#[derive(Deserialize)]
struct Words {
    #[serde(default)]
    message: String,
}

impl CallError {
    /// A refusal in the kube-apiserver's own words, cut to what a line can hold.
    pub(super) fn refused(code: StatusCode, what: &str, body: &[u8]) -> Self {
        if code == StatusCode::GONE {
            return Self::Gone;
        }
        let said = serde_json::from_slice::<Words>(body).map(|words| words.message).unwrap_or_default();
        let said: String = said.chars().take(MAX_WORDS).flat_map(char::escape_debug).collect();
        let words = if said.is_empty() { said } else { format!(": {said}") };
        Self::Refused { code, what: what.to_owned(), words }
    }

    /// The object, or its kind, is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(StatusCode::NOT_FOUND)
    }

    /// Somebody else was faster.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(StatusCode::CONFLICT)
    }

    /// The agent may not.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.code() == Some(StatusCode::FORBIDDEN)
    }

    /// The status, where there was an answer.
    pub(crate) fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Gone => Some(StatusCode::GONE),
            Self::Upstream(_) | Self::Timeout(..) | Self::Body(_) | Self::Unreadable(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_short_and_cannot_break_a_line() {
        let body = serde_json::json!({ "kind": "Status", "message": format!("no\nway{}", "x".repeat(5000)) });
        let error = CallError::refused(StatusCode::FORBIDDEN, "/x", body.to_string().as_bytes());
        let text = error.to_string();
        assert!(text.starts_with("the kube-apiserver answered 403 Forbidden to /x: no\\nwayxx"), "{text}");
        assert!(text.len() < 400 && error.is_forbidden());
        let error = CallError::refused(StatusCode::INTERNAL_SERVER_ERROR, "/readyz", b"etcd failed");
        assert_eq!(error.to_string(), "the kube-apiserver answered 500 Internal Server Error to /readyz");
        assert!(matches!(CallError::refused(StatusCode::GONE, "/x", b""), CallError::Gone));
    }
}

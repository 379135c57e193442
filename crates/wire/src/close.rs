//! Why a session is refused or ended. Travels in `Refused` and `GoAway`, stands in the logs of both ends and in metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{limits, text::cut};

/// Who has to act so that it does not happen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent, or whoever installed it.
    Agent,
    /// The server, or whoever runs it.
    Server,
    /// What lies between them.
    Network,
    /// The managed cluster's kube-apiserver.
    Upstream,
    /// The user who sent the request.
    User,
    /// Nobody: this is how things go.
    Nobody,
}

/// Why a session is refused or ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum CloseReason {
    /// No cluster has this certificate.
    UnknownCertificate,
    /// The certificate was revoked.
    Revoked,
    /// The certificate has ended.
    Expired,
    /// The cluster was deleted while its session was up.
    ClusterDeleted,
    /// The agent claims another cluster than its certificate names.
    WrongCluster,
    /// The two ends have no version of the protocol in common.
    VersionUnsupported,
    /// The hello did not come in time.
    HelloTimeout,
    /// A message could not be read or came at the wrong moment.
    ProtocolError,
    /// The server is about to stop and lets running requests finish.
    Draining,
    /// Too many sessions or handshakes.
    Overloaded,
    /// Heartbeats went unanswered.
    HeartbeatMissed,
    /// A newer session of the same agent took over.
    Superseded,
    /// The session looked alive and carried no requests.
    NotCarrying,
    /// The process stops.
    Shutdown,
    /// A reason that this version does not know, as a short word.
    Unknown(String),
}

impl CloseReason {
    /// The kebab-case word that travels, and that logs and metrics show. For a metric label take `unknown` for
    /// [`CloseReason::Unknown`], whose word the peer chose.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::UnknownCertificate => "unknown-certificate",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::ClusterDeleted => "cluster-deleted",
            Self::WrongCluster => "wrong-cluster",
            Self::VersionUnsupported => "version-unsupported",
            Self::HelloTimeout => "hello-timeout",
            Self::ProtocolError => "protocol-error",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::HeartbeatMissed => "heartbeat-missed",
            Self::Superseded => "superseded",
            Self::NotCarrying => "not-carrying",
            Self::Shutdown => "shutdown",
            Self::Unknown(word) => word,
        }
    }

    /// Whether dialling again with the usual backoff may help. Otherwise somebody must act first, and the agent goes
    /// straight to its longest interval.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::UnknownCertificate
            | Self::Revoked
            | Self::Expired
            | Self::ClusterDeleted
            | Self::WrongCluster
            | Self::VersionUnsupported => false,
            Self::HelloTimeout
            | Self::ProtocolError
            | Self::Draining
            | Self::Overloaded
            | Self::HeartbeatMissed
            | Self::Superseded
            | Self::NotCarrying
            | Self::Shutdown
            | Self::Unknown(_) => true,
        }
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::UnknownCertificate
            | Self::Revoked
            | Self::Expired
            | Self::WrongCluster
            | Self::VersionUnsupported
            | Self::ProtocolError => Fault::Agent,
            Self::Overloaded => Fault::Server,
            Self::HelloTimeout | Self::HeartbeatMissed | Self::NotCarrying => Fault::Network,
            Self::ClusterDeleted | Self::Draining | Self::Superseded | Self::Shutdown | Self::Unknown(_) => {
                Fault::Nobody
            }
        }
    }

    const KNOWN: [Self; 14] = [
        Self::UnknownCertificate,
        Self::Revoked,
        Self::Expired,
        Self::ClusterDeleted,
        Self::WrongCluster,
        Self::VersionUnsupported,
        Self::HelloTimeout,
        Self::ProtocolError,
        Self::Draining,
        Self::Overloaded,
        Self::HeartbeatMissed,
        Self::Superseded,
        Self::NotCarrying,
        Self::Shutdown,
    ];
}

impl From<&str> for CloseReason {
    fn from(word: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .unwrap_or_else(|| Self::Unknown(cut(word, limits::WORD).to_owned()))
    }
}

impl From<String> for CloseReason {
    fn from(word: String) -> Self {
        word.as_str().into()
    }
}

impl From<CloseReason> for String {
    fn from(reason: CloseReason) -> Self {
        cut(reason.as_str(), limits::WORD).to_owned()
    }
}

impl fmt::Display for CloseReason {
    /// Escapes what a peer chose, so that it cannot break a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_str().escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back() {
        for reason in CloseReason::KNOWN {
            assert_eq!(CloseReason::from(reason.as_str()), reason);
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<CloseReason>(&json).unwrap(), reason);
        }
    }

    #[test]
    fn an_unknown_word_stays_short_and_cannot_break_a_log_line() {
        let reason = CloseReason::from("new\nreason");
        assert_eq!(reason.to_string(), "new\\nreason");
        assert!(reason.retryable());
        assert_eq!(CloseReason::from("é".repeat(100).as_str()).as_str().len(), limits::WORD);
    }
}

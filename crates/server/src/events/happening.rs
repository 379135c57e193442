//! What can happen to a cluster, and the words for it.

use std::{fmt, net::IpAddr, net::SocketAddr, time::Duration};

use moorline_api::EventType;
use moorline_model::{Dialect, Fingerprint, SessionId, Timestamp};

/// Bytes of a message: an agent's words are in some, and a cluster keeps several.
const MESSAGE: usize = 400;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// It was registered.
    Registered,
    /// Its agent got its first certificate: with its manifest, by a join token, by attestation.
    Enrolled {
        /// By what, for people.
        how: String,
        /// Which certificate.
        fingerprint: Fingerprint,
    },
    /// A session began.
    Connected {
        /// Which.
        session: SessionId,
        /// Where it comes from.
        remote: SocketAddr,
        /// What the agent says it is.
        agent_version: String,
        /// How many the cluster has now, this one included.
        sessions: usize,
    },
    /// A session ended.
    Disconnected {
        /// Which.
        session: SessionId,
        /// For people.
        why: String,
        /// How long it was there.
        lived: Duration,
        /// How many the cluster has left.
        left: usize,
    },
    /// A certificate that is, or was, the cluster's was refused.
    Refused {
        /// The word of the reason.
        reason: &'static str,
        /// Where it came from.
        remote: IpAddr,
        /// For people.
        why: String,
    },
    /// The agent cannot reach its kube-apiserver.
    UpstreamFailing {
        /// As it says.
        why: String,
    },
    /// The agent reaches its kube-apiserver, for the first time or again.
    UpstreamWell,
    /// A session that looks alive does not carry requests.
    NotCarrying {
        /// Which.
        session: SessionId,
        /// For people.
        why: String,
    },
    /// It carries them again.
    Carrying {
        /// Which.
        session: SessionId,
    },
    /// The agent got a new certificate.
    Renewed {
        /// Which.
        fingerprint: Fingerprint,
        /// Until when.
        not_after: Timestamp,
    },
    /// An agent of the dialect that is wanted carries requests, and those of the other are let in no more.
    Migrated {
        /// The dialect.
        to: Dialect,
        /// Certificates of the other.
        retired: usize,
    },
    /// The agent trusts the authorities of a rotation that goes on.
    AuthoritiesTaken,
    /// Its certificates were revoked.
    Revoked,
    /// It was deleted.
    Deleted,
}

impl Happening {
    /// Whether somebody should look at it.
    pub(crate) const fn kind(&self) -> EventType {
        match self {
            Self::Refused { .. }
            | Self::UpstreamFailing { .. }
            | Self::NotCarrying { .. }
            | Self::Revoked
            | Self::Disconnected { left: 0, .. } => EventType::Warning,
            Self::Registered
            | Self::Enrolled { .. }
            | Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::UpstreamWell
            | Self::Carrying { .. }
            | Self::Renewed { .. }
            | Self::Migrated { .. }
            | Self::AuthoritiesTaken
            | Self::Deleted => EventType::Normal,
        }
    }

    /// One word in camel case, of a fixed set.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Registered => "Registered",
            Self::Enrolled { .. } => "Enrolled",
            Self::Connected { .. } => "Connected",
            Self::Disconnected { .. } => "Disconnected",
            Self::Refused { .. } => "Refused",
            Self::UpstreamFailing { .. } => "KubeAPIServerUnreachable",
            Self::UpstreamWell => "KubeAPIServerReachable",
            Self::NotCarrying { .. } => "TunnelNotCarrying",
            Self::Carrying { .. } => "TunnelCarrying",
            Self::Renewed { .. } => "CertificateRenewed",
            Self::Migrated { .. } => "Migrated",
            Self::AuthoritiesTaken => "AuthoritiesTaken",
            Self::Revoked => "Revoked",
            Self::Deleted => "Deleted",
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered => f.write_str("the cluster was registered"),
            Self::Enrolled { how, fingerprint } => write!(f, "enrolled by {how}, certificate {}", Short(fingerprint)),
            Self::Connected { session, remote, agent_version, sessions } => {
                write!(f, "session {session} began, from {remote}, agent {agent_version}; sessions: {sessions}")
            }
            Self::Disconnected { session, why, lived, left } => {
                write!(f, "session {session} ended after {}: {why}; sessions: {left}", Span(*lived))
            }
            Self::Refused { reason, remote, why } => write!(f, "an agent from {remote} was refused ({reason}): {why}"),
            Self::UpstreamFailing { why } => write!(f, "the agent cannot reach its kube-apiserver: {why}"),
            Self::UpstreamWell => f.write_str("the agent reaches its kube-apiserver"),
            Self::NotCarrying { session, why } => write!(f, "session {session} does not carry requests: {why}"),
            Self::Carrying { session } => write!(f, "session {session} carries requests again"),
            Self::Renewed { fingerprint, not_after } => {
                write!(f, "new certificate {}, until {not_after}", Short(fingerprint))
            }
            Self::Migrated { to, retired } => {
                write!(
                    f,
                    "an agent that speaks {to} carries requests; certificates of the other kind retired: {retired}"
                )
            }
            Self::AuthoritiesTaken => f.write_str("the agent trusts the authorities of the rotation"),
            Self::Revoked => f.write_str("its certificates were revoked, and its sessions cut"),
            Self::Deleted => f.write_str("the cluster was deleted, and its sessions cut"),
        }
    }
}

/// One line of a bounded length: agents' words are in it, and terminals obey control characters.
pub(super) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE);
    let mut line: String = text.get(..end).unwrap_or_default().replace(char::is_control, " ");
    if end < text.len() {
        line.push('…');
    }
    line
}

/// The first digits of a fingerprint: as many as people compare.
struct Short<'a>(&'a Fingerprint);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.get(..16).unwrap_or(&text))
    }
}

/// A span in its largest unit and the next.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0, seconds) => write!(f, "{seconds}s"),
            (0, 0, minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
            (0, hours, minutes, _) => write!(f, "{hours}h{minutes}m"),
            (days, hours, ..) => write!(f, "{days}d{hours}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_words_stay_on_one_short_line() {
        let why = format!("\u{1b}[31mred\nline{}", "ü".repeat(MESSAGE));
        let text = bounded(&Happening::UpstreamFailing { why }.to_string());
        assert!(text.starts_with("the agent cannot reach its kube-apiserver:  [31mred line"), "{text}");
        assert!(text.len() <= MESSAGE + '…'.len_utf8() && text.ends_with('…'), "{text}");
        assert!(!text.chars().any(char::is_control));
    }

    #[test]
    fn spans_are_in_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_661, "1h1m"), (90_061, "1d1h")] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn only_the_loss_of_the_last_session_is_a_warning() {
        let lost = |left| Happening::Disconnected {
            session: SessionId::from_bytes([0; 16]),
            why: "x".to_owned(),
            lived: Duration::ZERO,
            left,
        };
        assert_eq!((lost(0).kind(), lost(1).kind()), (EventType::Warning, EventType::Normal));
    }
}

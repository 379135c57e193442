//! How this agent stands with its management cluster, in one word: the table from every typed error of a dial and every
//! end of a session to the reason that conditions, probes and metrics show.
//!
//! Told by `tunnel`, shown by `connection` in the condition `Available`, by `/readyz` and by the metrics; asked by
//! `doctor` for the same words.

use std::{fmt, io};

use moorline_mtls::{HandshakeError, Refusal};
use moorline_wire::CloseReason;

use crate::{
    socket::DialTcpError,
    tunnel::{DialError, EstablishError, HelloError, ProxyError},
};

/// Why the management cluster can be reached, or cannot: a word of Kubernetes' style, for programs and people alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    Connected,
    NameResolutionFailed,
    ConnectionRefused,
    ConnectionTimedOut,
    NetworkUnreachable,
    ConnectionFailed,
    ProxyUnreachable,
    ProxyRefused,
    ProxyAuthenticationRequired,
    ProxyFailed,
    TlsHandshakeFailed,
    UnknownAuthority,
    ServerNameMismatch,
    NoTunnelServer,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateUnknown,
    Revoked,
    ClusterDeleted,
    WrongCluster,
    VersionUnsupported,
    Overloaded,
    Draining,
    HeartbeatMissed,
    HelloTimedOut,
    ProtocolError,
    Superseded,
    SessionLost,
    RefusedByServer,
    InvalidConfiguration,
    NotConfigured,
    Stopped,
}

impl Reason {
    /// The word in conditions and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::NameResolutionFailed => "NameResolutionFailed",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::ConnectionTimedOut => "ConnectionTimedOut",
            Self::NetworkUnreachable => "NetworkUnreachable",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::ProxyUnreachable => "ProxyUnreachable",
            Self::ProxyRefused => "ProxyRefused",
            Self::ProxyAuthenticationRequired => "ProxyAuthenticationRequired",
            Self::ProxyFailed => "ProxyFailed",
            Self::TlsHandshakeFailed => "TLSHandshakeFailed",
            Self::UnknownAuthority => "UnknownAuthority",
            Self::ServerNameMismatch => "ServerNameMismatch",
            Self::NoTunnelServer => "NoTunnelServer",
            Self::CertificateExpired => "CertificateExpired",
            Self::CertificateNotYetValid => "CertificateNotYetValid",
            Self::CertificateUnknown => "CertificateUnknown",
            Self::Revoked => "Revoked",
            Self::ClusterDeleted => "ClusterDeleted",
            Self::WrongCluster => "WrongCluster",
            Self::VersionUnsupported => "VersionUnsupported",
            Self::Overloaded => "Overloaded",
            Self::Draining => "Draining",
            Self::HeartbeatMissed => "HeartbeatMissed",
            Self::HelloTimedOut => "HelloTimedOut",
            Self::ProtocolError => "ProtocolError",
            Self::Superseded => "Superseded",
            Self::SessionLost => "SessionLost",
            Self::RefusedByServer => "RefusedByServer",
            Self::InvalidConfiguration => "InvalidConfiguration",
            Self::NotConfigured => "NotConfigured",
            Self::Stopped => "Stopped",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&EstablishError> for Reason {
    fn from(error: &EstablishError) -> Self {
        match error {
            EstablishError::Dial(error) => error.into(),
            EstablishError::Refused(_, error) => error.into(),
            EstablishError::Open(_) => Self::SessionLost,
            EstablishError::Hello(_, error) => error.into(),
        }
    }
}

impl From<&DialError> for Reason {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Tcp(_, error) => error.into(),
            DialError::ProxyTcp(..) | DialError::ProxyTimeout(..) => Self::ProxyUnreachable,
            DialError::Proxy(_, _, ProxyError::Refused(status)) if status.as_u16() == 407 => {
                Self::ProxyAuthenticationRequired
            }
            DialError::Proxy(_, _, ProxyError::Refused(_)) => Self::ProxyRefused,
            DialError::ProxyTls(..) | DialError::Proxy(..) => Self::ProxyFailed,
            DialError::Tls(_, error) => error.into(),
        }
    }
}

impl From<&DialTcpError> for Reason {
    fn from(error: &DialTcpError) -> Self {
        let kinds = match error {
            DialTcpError::Resolve(..) | DialTcpError::ResolveTimeout(..) => return Self::NameResolutionFailed,
            DialTcpError::Connect(attempts) => attempts,
        };
        let any = |wanted: &[io::ErrorKind]| kinds.iter().any(|tried| wanted.contains(&tried.kind()));
        // The most telling of several addresses: somebody who refuses is there.
        if any(&[io::ErrorKind::ConnectionRefused]) {
            Self::ConnectionRefused
        } else if any(&[io::ErrorKind::NetworkUnreachable, io::ErrorKind::HostUnreachable]) {
            Self::NetworkUnreachable
        } else if error.timed_out() {
            Self::ConnectionTimedOut
        } else {
            Self::ConnectionFailed
        }
    }
}

impl From<&HandshakeError> for Reason {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what has no word of its own is a failed handshake")]
    fn from(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::UnknownAuthority => Self::UnknownAuthority,
            HandshakeError::WrongName { .. } => Self::ServerNameMismatch,
            HandshakeError::Time(moorline_pki::InvalidTime::Expired { .. }) => Self::CertificateExpired,
            HandshakeError::Time(moorline_pki::InvalidTime::NotYetValid { .. }) => Self::CertificateNotYetValid,
            HandshakeError::AlpnMismatch { .. } | HandshakeError::NotTls(_) => Self::NoTunnelServer,
            HandshakeError::Refused(refusal) => match refusal {
                Refusal::NoApplicationProtocol => Self::NoTunnelServer,
                Refusal::CertificateTime => Self::CertificateExpired,
                Refusal::Revoked => Self::Revoked,
                Refusal::CertificateRequired
                | Refusal::UnknownAuthority
                | Refusal::WrongPurpose
                | Refusal::BadCertificate
                | Refusal::AccessDenied => Self::CertificateUnknown,
                _other => Self::TlsHandshakeFailed,
            },
            _other => Self::TlsHandshakeFailed,
        }
    }
}

impl From<&HelloError> for Reason {
    fn from(error: &HelloError) -> Self {
        match error {
            HelloError::Refused(refused) => (&refused.reason).into(),
            HelloError::Timeout(_) => Self::HelloTimedOut,
            HelloError::Closed(_) => Self::SessionLost,
            HelloError::Unexpected(_) | HelloError::Decode(_) => Self::ProtocolError,
            HelloError::Version(_) => Self::VersionUnsupported,
        }
    }
}

impl From<&CloseReason> for Reason {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what a later server says is at least a refusal")]
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::UnknownCertificate => Self::CertificateUnknown,
            CloseReason::Revoked => Self::Revoked,
            CloseReason::Expired => Self::CertificateExpired,
            CloseReason::ClusterDeleted => Self::ClusterDeleted,
            CloseReason::WrongCluster => Self::WrongCluster,
            CloseReason::VersionUnsupported => Self::VersionUnsupported,
            CloseReason::HelloTimeout => Self::HelloTimedOut,
            CloseReason::ProtocolError => Self::ProtocolError,
            CloseReason::Draining | CloseReason::Shutdown => Self::Draining,
            CloseReason::Overloaded => Self::Overloaded,
            CloseReason::HeartbeatMissed => Self::HeartbeatMissed,
            CloseReason::Superseded => Self::Superseded,
            CloseReason::NotCarrying => Self::SessionLost,
            _word => Self::RefusedByServer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use http::StatusCode;
    use moorline_model::Timestamp;
    use moorline_pki::InvalidTime;
    use moorline_wire::Refused;

    use super::*;

    fn tcp(kinds: &[io::ErrorKind]) -> DialError {
        let address = "192.0.2.1:9449".parse().unwrap();
        let attempts = kinds.iter().map(|kind| crate::socket::Attempt::new(address, (*kind).into())).collect();
        DialError::Tcp("hub:9449".to_owned(), DialTcpError::Connect(attempts))
    }

    fn tls(error: HandshakeError) -> DialError {
        DialError::Tls("hub:9449".to_owned(), error)
    }

    fn proxy(error: ProxyError) -> DialError {
        DialError::Proxy("http://proxy:3128".to_owned(), "hub:9449".to_owned(), error)
    }

    #[test]
    fn each_failed_dial_has_its_word() {
        let at = Timestamp::from_unix_seconds;
        let refused = |code| proxy(ProxyError::Refused(StatusCode::from_u16(code).unwrap()));
        let resolve = DialTcpError::Resolve("hub".to_owned(), io::ErrorKind::NotFound.into());
        let expired = HandshakeError::Time(InvalidTime::Expired { not_after: at(1), now: at(2) });
        let early = HandshakeError::Time(InvalidTime::NotYetValid { not_before: at(2), now: at(1) });
        for (error, word) in [
            (DialError::Tcp("hub:9449".to_owned(), resolve), "NameResolutionFailed"),
            (tcp(&[io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused]), "ConnectionRefused"),
            (tcp(&[io::ErrorKind::TimedOut, io::ErrorKind::TimedOut]), "ConnectionTimedOut"),
            (tcp(&[io::ErrorKind::NetworkUnreachable]), "NetworkUnreachable"),
            (tcp(&[io::ErrorKind::PermissionDenied]), "ConnectionFailed"),
            (refused(407), "ProxyAuthenticationRequired"),
            (refused(403), "ProxyRefused"),
            (proxy(ProxyError::EarlyBytes(3)), "ProxyFailed"),
            (DialError::ProxyTimeout(String::new(), String::new(), Duration::ZERO), "ProxyUnreachable"),
            (tls(HandshakeError::UnknownAuthority), "UnknownAuthority"),
            (tls(expired), "CertificateExpired"),
            (tls(early), "CertificateNotYetValid"),
            (tls(HandshakeError::NotTls("HTTP")), "NoTunnelServer"),
            (tls(HandshakeError::Refused(Refusal::CertificateTime)), "CertificateExpired"),
            (tls(HandshakeError::Refused(Refusal::UnknownAuthority)), "CertificateUnknown"),
            (tls(HandshakeError::Refused(Refusal::Revoked)), "Revoked"),
            (tls(HandshakeError::Closed), "TLSHandshakeFailed"),
        ] {
            assert_eq!(Reason::from(&error).as_str(), word, "{error:?}");
        }
    }

    #[test]
    fn each_refusal_of_the_server_has_its_word() {
        let mut words = BTreeSet::new();
        for reason in ["unknown-certificate", "revoked", "expired", "cluster-deleted", "wrong-cluster", "overloaded"] {
            let refused = Refused { reason: reason.into(), message: String::new(), reconnect_after_ms: None };
            words.insert(Reason::from(&HelloError::Refused(refused)).as_str());
        }
        let expected =
            ["CertificateExpired", "CertificateUnknown", "ClusterDeleted", "Overloaded", "Revoked", "WrongCluster"];
        assert_eq!(words, BTreeSet::from(expected));
        assert_eq!(Reason::from(&CloseReason::from("from-the-future")), Reason::RefusedByServer);
    }
}

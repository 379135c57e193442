//! Why a handshake failed, in words that name the cause and who has to mend it.

use std::{io, time::Duration};

use moorline_model::{Fingerprint, Timestamp};
use moorline_pki::InvalidTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};
use rustls_pki_types::UnixTime;
use thiserror::Error;

use crate::{held_key::Unfit, pinned::NoneIsPinned};

/// Who has to do something about a failed handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side: its certificate, its configuration, or it speaks something else.
    Peer,
    /// This side, as the other one sees it: our certificate, our configuration.
    Ours,
    /// The way between: nobody answers, the connection is cut.
    Network,
}

/// Why a handshake failed, seen from one side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not done in time.
    #[error("the TLS handshake was not done within {0:?}")]
    Timeout(Duration),
    /// A client certificate is required and the peer has none.
    #[error("the peer presented no client certificate")]
    NoClientCertificate,
    /// The peer's certificate is not in its time.
    #[error("the peer's certificate is {0}")]
    Time(InvalidTime),
    /// The peer's certificate chains to none of our roots.
    #[error("the peer's certificate was issued by an authority that is not trusted here")]
    UnknownAuthority,
    /// The peer shows no authority with a key that was pinned.
    #[error(
        "the server shows no authority with the pinned key: somebody is in between, or this is another server, or its authority was replaced since the pin was given out"
    )]
    WrongPin,
    /// The peer signs with another key than that of the certificate it shows: it is somebody else's.
    #[error(
        "the peer shows a certificate and does not hold its private key: it is somebody else's certificate, or the peer's certificate and key files do not belong together"
    )]
    WrongKey,
    /// The peer shows another certificate than the one it is known by.
    #[error(
        "the peer shows another certificate (SHA-256 {presented}) than the one that is expected of it ({expected}): it must use one and the same certificate everywhere; restart it if its certificate was replaced"
    )]
    WrongCertificate {
        /// The SHA-256 of what is expected.
        expected: Fingerprint,
        /// The SHA-256 of what is shown.
        presented: Fingerprint,
    },
    /// The peer's certificate is for other names than the one we dialled.
    #[error("the peer's certificate is not for the name {expected:?}; it is for: {presented}")]
    WrongName {
        /// The name that was asked for.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// The peer's certificate is made for another purpose (a server's presented by a client, most often).
    #[error(
        "the peer's certificate is not made for this purpose (client certificates need the usage clientAuth, server certificates serverAuth)"
    )]
    WrongPurpose,
    /// Anything else about the peer's certificate.
    #[error("the peer's certificate is not acceptable: {0}")]
    Certificate(String),
    /// The two sides have no application protocol in common, so one of them is not what the other takes it for.
    #[error(
        "the peer does not speak {wanted:?} (TLS ALPN): is something in between ending TLS, or is this the wrong port?"
    )]
    AlpnMismatch {
        /// What this side insists on.
        wanted: String,
    },
    /// The two sides have no TLS version or cipher in common.
    #[error("the peer has no TLS version or cipher suite in common with us: {0}")]
    Incompatible(String),
    /// The peer does not speak TLS at all.
    #[error("the peer does not speak TLS: it sent {0}")]
    NotTls(&'static str),
    /// The peer refused us and said why.
    #[error("the peer refused the connection: {0}")]
    Refused(Refusal),
    /// The peer hung up before the handshake was done.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The peer hung up without sending a single byte, as port scanners and TCP health checks do.
    #[error("the peer closed the connection without sending anything")]
    ClosedUnused,
    /// The peer broke the TLS protocol.
    #[error("the peer broke the TLS protocol: {0}")]
    Protocol(String),
    /// The connection below failed.
    #[error("the connection failed during the TLS handshake: {message}")]
    Io {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// Its text.
        message: String,
    },
}

/// What the peer objects to, from the alert it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It wants a client certificate.
    #[error("it requires a client certificate")]
    CertificateRequired,
    /// Ours is not in its time, by its clock.
    #[error("our certificate has expired or is not valid yet by its clock")]
    CertificateTime,
    /// It does not trust who issued ours.
    #[error("our certificate was issued by an authority that it does not trust")]
    UnknownAuthority,
    /// Ours was revoked.
    #[error("our certificate was revoked")]
    Revoked,
    /// Ours is made for another purpose.
    #[error("our certificate is not made for this purpose")]
    WrongPurpose,
    /// Anything else about ours; also what a client sends when the server's name is wrong.
    #[error("it does not accept our certificate (wrong name, or damaged)")]
    BadCertificate,
    /// It speaks another application protocol.
    #[error("it does not speak our application protocol (TLS ALPN): is this the right port?")]
    NoApplicationProtocol,
    /// It speaks other versions of TLS, or other ciphers.
    #[error("it has no TLS version or cipher suite in common with us")]
    Incompatible,
    /// It serves no host of the name we asked for.
    #[error("it serves no host of that name")]
    UnknownName,
    /// It does not want us.
    #[error("access denied")]
    AccessDenied,
    /// Any other alert, by its number in RFC 8446.
    #[error("TLS alert {0}")]
    Other(u8),
}

impl HandshakeError {
    /// Who has to do something about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoClientCertificate
            | Self::Time(_)
            | Self::UnknownAuthority
            | Self::WrongPin
            | Self::WrongKey
            | Self::WrongCertificate { .. }
            | Self::WrongName { .. }
            | Self::WrongPurpose
            | Self::Certificate(_)
            | Self::AlpnMismatch { .. }
            | Self::Incompatible(_)
            | Self::NotTls(_)
            | Self::Protocol(_) => Fault::Peer,
            Self::Refused(_) => Fault::Ours,
            Self::Timeout(_) | Self::Closed | Self::ClosedUnused | Self::Io { .. } => Fault::Network,
        }
    }

    /// The cause as one word of a small fixed set, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::NoClientCertificate => "no-client-certificate",
            Self::Time(InvalidTime::Expired { .. }) => "expired",
            Self::Time(InvalidTime::NotYetValid { .. }) => "not-yet-valid",
            Self::UnknownAuthority => "unknown-authority",
            Self::WrongPin => "wrong-pin",
            Self::WrongKey => "wrong-key",
            Self::WrongCertificate { .. } => "wrong-certificate",
            Self::WrongName { .. } => "wrong-name",
            Self::WrongPurpose => "wrong-purpose",
            Self::Certificate(_) => "bad-certificate",
            Self::AlpnMismatch { .. } => "alpn-mismatch",
            Self::Incompatible(_) => "incompatible",
            Self::NotTls(_) => "not-tls",
            Self::Refused(_) => "refused-by-peer",
            Self::Closed => "closed",
            Self::ClosedUnused => "closed-unused",
            Self::Protocol(_) => "protocol",
            Self::Io { .. } => "io",
        }
    }

    /// The same where no chain is verified: there a bad signature is the handshake's own.
    pub(crate) fn without_chain(self) -> Self {
        if self == Self::UnknownAuthority { Self::WrongKey } else { self }
    }

    /// Whether trying again may help without anybody mending anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.fault() == Fault::Network
    }
}

/// What an error on an established stream says about the handshake, if it is about that.
///
/// In TLS 1.3 a client is done before the server has looked at its certificate: a refusal arrives with the client's
/// first read. Ask this for the reason before reporting a bare I/O error.
#[must_use]
pub fn explain_io(error: &io::Error) -> Option<HandshakeError> {
    tls_cause(error).map(|cause| from_tls(cause, &[]))
}

/// The failure of a handshake over the given connection state.
pub(crate) fn classify(
    error: &io::Error,
    not_tls: Option<&'static str>,
    first: &[u8],
    wanted: &[&[u8]],
) -> HandshakeError {
    if let Some(what) = not_tls {
        return HandshakeError::NotTls(what);
    }
    if let Some(cause) = tls_cause(error) {
        return from_tls(cause, wanted);
    }
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        return if first.is_empty() { HandshakeError::ClosedUnused } else { HandshakeError::Closed };
    }
    HandshakeError::Io { kind, message: error.to_string() }
}

/// A list of application protocols for people.
pub(crate) fn protocols(alpn: &[&[u8]]) -> String {
    let names: Vec<_> = alpn.iter().map(|name| String::from_utf8_lossy(name)).collect();
    names.join(", ")
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are non-exhaustive; the rest is told in its words"
)]
fn from_tls(error: &rustls::Error, wanted: &[&[u8]]) -> HandshakeError {
    match error {
        rustls::Error::NoCertificatesPresented => HandshakeError::NoClientCertificate,
        rustls::Error::InvalidCertificate(reason) => from_certificate(reason),
        rustls::Error::AlertReceived(alert) => HandshakeError::Refused(refusal(*alert)),
        rustls::Error::NoApplicationProtocol => HandshakeError::AlpnMismatch { wanted: protocols(wanted) },
        rustls::Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon) => {
            HandshakeError::Certificate("signed in a way that is not accepted here".to_owned())
        }
        rustls::Error::PeerIncompatible(reason) => HandshakeError::Incompatible(format!("{reason:?}")),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => HandshakeError::NotTls("something else"),
        other => HandshakeError::Protocol(other.to_string()),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are non-exhaustive; the rest is told in its words"
)]
fn from_certificate(error: &CertificateError) -> HandshakeError {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            HandshakeError::Time(InvalidTime::Expired { not_after: moment(*not_after), now: moment(*time) })
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            HandshakeError::Time(InvalidTime::NotYetValid { not_before: moment(*not_before), now: moment(*time) })
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => HandshakeError::UnknownAuthority,
        CertificateError::NotValidForNameContext { expected, presented } => HandshakeError::WrongName {
            expected: expected.to_str().into_owned(),
            presented: if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") },
        },
        CertificateError::Other(other) if other.0.is::<NoneIsPinned>() => HandshakeError::WrongPin,
        CertificateError::Other(other)
            if matches!(other.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion)) =>
        {
            HandshakeError::Certificate(
                "it is of X.509 version 1 or 2, and version 3 is needed here; use the one that this cluster was given"
                    .to_owned(),
            )
        }
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(Unfit::OtherLeaf { expected, presented }) => {
                HandshakeError::WrongCertificate { expected: *expected, presented: *presented }
            }
            Some(unfit) => HandshakeError::Certificate(unfit.to_string()),
            None => HandshakeError::Certificate(error.to_string()),
        },
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            HandshakeError::WrongPurpose
        }
        other => HandshakeError::Certificate(other.to_string()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "alerts are an open set of numbers; the rest is told by number")]
fn refusal(alert: AlertDescription) -> Refusal {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Refusal::CertificateRequired,
        AlertDescription::CertificateExpired => Refusal::CertificateTime,
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Refusal::UnknownAuthority,
        AlertDescription::CertificateRevoked => Refusal::Revoked,
        AlertDescription::UnsupportedCertificate => Refusal::WrongPurpose,
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => Refusal::BadCertificate,
        AlertDescription::NoApplicationProtocol => Refusal::NoApplicationProtocol,
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => Refusal::Incompatible,
        AlertDescription::UnrecognisedName => Refusal::UnknownName,
        AlertDescription::AccessDenied => Refusal::AccessDenied,
        other => Refusal::Other(u8::from(other)),
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

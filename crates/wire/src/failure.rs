//! Why the agent, and not the kube-apiserver, answered a request. Travels as a response header, as a word and never as
//! prose: the server alone decides what the user reads.

use http::{HeaderMap, HeaderValue};
use moorline_model::Reason;

use crate::{Fault, headers};

/// Why the agent answered a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The kube-apiserver's address refused the connection, or has no route or name.
    UpstreamRefused,
    /// The kube-apiserver did not answer in time.
    UpstreamTimeout,
    /// The kube-apiserver's certificate was not accepted, or it did not accept ours.
    UpstreamTls,
    /// The connection to the kube-apiserver broke before the head of a response.
    UpstreamBroken,
    /// The kube-apiserver did not accept the agent's own credential.
    UpstreamCredential,
    /// The request carried no identity, or one that could not be read.
    IdentityMissing,
    /// The agent's own configuration does not let this identity through.
    IdentityDenied,
    /// The request could not be understood.
    BadRequest,
    /// The head of the request is larger than the agent takes.
    HeadTooLarge,
    /// The agent has as many requests as it may hold.
    Overloaded,
    /// The agent is about to stop.
    ShuttingDown,
    /// A word that this version does not know.
    Unknown,
}

impl Failure {
    /// The word in the header, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamRefused => "upstream-refused",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpstreamTls => "upstream-tls",
            Self::UpstreamBroken => "upstream-broken",
            Self::UpstreamCredential => "upstream-credential",
            Self::IdentityMissing => "identity-missing",
            Self::IdentityDenied => "identity-denied",
            Self::BadRequest => "bad-request",
            Self::HeadTooLarge => "head-too-large",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting-down",
            Self::Unknown => "unknown",
        }
    }

    /// The value of the [`headers::FAILURE`] header.
    #[must_use]
    pub const fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }

    /// What a response says: none where the kube-apiserver itself answered.
    #[must_use]
    pub fn of_response(response: &HeaderMap) -> Option<Self> {
        let word = response.get(headers::FAILURE)?.as_bytes();
        Some(Self::KNOWN.into_iter().find(|failure| failure.as_str().as_bytes() == word).unwrap_or(Self::Unknown))
    }

    /// The reason, and by [`Reason::code`] the HTTP status, that goes with it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::UpstreamRefused
            | Self::UpstreamTls
            | Self::UpstreamBroken
            | Self::UpstreamCredential
            | Self::IdentityMissing
            | Self::Unknown => Reason::BadGateway,
            Self::UpstreamTimeout => Reason::Timeout,
            Self::IdentityDenied => Reason::Forbidden,
            Self::BadRequest => Reason::BadRequest,
            Self::HeadTooLarge => Reason::RequestHeaderFieldsTooLarge,
            Self::Overloaded | Self::ShuttingDown => Reason::ServiceUnavailable,
        }
    }

    /// Whether the kube-apiserver certainly saw nothing of the request, so that it may be sent again by another
    /// session, provided that nothing of its body is gone.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::UpstreamRefused | Self::UpstreamTls | Self::Overloaded | Self::ShuttingDown)
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::UpstreamRefused | Self::UpstreamTimeout | Self::UpstreamBroken => Fault::Upstream,
            Self::UpstreamTls | Self::UpstreamCredential | Self::Overloaded => Fault::Agent,
            Self::IdentityMissing => Fault::Server,
            Self::IdentityDenied | Self::BadRequest | Self::HeadTooLarge => Fault::User,
            Self::ShuttingDown | Self::Unknown => Fault::Nobody,
        }
    }

    const KNOWN: [Self; 11] = [
        Self::UpstreamRefused,
        Self::UpstreamTimeout,
        Self::UpstreamTls,
        Self::UpstreamBroken,
        Self::UpstreamCredential,
        Self::IdentityMissing,
        Self::IdentityDenied,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::Overloaded,
        Self::ShuttingDown,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_comes_back_from_its_header() {
        for failure in Failure::KNOWN {
            let mut response = HeaderMap::new();
            response.insert(headers::FAILURE, failure.header_value());
            assert_eq!(Failure::of_response(&response), Some(failure));
            assert!(failure.reason().code() >= 400);
        }
        assert_eq!(Failure::of_response(&HeaderMap::new()), None);
        let later = HeaderMap::from_iter([(headers::FAILURE, HeaderValue::from_static("on-fire"))]);
        assert_eq!(Failure::of_response(&later), Some(Failure::Unknown));
    }
}

//! Why a program does not reach a service, and what it is told. A cluster learns nothing of services that are not for
//! it: to it they are as if they were not.

use moorline_model::{Reason, Status};
use moorline_mtls::server::hello::{self, HelloError};
use moorline_wire::services::ServiceName;
use thiserror::Error;

use super::dial::DialError;
use crate::audit::Unrecorded;

/// When to try again where there was no room: connections come and go by the second.
const CROWDED: u32 = 1;

/// A stream, or a request on it, that goes nowhere.
#[derive(Debug, Error)]
pub(super) enum Refused {
    /// No service is called so.
    #[error("no service is called {0:?}")]
    Unknown(String),
    /// The program names no server.
    #[error("the program names no server in TLS")]
    NoName,
    /// What the program says first says nothing.
    #[error("{0}")]
    Hello(HelloError),
    /// There is such a service, and it is not for this cluster.
    #[error("the service {0} is not for this cluster")]
    Forbidden(ServiceName),
    /// It is asked for in a way that leads to none.
    #[error("{0}")]
    Asked(&'static str),
    /// It asks to switch to something that is not HTTP.
    #[error("it asks to switch to another protocol")]
    Upgrade,
    /// There are as many already as there may be.
    #[error("there are as many {0} as there may be")]
    Busy(&'static str),
    /// Nobody can write it down.
    #[error("it cannot be written down")]
    Unrecorded(Unrecorded),
    /// This server is about to stop.
    #[error("this server is about to stop")]
    Draining,
    /// TLS with the program failed.
    #[error("no TLS with the program: {0}")]
    Handshake(moorline_mtls::HandshakeError),
    /// The service cannot be reached.
    #[error("{0}")]
    Dial(DialError),
    /// The service was reached, and did not answer.
    #[error("the service ended the connection without an answer: {0}")]
    Broken(hyper::Error),
    /// The service answered what it was not asked.
    #[error("the service switched protocols without being asked to")]
    Switched,
    /// The service was reached, and does not answer.
    #[error("the service does not answer")]
    Silent,
}

impl Refused {
    /// A word for metrics and events.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown-name",
            Self::NoName => "no-name",
            Self::Hello(HelloError::NotTls) => "not-tls",
            Self::Hello(HelloError::Timeout) => "hello-timeout",
            Self::Hello(HelloError::Ended) => "hello-ended",
            Self::Hello(HelloError::Malformed | HelloError::TooLarge) => "bad-hello",
            Self::Forbidden(_) => "forbidden",
            Self::Asked(_) => "bad-request",
            Self::Upgrade => "upgrade",
            Self::Busy(_) => "busy",
            Self::Unrecorded(_) => "unrecorded",
            Self::Draining => "draining",
            Self::Handshake(_) => "handshake",
            Self::Dial(_) | Self::Broken(_) | Self::Switched => "upstream",
            Self::Silent => "upstream-timeout",
        }
    }

    /// What a program, or the agent that asks for it, is told: nothing of addresses, nor of what is for others.
    pub(super) fn status(&self) -> Status {
        let (reason, message) = match self {
            Self::Unknown(_) | Self::NoName | Self::Forbidden(_) => {
                (Reason::NotFound, "there is no such service for this cluster")
            }
            Self::Hello(_) | Self::Handshake(_) => (Reason::BadRequest, "the service takes TLS only"),
            Self::Asked(what) => (Reason::BadRequest, *what),
            Self::Upgrade => {
                let text = "this service switches to no other protocol, WebSocket included: its operator has to offer it in \
                            mode PassThrough for that";
                return Status::failure(501, Reason::MethodNotAllowed, text);
            }
            Self::Busy(_) => {
                let text = "there are as many connections to services as there may be";
                return Status::failure(429, Reason::TooManyRequests, text).retry_after(CROWDED);
            }
            Self::Unrecorded(_) => {
                (Reason::ServiceUnavailable, "it cannot be written down, and nothing may happen that is not")
            }
            Self::Draining => {
                let text = "this server is about to stop";
                return Status::failure(503, Reason::ServiceUnavailable, text).retry_after(CROWDED);
            }
            Self::Dial(error) if error.timed_out() => (Reason::Timeout, "the service could not be reached in time"),
            Self::Dial(_) => (Reason::BadGateway, "the service cannot be reached"),
            Self::Broken(_) | Self::Switched => (Reason::BadGateway, "the service did not answer properly"),
            Self::Silent => (Reason::Timeout, "the service did not answer in time"),
        };
        Status::failure(reason.code(), reason, message)
    }

    /// What a program is told that speaks TLS with somebody else; none where it does not speak TLS.
    pub(super) const fn alert(&self) -> Option<[u8; 7]> {
        match self {
            Self::Unknown(_) | Self::NoName | Self::Forbidden(_) => Some(hello::NO_SUCH_SERVER),
            Self::Hello(_) | Self::Handshake(_) => None,
            Self::Asked(_)
            | Self::Upgrade
            | Self::Busy(_)
            | Self::Unrecorded(_)
            | Self::Draining
            | Self::Dial(_)
            | Self::Broken(_)
            | Self::Switched
            | Self::Silent => Some(hello::UNREACHABLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_others_is_as_if_it_were_not() {
        let (unknown, others) = (Refused::Unknown("a".to_owned()), Refused::Forbidden("logs".parse().unwrap()));
        assert_eq!(unknown.status(), others.status());
        assert_eq!(unknown.alert(), others.alert());
        assert_ne!(unknown.label(), others.label(), "the operator is told");
    }
}

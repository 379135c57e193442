//! How a program inside a managed cluster reaches a service of the management cluster through our own agent.
//!
//! On a stream of its own the agent sends an HTTP/1.1 `POST` of [`path`] with `Connection: Upgrade` and
//! `Upgrade: ` [`PROTOCOL`], and no body. `101` says that the stream now leads to the service: raw bytes follow both ways,
//! and the end of either direction is passed on by itself. Anything else is a refusal with a Kubernetes `Status` for its
//! body: 404 where there is no such service for this cluster, 429 where there is no room, 502 and 504 where the service
//! cannot be reached or not in time, 503 where the server is about to stop or may not let anything unrecorded happen.
//!
//! The server decides everything; the agent knows names and nothing of what is behind them.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// What is in front of the name.
pub const PATH_PREFIX: &str = "/v1/services/";

/// What the stream is switched to.
pub const PROTOCOL: &str = "moorline-service/1";

/// Bytes of a name: those of a DNS label.
pub const MAX_NAME: usize = 63;

/// The name of a management service: a DNS-1123 label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Box<str>);

/// A text that is no name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit")]
pub struct InvalidServiceName;

impl ServiceName {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, InvalidServiceName> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = !text.is_empty()
            && text.len() <= MAX_NAME
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_label { Ok(Self(text.into())) } else { Err(InvalidServiceName) }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where the request for this service goes.
#[must_use]
pub fn path(name: &ServiceName) -> String {
    format!("{PATH_PREFIX}{name}")
}

/// The service that a path asks for; none where it asks for none, or not for one that could exist.
#[must_use]
pub fn name_of(path: &str) -> Option<ServiceName> {
    path.strip_prefix(PATH_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_come_back_from_their_path() {
        for good in ["a", "linseed", "log-store-1", "0", &"a".repeat(MAX_NAME)] {
            let name: ServiceName = good.parse().unwrap();
            assert_eq!((name.as_str(), name_of(&path(&name))), (good, Some(name.clone())));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a b", "ä", "a\0", "a%62", &"a".repeat(MAX_NAME + 1)] {
            assert_eq!(bad.parse::<ServiceName>(), Err(InvalidServiceName), "{bad:?}");
            assert_eq!(name_of(&format!("{PATH_PREFIX}{bad}")), None, "{bad:?}");
        }
        for path in ["/v1/services", "/v1/renew", "/v1/services/a/", "v1/services/a", "/v1/services//a"] {
            assert_eq!(name_of(path), None, "{path}");
        }
    }
}

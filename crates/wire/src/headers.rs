//! The headers that we add inside the tunnel. `impersonation::strip` removes all of them from what a user sends, so
//! that only the server can have written them.

use http::HeaderName;

/// What all our header names begin with.
pub const PREFIX: &str = "x-moorline-";

/// On a request: who it is from, as [`crate::write_identity`] writes it. Exactly one.
pub const IDENTITY: HeaderName = HeaderName::from_static("x-moorline-identity");

/// On a request: the id under which both ends log it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-moorline-request-id");

/// On a response: it comes from the agent, for this reason, and not from the kube-apiserver (see [`crate::Failure`]).
/// The agent removes it from what the kube-apiserver sends.
pub const FAILURE: HeaderName = HeaderName::from_static("x-moorline-failure");

/// On a response with [`FAILURE`]: which rule the user met (see [`crate::Denial`]).
pub const DENIAL: HeaderName = HeaderName::from_static("x-moorline-denial");

/// Whether a header is one of ours, known to this version or not.
#[must_use]
pub fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_share_the_prefix() {
        for name in [IDENTITY, REQUEST_ID, FAILURE, DENIAL] {
            assert!(is_ours(&name), "{name}");
        }
        assert!(!is_ours(&http::header::COOKIE));
    }
}

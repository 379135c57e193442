//! How an agent without a certificate gets its first one: what a join token says, and the one exchange over TLS with
//! [`JOIN_ALPN`], an HTTP/1.1 `POST` of [`JOIN_PATH`].
//!
//! The bearer of a token verifies the server by the token's pin before a byte of the secret is sent; the server keeps
//! the secret's hash and no more. Used by the agent's `join` and by the server's `enrolment`.

mod exchange;
mod invitation;
mod secret;

pub use exchange::{JoinAnswer, JoinProof, JoinRefusal, JoinRefused, JoinRequest};
pub use invitation::{Invitation, InvitationError};
pub use secret::{InvalidSecret, JoinSecret};

/// The name of the protocol in the TLS handshake. Whoever offers it has no certificate yet, and gets no tunnel.
pub const JOIN_ALPN: &[u8] = b"moorline-join/1";

/// Where to ask.
pub const JOIN_PATH: &str = "/v1/join";

/// Bytes of the body of a request: a certificate request has some 400, a service-account token rarely 2,000.
pub const MAX_JOIN_REQUEST: usize = 24 * 1024;

/// Bytes of the body of an answer: a certificate, and the authorities of an overlap.
pub const MAX_JOIN_ANSWER: usize = 64 * 1024;

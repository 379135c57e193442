//! Bounds that both ends hold each other to, each with its reason.

use moorline_model::identity_limits;

/// Bytes of JSON in one control message: a hello has a few hundred, so this leaves room for later fields and still
/// bounds what an unknown peer can make us hold.
pub const MESSAGE: usize = 64 * 1024;

/// Bytes a [`crate::Decoder`] holds: a few messages, in case several arrive in one read. Whoever pushes more without
/// taking messages out has a fault.
pub const DECODER_BACKLOG: usize = 4 * MESSAGE;

/// Bytes of a text inside a control message; longer ones are cut when written, so that a message always fits.
pub const TEXT: usize = 1024;

/// Bytes of a short word inside a control message: a capability, a reason, the type of a message.
pub const WORD: usize = 64;

/// Bytes of the authorities that a server tells its agents to believe: a dozen certificates, and within a message
/// whatever JSON makes of them.
pub const ROOTS: usize = 10 * 1024;

/// Authorities of which an agent says that it believes them.
pub const AUTHORITIES: usize = 16;

/// Bytes of the body of a request that an agent makes over a stream of its own, and of the answer.
pub const AGENT_BODY: usize = 64 * 1024;

/// Capabilities in a hello.
pub const CAPABILITIES: usize = 64;

/// Bytes of the identity header: the largest identity, every byte of it escaped in JSON, four base64 characters for
/// three bytes.
pub const IDENTITY_HEADER: usize = (2 * identity_limits::TOTAL + 16 * identity_limits::PARTS) / 3 * 4;

/// Bytes of a request head inside the tunnel: the identity header and the user's own head, for which the gateway's
/// own, smaller limit is meant to be the one that is hit.
pub const REQUEST_HEAD: usize = IDENTITY_HEADER + 1024 * 1024;

/// Heartbeats that may go unanswered before the session is taken for dead.
pub const MISSED_HEARTBEATS: u32 = 3;

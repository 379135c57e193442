//! What both ends agree on inside the tunnel: messages of the control stream, the headers that we add to a request,
//! reasons for ending, and limits.
//!
//! A pure codec: bytes and headers in, values out. It opens nothing, waits for nothing and never panics on what the
//! other side sent. The agent and the server both use it and nothing else does.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::string_slice
    )
)]

pub mod capability;
mod close;
mod codec;
mod denial;
mod failure;
pub mod headers;
mod identity;
mod join;
pub mod limits;
mod message;
mod patience;
pub mod probe;
mod renewal;
pub mod services;
mod text;
mod version;

pub use close::{CloseReason, Fault};
pub use codec::{DecodeError, Decoder, encode};
pub use denial::{Denial, Kind, Verdict};
pub use failure::Failure;
pub use identity::{IdentityError, read_identity, write_identity};
pub use join::{
    InvalidSecret, Invitation, InvitationError, JOIN_ALPN, JOIN_PATH, JoinAnswer, JoinProof, JoinRefusal, JoinRefused,
    JoinRequest, JoinSecret, MAX_JOIN_ANSWER, MAX_JOIN_REQUEST,
};
pub use message::{
    AgentStatus, GoAway, Heartbeat, HeartbeatAck, Hello, Message, ProtocolError, Refused, RenewOrder, RootsOrder,
    RootsTaken, SessionLimits, Welcome,
};
pub use patience::may_take_long;
pub use renewal::{RENEW_PATH, RenewAnswer, RenewRequest};
pub use version::{ALPN, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, negotiate, too_far_apart};

//! Handshakes between our own two sides, and with peers that are neither: each refusal, as both sides tell it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod brought;
mod gateway;
mod guardian;
mod inner;
mod join;
mod minted;
mod strangers;
mod tunnel;

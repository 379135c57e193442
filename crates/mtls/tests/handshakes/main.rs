//! Handshakes between our own two sides, and with peers that are neither: each refusal, as both sides tell it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod gateway;
mod join;
mod minted;
mod strangers;
mod tunnel;

//! Logging in, against an issuer that answers by script; `tests/kubernetes` has a real one.
#![expect(clippy::unwrap_used, reason = "tests")]

mod issuer;
mod scripted;

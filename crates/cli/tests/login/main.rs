//! Logging in: `scripted` against an issuer that answers by script, `dex` against a real one with real kubectl.
#![expect(clippy::unwrap_used, reason = "tests")]

mod dex;
mod issuer;
mod scripted;

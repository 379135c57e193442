//! Real processes of the built program: stopped, killed, terminated, starved, cut off.
//!
//! Tests that cover a fault of `tests/FAULTS.md` begin with its number.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod audit;
mod descriptors;
mod ends;
mod house;
mod image;
mod joins;
mod kills;
mod leaks;
mod namespace;
mod network;
mod program;
mod signals;
mod soak;
mod ways;

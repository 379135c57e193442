//! Test support: links with latency and cuts, ports that refuse, captured logs, scripted API servers, whole houses, real control planes and
//! Guardians.
//!
//! Used by the test rings and the benches only; no product crate depends on it except for its own tests.

pub mod client;
mod eventually;
pub mod go_program;
pub mod guardian;
pub mod house;
pub mod kubernetes;
pub mod link;
pub mod logs;
mod refusing;
pub mod reviewer;
pub mod upstream;

pub use eventually::{Late, eventually};
pub use refusing::Refusing;

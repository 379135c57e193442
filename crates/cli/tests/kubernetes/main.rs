//! The built programs, real control planes and real kubectl: logging in with a real issuer, and clusters that come and go
//! as their operators make them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod enrolment;
mod fleet;
mod guide;
mod login;
#[path = "../processes/program.rs"]
#[expect(dead_code, reason = "each ring uses its part")]
mod program;

use std::time::Duration;

/// For anything here, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);

//! Tests of the whole crate over in-memory links. What needs only one module is tested beside it.
//!
//! A test whose name begins with `f` and a number shows that the fault of that number in the project's
//! list of faults is survived, as far as this crate can be hit by it.
//!
//! Long runs are on the virtual clock. `MOORLINE_SIM_HOURS` sets how many hours of it each simulation
//! takes in total, `MOORLINE_SIM_SEED` replays one seed.

mod basics;
mod death;
mod ends;
mod exchange;
mod garbage;
mod growth;
mod limits;
mod link;
mod memory;
mod pinger;
mod protocol;
mod raw;
mod saturation;

use std::future::Future;

#[expect(clippy::disallowed_methods, reason = "how long to test is the tester's choice")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Hours of virtual time for one simulation.
fn sim_hours(usual: f64) -> f64 {
    setting("MOORLINE_SIM_HOURS").map_or(usual, |hours| hours.parse().unwrap())
}

/// The one seed to run, if one is to be replayed.
fn sim_seed() -> Option<u64> {
    setting("MOORLINE_SIM_SEED").map(|seed| seed.parse().unwrap())
}

/// Runs on one thread and the virtual clock.
fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

//! The house ring: server, agents and scripted kube-apiservers in one process, over real sockets.
//!
//! Tests that cover a fault of `tests/FAULTS.md` begin with its number.
#![expect(clippy::unwrap_used, reason = "tests")]

mod audit;
mod authority;
mod faults;
mod fleet;
mod isolation;
mod joining;
mod limits;
mod losses;
mod management;
mod notices;
mod outages;
mod people;
mod refusals;
mod reloads;
mod renewal;
mod reviews;
mod services;
mod sessions;
mod smoke;
mod spoofing;
mod streaming;
mod survival;
mod upgrades;

//! The gateway between a user's HTTP client and a scripted agent: real HTTP, real multiplexer, links in memory.

mod access;
mod agent;
mod audit;
mod door;
mod drain;
mod guardian;
pub(crate) mod house;
mod loss;
mod pool;
mod spoof;
pub(crate) mod state;
mod upgrade;
mod user;
mod vigil;

pub(super) use state::gateway;

//! The tunnel server: users in front, agents behind.
//!
//! [`App`] is the whole server in one value: built from a [`Config`], run until told to stop. The program of this crate
//! and the `moorline` command line (quickstart, tests) use it and nothing below it.

mod app;
mod audit;
pub mod bootstrap;
mod clock;
mod clusters;
pub mod config;
mod control;
mod enrolment;
mod events;
mod front;
mod guests;
mod kubernetes;
mod metrics;
mod notify;
mod registry;
mod reload;
mod services;
mod serving;
mod state;
mod tunnel;

pub use app::{App, AppError};
pub use clusters::transfer;
pub use config::{Config, Problem, Problems, RawAudit, RawConfig};

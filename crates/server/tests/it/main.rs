//! The server from outside: real sockets on loopback, scripted agents, a user with a token.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod agent;
mod checks;
mod control;
mod drain;
mod events;
mod guardian;
mod house;
mod idle;
mod join;
mod program;
mod refusals;
mod services;
mod sessions;
mod user;
mod users;
mod versions;
mod wrong_door;

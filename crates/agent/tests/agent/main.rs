//! The agent as a whole, in this process: a scripted tunnel server on one side, a scripted kube-apiserver on the other,
//! real sockets on loopback in between.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod api;
mod bench;
mod connection;
mod doctor;
mod hub;
mod joining;
mod keeping;
mod program;
mod renewing;
mod services;
mod serving;
mod sessions;
mod upgrades;
mod upstream;
mod ways;

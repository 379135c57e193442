//! The agent: runs in a managed cluster, dials out to the tunnel server, and replays each request that comes down the
//! tunnel against the cluster's kube-apiserver as the user who sent it.
//!
//! In order of travel: [`config`](Config) becomes an [`App`]; `tunnel` dials and keeps sessions; `serve` takes the
//! streams that the server opens, step by step, to the kube-apiserver and back; `services` takes connections of local
//! programs the other way; `credentials` and `health` look after the agent's own standing there, and [`identity`] keeps its
//! certificate. The agent dials two places only, the server and
//! the kube-apiserver, both from its own
//! configuration. It links no signer, no policy and no Kubernetes library.

mod app;
mod config;
mod connection;
mod credentials;
pub mod doctor;
mod health;
pub mod identity;
pub mod join;
mod kubernetes;
mod metrics;
mod serve;
mod services;
mod socket;
mod standing;
mod tunnel;

pub use app::{App, BuildError, RunError};
pub use config::{ActingFlags, Config, ConfigError, Problem, RawConfig, RawJoin, Surroundings};
pub use credentials::TokenError;

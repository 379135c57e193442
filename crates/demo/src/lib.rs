//! A small, honest, in-memory Kubernetes API: what the quickstart ties to the tunnel when no real cluster is named.
//!
//! It is a demo and says so wherever a user can look: version, annotations, a `ConfigMap`, every log line, the shell.
//! It serves plain HTTP on loopback only, holds no secret, is read-only, and answers only requests that carry
//! `Impersonate-User` (bar the version and the probes), so that a request of the agent's own would show as a failure.
//! Used by the `moorline` command line and by tests; it knows nothing of the tunnel.

pub mod age;
mod answer;
mod api;
mod caller;
mod discovery;
mod exec;
mod kind;
mod life;
mod logs;
mod negotiate;
mod objects;
mod openapi;
mod query;
mod read;
mod reviews;
mod route;
mod select;
mod serve;
mod table;
mod watch;
mod world;

pub use serve::{Demo, DemoError, Pace};

/// What the demo gives as its Kubernetes version.
pub const VERSION: &str = "v1.33.0-moorline-demo";

/// The annotation that every object of the demo carries, so that none is taken for a real one.
pub const ANNOTATION: &str = "moorline.io/demo";

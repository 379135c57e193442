//! How a Moorline process lives: logs, metrics, probes, signals, tracked tasks and shutdown in phases.
//!
//! Used by the server, the agent and the command line. It knows no policy and no protocol; it touches the
//! clock, standard error, the signals and the limit on open files of its own process, and the listener that it is handed for the probes.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod open_files;
pub mod private_file;
pub mod readiness;
pub mod shutdown;
pub mod signals;
pub mod tasks;

pub use metrics::Registry;
pub use private_file::write_private;
pub use readiness::{Latch, Readiness};
pub use shutdown::{Phase, Phases, Plan, Shutdown, Work};
pub use tasks::Tasks;

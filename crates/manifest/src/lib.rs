//! What a cluster is to install, rendered from typed values: the same values give the same bytes, today and tomorrow.
//!
//! [`agent`] is the managed side, [`guardian`] that of a cluster whose agent is Calico's, and [`rbac`] says which rights the agent needs there. [`Node`] is the YAML that all of it is made of, and that kubeconfigs are
//! read and written with. The command line and the tests call it; it touches nothing.

pub mod agent;
mod form;
pub mod guardian;
mod object;
mod problem;
pub mod rbac;
mod yaml;

pub use problem::Problem;
pub use yaml::{InvalidYaml, Node};

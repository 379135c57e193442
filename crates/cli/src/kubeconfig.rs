//! Kubeconfig files: reading what connects to a gateway, and adding contexts without harming what is there.
//!
//! Used by the commands `kubeconfig`, `login` and `quickstart`, and by everything that takes its connection from a state
//! directory. Touches the named file, its lock and its backup, and nothing else.

mod file;
mod merge;

pub(crate) use self::{
    file::{Kept, default_path, read, update},
    merge::{Credential, EXEC_API, Entry, User, render},
};

/// The name of the context of a cluster.
pub(crate) fn context_name(cluster: &str) -> String {
    format!("moorline-{cluster}")
}

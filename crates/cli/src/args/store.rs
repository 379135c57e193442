//! `moorline store` as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;
use crate::printer::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Print all clusters of a store, with everything that a server knows them by; nothing in it is secret
    #[command(after_help = examples::STORE_EXPORT)]
    Export(StoreExportArgs),
    /// Put clusters that were printed by export into a store
    #[command(after_help = examples::STORE_IMPORT)]
    Import(StoreImportArgs),
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where clusters are kept: embedded (a file of the state directory) or kubernetes (ManagedCluster objects)
    #[arg(long, value_name = "STORE", env = "MOORLINE_CLUSTER_STORE", default_value = "embedded")]
    pub(crate) cluster_store: String,
    /// The state directory of the embedded store; its server must not run
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR", default_value = "/var/lib/moorline")]
    pub(crate) state_dir: PathBuf,
    /// How to reach the management cluster's Kubernetes [default: the service account of the pod]
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreExportArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// How to print them: yaml or json [default: yaml]
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreImportArgs {
    /// The file that export printed, in YAML or JSON; - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Replace clusters that are there already and say something else
    #[arg(long)]
    pub(crate) force: bool,
}

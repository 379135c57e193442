//! What is typed where the agent of a cluster is Calico's Guardian.

use std::path::PathBuf;

use clap::Args;

/// What an agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// Moorline's own agent.
    Moorline,
    /// Calico's open-source Guardian, unmodified.
    Guardian,
}

impl From<Dialect> for moorline_model::Dialect {
    fn from(typed: Dialect) -> Self {
        match typed {
            Dialect::Moorline => Self::Moorline,
            Dialect::Guardian => Self::Guardian,
        }
    }
}

/// Where Calico's operator is, and what is known here of a certificate that its owner brought.
#[derive(Args, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Calico's Guardian")]
pub(crate) struct GuardianArgs {
    /// The namespace of Calico's operator in the cluster [default: what its record says, else tigera-operator]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator_namespace: Option<String>,
    /// PEM file with the key of the certificate that was brought: completes the Secret, and is never sent
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

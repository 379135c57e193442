//! The `moorline` command line: quickstart, server, agent, clusters, kubeconfigs, status.
//!
//! `main.rs` calls [`main`]; everything else is private. Talks to a gateway over the management API, except for
//! `quickstart`, `server` and `agent`, which run the programs in this process.

mod args;
mod client;
mod commands;
mod connection;
mod failure;
mod kubeconfig;
mod login;
mod printer;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Cli, failure::Failure, printer::Printer};

/// Runs what was typed on the command line. The exit code is 0 when it was done, 1 when something went wrong on the
/// way, and 2 when the input cannot be right.
#[must_use]
pub fn main() -> ExitCode {
    // clap prints help and faults in flags itself, and ends with 0 or 2.
    let cli = Cli::parse();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut printer = Printer::new(&mut out, &mut err);
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start", &error))
        .and_then(|runtime| runtime.block_on(commands::run(cli, &mut printer)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit_code()
        }
    }
}

//! `moorline completion`: the script with which a shell completes our words.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure, printer::Printer};

pub(super) fn run(shell: Shell, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "moorline", &mut script);
    printer.text(&String::from_utf8_lossy(&script))
}

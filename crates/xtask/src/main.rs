//! The repository's own checks and generators: `cargo xtask VERB`.
//!
//! CI runs exactly these verbs, so "works in CI" and "works here" are one thing.

mod check;
mod generate;
mod image;
mod layers;
mod sizes;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and generators of the Moorline repository")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Format, lints, layer table, file sizes, generated files: all that must hold before a change lands
    Check,
    /// Hold the crates' edges against the layer table
    Layers,
    /// Hold the source files against the size limit
    Sizes,
    /// Write the generated files, or with --check fail where one is stale
    Generate {
        /// Change nothing; fail when a generated file differs
        #[arg(long)]
        check: bool,
    },
    /// Build what is in the images, as directories and archives
    Image {
        /// Where to write them
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// Optimised, as images are published; tests take what is quicker to build
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Check => check::run(),
        Verb::Layers => layers::run(),
        Verb::Sizes => sizes::run(),
        Verb::Generate { check } => generate::run(check),
        Verb::Image { output, release } => image::run(&output, release),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]
fn report(error: &anyhow::Error) {
    eprintln!("xtask: {error:#}");
}

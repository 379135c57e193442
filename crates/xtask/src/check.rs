//! `cargo xtask check`: every check, in the order in which they are cheapest to fail.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Metadata, cargo};
use crate::{generate, layers, sizes};

/// Runs all checks and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let root = Metadata::read()?.workspace_root;
    step("format", || cargo_verb(&root, &["fmt", "--all", "--check"]))?;
    step("layers", layers::run)?;
    step("sizes", sizes::run)?;
    step("clippy", || {
        cargo_verb(&root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])
    })?;
    step("generated files", || generate::run(true))
}

fn cargo_verb(root: &std::path::Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new(cargo())
        .args(arguments)
        .current_dir(root)
        .status()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]
fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("check: {name}");
    run().with_context(|| format!("check `{name}`"))
}

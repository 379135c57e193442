//! Files that are written by a program: the command-line reference in `docs/`, the custom resource definitions in
//! `deploy/`.
//!
//! They are committed so that a reader finds them, and checked so that they cannot lie.

mod managed;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Metadata, cargo};

/// Program, its package, and the subcommands whose help is part of the reference.
const PROGRAMS: &[(&str, &str, &[&[&str]])] = &[
    ("moorline-server", "moorline-server", &[&[]]),
    ("moorline-agent", "moorline-agent", &[&[]]),
    (
        "moorline",
        "moorline-cli",
        &[
            &[],
            &["quickstart"],
            &["agent", "join"],
            &["agent", "rbac"],
            &["cluster"],
            &["cluster", "add"],
            &["cluster", "manifest"],
            &["cluster", "list"],
            &["cluster", "get"],
            &["cluster", "delete"],
            &["token"],
            &["token", "create"],
            &["token", "list"],
            &["token", "revoke"],
            &["user"],
            &["user", "add"],
            &["user", "list"],
            &["user", "revoke"],
            &["auth"],
            &["auth", "can-i"],
            &["kubeconfig"],
            &["login"],
            &["credential"],
            &["status"],
            &["store"],
            &["store", "export"],
            &["store", "import"],
            &["completion"],
        ],
    ),
];

/// Where the custom resource definitions of the management cluster are: for kubectl, and in the server's chart.
const DEFINITIONS: [&str; 2] =
    ["deploy/crds/managedclusters.yaml", "deploy/helm/moorline-server/crds/managedclusters.yaml"];

/// Writes the generated files, or with `check` compares them and fails naming the stale ones.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Metadata::read()?.workspace_root;
    let mut stale = Vec::new();
    let mut keep = |path: &str, fresh: String| {
        let whole = root.join(path);
        if fs::read_to_string(&whole).is_ok_and(|committed| committed == fresh) {
            return Ok(());
        }
        if check {
            stale.push(path.to_owned());
            return Ok(());
        }
        fs::create_dir_all(whole.parent().context("a file in a directory")?)?;
        fs::write(&whole, fresh).with_context(|| path.to_owned())
    };
    for (program, package, subcommands) in PROGRAMS {
        keep(&format!("docs/reference/{program}.md"), reference(&root, program, package, subcommands)?)?;
    }
    let definitions = definitions(&root)?;
    for path in DEFINITIONS {
        keep(path, definitions.clone())?;
    }
    for (path, content) in managed::files()? {
        keep(&path, format!("# Written by `cargo xtask generate`.\n{content}"))?;
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("stale: {}; run `cargo xtask generate` and commit the result", stale.join(", "))
}

fn reference(root: &Path, program: &str, package: &str, subcommands: &[&[&str]]) -> Result<String> {
    let mut page = format!("<!-- Written by `cargo xtask generate`. -->\n# {program}\n");
    for subcommand in subcommands {
        let output = Command::new(cargo())
            .args(["run", "--quiet", "--package", package, "--bin", program, "--"])
            .args(*subcommand)
            .arg("--help")
            .env("COLUMNS", "100")
            .current_dir(root)
            .output()
            .with_context(|| format!("running {program}"))?;
        if !output.status.success() {
            bail!("{program} {} --help failed: {}", subcommand.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        let help = String::from_utf8(output.stdout).context("help that is not UTF-8")?;
        let title = [&[program], *subcommand].concat().join(" ");
        page.push_str(&format!("\n## `{title}`\n\n```text\n{}\n```\n", trimmed(&help)));
    }
    Ok(page)
}

/// What the Rust types say, in a program of its own so that this one does not link Kubernetes' types.
fn definitions(root: &Path) -> Result<String> {
    let output = Command::new(cargo())
        .args(["run", "--quiet", "--package", "moorline-kube", "--example", "definitions"])
        .current_dir(root)
        .output()
        .context("running the example definitions")?;
    if !output.status.success() {
        bail!("the custom resource definitions: {}", String::from_utf8_lossy(&output.stderr));
    }
    let yaml = String::from_utf8(output.stdout).context("definitions that are not UTF-8")?;
    Ok(format!("# Written by `cargo xtask generate`.\n{yaml}"))
}

/// Help text without trailing blanks, so that the page is stable.
fn trimmed(help: &str) -> String {
    help.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

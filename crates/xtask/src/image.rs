//! `cargo xtask image`: what is in the images of `deploy/image/Dockerfile`, as directories and as archives that are the same
//! whenever and wherever they are made of the same sources by the same toolchain.
//!
//! The programs are static, libc included: there is nothing else in an image but the authorities of the system and the few
//! files that libc reads. Needs a C compiler and GNU tar, and no container engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Metadata, cargo};

/// Each image: its name, and the programs in it with the package of each. The first is what it runs.
const IMAGES: &[(&str, &[(&str, &str)])] = &[
    ("agent", &[("moorline-agent", "moorline-agent")]),
    // The command line too: `kubectl exec` in the server's pod is how its administrator begins.
    ("server", &[("moorline-server", "moorline-server"), ("moorline", "moorline-cli")]),
];

/// Authorities for what is public: issuers of tokens, a tunnel behind a public certificate.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Texts of `/etc`. Libc finds no names without the last.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nmoorline:x:65532:65532:moorline:/:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nmoorline:x:65532:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

/// Directories that are mounted over.
const MOUNTED: &[&str] = &["certs", "dev", "proc", "sys", "tmp", "var/lib/moorline"];

/// Builds the programs and writes `NAME/` and `NAME.tar` below `output`.
pub(crate) fn run(output: &Path, release: bool) -> Result<()> {
    let metadata = Metadata::read()?;
    let programs = build(&metadata, release)?;
    for (name, contents) in IMAGES {
        let root = output.join(name);
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("clearing {}", root.display()))?;
        }
        for (path, text) in FILES {
            write(&root.join(path), text.as_bytes())?;
        }
        for directory in MOUNTED {
            fs::create_dir_all(root.join(directory)).context("making a mount point")?;
        }
        let system = fs::read(Path::new("/").join(AUTHORITIES));
        write(&root.join(AUTHORITIES), &system.context("the system's authorities: install ca-certificates")?)?;
        for (program, _package) in *contents {
            let (from, to) = (programs.join(program), root.join("usr/bin").join(program));
            fs::create_dir_all(root.join("usr/bin")).context("making usr/bin")?;
            fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
        archive(&root, &output.join(format!("{name}.tar")))?;
    }
    Ok(())
}

/// Where the static programs are.
fn build(metadata: &Metadata, release: bool) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // Beside the others, which are built with other flags.
    let directory = metadata.target_directory.join("image");
    let (root, home) = (metadata.workspace_root.display(), cargo_home());
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={root}=/moorline"),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    let mut command = Command::new(cargo());
    command.args(["build", "--locked", "--bins", "--target", &target]).args(release.then_some("--release"));
    for (_, package) in IMAGES.iter().flat_map(|(_, contents)| *contents) {
        command.args(["--package", package]);
    }
    command
        .current_dir(&metadata.workspace_root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", &directory);
    if !command.status().context("running cargo build")?.success() {
        bail!("the static programs cannot be built");
    }
    Ok(directory.join(target).join(if release { "release" } else { "debug" }))
}

fn cargo_home() -> PathBuf {
    let home = std::env::home_dir().unwrap_or_default();
    std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file in a directory")?).context("making its directory")?;
    fs::write(path, content).with_context(|| path.display().to_string())
}

/// Nothing of who made it, when, and in which order.
fn archive(root: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    command.args(["--format=gnu", "--create", "--file"]).arg(file).arg("--directory").arg(root).arg(".");
    if !command.status().context("running tar")?.success() {
        bail!("{} cannot be written", file.display());
    }
    Ok(())
}

//! Builds the Go programs that stand on the other end in tests, each once, outside of the tree.
//!
//! Kept in `MOORLINE_TEST_TOOLS` or else `~/.cache/moorline/tools`. Without Go the tests skip with a line that says so,
//! unless `MOORLINE_REQUIRE_INTEROP=1` or `MOORLINE_REQUIRE_KUBERNETES=1` is set, as in CI.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::kubernetes::say_skipped;

/// The program of a module's root, built if it is not there yet; `None` without Go, after a loud line.
///
/// # Errors
/// When it cannot be built, or when there is no Go and a variable says that nothing may be skipped.
pub fn build_or_skip(source: &Path) -> Result<Option<PathBuf>> {
    let go = Command::new("go").arg("version").stdin(Stdio::null()).output();
    let Some(go) = go.ok().filter(|go| go.status.success()) else {
        let required = ["MOORLINE_REQUIRE_INTEROP", "MOORLINE_REQUIRE_KUBERNETES"];
        let required = required.into_iter().find(|name| setting(name).is_some_and(|value| value == "1"));
        ensure!(required.is_none(), "{required:?} is 1 and there is no Go to build {} with", source.display());
        say_skipped(&format!("no Go on the path to build {} with", source.display()));
        return Ok(None);
    };
    build(source, &go.stdout).map(Some)
}

fn build(source: &Path, go: &[u8]) -> Result<PathBuf> {
    let name = source.file_name().context("a directory with a name")?.to_string_lossy().into_owned();
    let tools = match setting("MOORLINE_TEST_TOOLS") {
        Some(tools) => PathBuf::from(tools),
        None => {
            Path::new(&setting("HOME").context("HOME or MOORLINE_TEST_TOOLS is set")?).join(".cache/moorline/tools")
        }
    };
    fs::create_dir_all(&tools)?;
    let program = tools.join(format!("interop-{name}-{:016x}", digest(source, go)?));
    if !program.exists() {
        // Under another name first: another test process may be building the same.
        let scratch = tools.join(format!("interop-{name}-{}.new", rand::random::<u64>()));
        let mut command = Command::new("go");
        command.args(["build", "-mod=readonly", "-o"]).arg(&scratch).arg(".").current_dir(source);
        let build = command.stdin(Stdio::null()).output()?;
        ensure!(build.status.success(), "go build: {}", String::from_utf8_lossy(&build.stderr));
        fs::rename(&scratch, &program)?;
    }
    Ok(program)
}

/// Of all that the program is built from, so that a change builds anew.
fn digest(source: &Path, go: &[u8]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(go);
    let mut files = fs::read_dir(source)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| ["go", "mod", "sum"].iter().any(|one| kind == *one)));
    files.sort();
    for file in files {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write(&fs::read(&file)?);
    }
    Ok(hasher.finish())
}

#[expect(clippy::disallowed_methods, reason = "where tools are kept and what must run is the tester's choice")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

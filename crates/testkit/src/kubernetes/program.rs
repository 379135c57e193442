//! One real program, bound to the life of this process.
//!
//! A test process may end without running any destructor: a static, a kill, a crash. So each program
//! runs under a shell that holds the read end of a pipe: whenever and however the write end in this
//! process goes away, the shell kills its program.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result};

/// `$1`: a directory to remove when this process has gone, or empty. The rest: the program.
/// 137 is the exit code of a killed program: a program that fell over by itself keeps its files.
const SUPERVISE: &str = r#"
remove=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ read -r _; kill -KILL "$child"; } <&3 3<&- &
watch=$!
exec 3<&-
wait "$child"; code=$?
kill "$watch" 2>/dev/null
if [ -n "$remove" ] && [ "$code" = 137 ]; then
    rm -rf -- "$remove" || { sleep 1; rm -rf -- "$remove"; }
fi 2>/dev/null
exit "$code"
"#;

/// How much of a log an error quotes.
const QUOTED: u64 = 4096;

/// A running program. Dropping it kills the program and waits for its end.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    log: PathBuf,
    supervisor: Child,
    lifeline: Option<ChildStdin>,
}

impl Program {
    /// Starts a program with its output in `log`, in a process group of its own.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        directory: &Path,
        remove_at_end: Option<&Path>,
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).context("create a log file")?;
        let errors = output.try_clone().context("share a log file")?;
        let mut supervisor = Command::new("/bin/sh")
            .arg("-c")
            .arg(SUPERVISE)
            .arg(name)
            .arg(remove_at_end.unwrap_or_else(|| Path::new("")))
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let lifeline = supervisor.stdin.take();
        Ok(Self { name, log, supervisor, lifeline })
    }

    /// An error that quotes the end of the log, if the program has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.supervisor.try_wait().context("ask after a program")? {
            None => Ok(()),
            Some(status) => {
                anyhow::bail!("{} ended early ({status}); its log ends:\n{}", self.name, self.quote())
            }
        }
    }

    /// The end of the log.
    pub(super) fn quote(&self) -> String {
        let quote = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(QUOTED)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        quote().unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Err(error) = self.supervisor.wait() {
            tracing::warn!(program = self.name, %error, "a program's end could not be awaited");
        }
    }
}

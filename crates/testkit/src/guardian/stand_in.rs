//! The stand-in of `tests/interop/guardian`: starts it, reads what it tells, and gives it commands.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Settings, Signal, Tls, send};
use crate::{eventually, go_program};

/// Far more than any command takes on a busy machine.
const ANSWERED: Duration = Duration::from_secs(120);

/// A running stand-in. It ends with this value, and with this process.
pub struct StandIn {
    child: Child,
    stdin: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
    /// How many lines have been looked at.
    passed: usize,
    listener: SocketAddr,
}

impl StandIn {
    /// Starts it; `None` without Go, after a loud line. It connects in its own time.
    ///
    /// # Errors
    /// When it cannot be built or started, or ends at once.
    pub async fn start_or_skip(settings: &Settings) -> Result<Option<Self>> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop/guardian");
        match go_program::build_or_skip(&source)? {
            Some(program) => Self::start(&program, settings).await.map(Some),
            None => Ok(None),
        }
    }

    async fn start(program: &Path, settings: &Settings) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(settings.files.join("guardian.log"))?;
        let mut command = Command::new(program);
        command.arg("-address").arg(settings.tunnel.to_string()).arg("-certs").arg(&settings.files);
        command.args(["-kube-apiserver", &settings.kube_apiserver]);
        command.arg("-token").arg(settings.account.join("token"));
        let authority = settings.account.join("ca.crt");
        if authority.exists() {
            command.arg("-ca").arg(authority);
        }
        command.args(["-retry", &format!("{}ms", settings.retry.as_millis())]);
        command.args(["-again", &format!("{}ms", settings.retry.as_millis())]);
        match settings.tls {
            None => {}
            Some(Tls::V12) => _ = command.args(["-tls", "1.2"]),
            Some(Tls::V13) => _ = command.args(["-tls", "1.3"]),
        }
        if settings.mortal {
            command.arg("-mortal");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let (stdin, stdout) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut stand_in = Self { child, stdin, lines, passed: 0, listener: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let listening = stand_in.event("listening").await?;
        stand_in.listener = listening.parse()?;
        stand_in.passed = 0;
        Ok(stand_in)
    }

    /// Where it takes connections and makes raw streams of them.
    #[must_use]
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Waits until it tells something that begins with this word, beyond what was told before, and gives the rest.
    ///
    /// # Errors
    /// When that does not happen in time, or the program has ended.
    pub async fn event(&mut self, word: &str) -> Result<String> {
        let found = eventually(ANSWERED, || {
            let found = self.find(word).map(Ok);
            let ended = || {
                let status = self.child.try_wait().ok().flatten()?;
                // What it told as it ended may still be on its way.
                Some(self.find(word).ok_or_else(|| anyhow::anyhow!("it ended: {status}")))
            };
            std::future::ready(found.or_else(ended))
        })
        .await;
        found.and_then_context(|| format!("no {word:?} in {:#?}", self.lines()))
    }

    fn find(&mut self, word: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, rest) = lines.iter().enumerate().skip(self.passed).find_map(|(at, line)| {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            (first == word).then(|| (at, rest.to_owned()))
        })?;
        self.passed = at + 1;
        Some(rest)
    }

    /// All that it has told so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it a command, and waits for the answer. The commands stand in its `commands.go`.
    ///
    /// # Errors
    /// When it has ended, or answers with an error.
    pub async fn command(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        let verb = line.split(' ').next().unwrap_or(line).to_owned();
        let answer = self.event("done").await?;
        let answer = answer.strip_prefix(&verb).with_context(|| format!("{answer:?} to {line:?}"))?.trim();
        ensure!(!answer.starts_with("error"), "{line:?}: {answer}");
        Ok(answer.to_owned())
    }

    /// Gives it a command, and does not wait.
    ///
    /// # Errors
    /// When it has ended.
    pub fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// Stops it, lets it go on, or ends it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.child.id(), signal)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Flattens what waiting gives.
trait AndThenContext<T> {
    fn and_then_context(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T> AndThenContext<T> for Result<Result<T>, crate::Late> {
    fn and_then_context(self, context: impl FnOnce() -> String) -> Result<T> {
        match self {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error).with_context(context),
            Err(late) => Err(late).with_context(context),
        }
    }
}

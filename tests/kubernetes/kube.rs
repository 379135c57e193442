//! Runs one kubectl with one kubeconfig, always with a deadline.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use moorline_testkit::kubernetes::{Kubectl, Tools};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// For anything that a kubectl does here, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A kubectl of one age, with one kubeconfig and a namespace.
#[derive(Clone)]
pub(crate) struct Kube {
    pub(crate) tools: Tools,
    pub(crate) version: Kubectl,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) prefix: String,
    pub(crate) namespace: String,
}

/// How a kubectl ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Kube {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::from(self.tools.kubectl(self.version, &self.kubeconfig));
        command.args(["--namespace", &self.namespace]).args(arguments).kill_on_drop(true);
        command
    }

    /// Runs to the end and gives what came out.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"").await
    }

    /// Runs to the end with `input` on stdin, closed behind it.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        finish(self.command(arguments), input)
            .await
            .unwrap_or_else(|problem| panic!("{} kubectl {arguments:?} {problem}", self.version))
    }

    /// Runs to the end, which must be a good one, and gives the output as text.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, b"").await
    }

    /// As [`Self::ok`], with `input` on stdin.
    pub(crate) async fn ok_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let ended = self.run_with(arguments, input).await;
        assert_eq!(ended.code, Some(0), "{} kubectl {arguments:?}: {ended:?}", self.version);
        ended.text()
    }

    /// Runs to the end with more variables in its environment.
    pub(crate) async fn run_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        finish(command, b"").await.unwrap_or_else(|problem| panic!("{} kubectl {arguments:?} {problem}", self.version))
    }

    /// As [`Self::ok`], parsed as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ok(&[arguments, &["--output=json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Starts and leaves running, with all three pipes in hand.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Runs to the end on a terminal of 33 rows and 77 columns, and gives what the terminal showed.
    pub(crate) async fn on_terminal(&self, arguments: &[&str], typed: &[u8]) -> Ended {
        let inner = self.command(arguments);
        let mut line = String::from("stty rows 33 cols 77; exec");
        for word in std::iter::once(inner.as_std().get_program()).chain(inner.as_std().get_args()) {
            let word = word.to_string_lossy();
            line.push_str(&format!(" '{}'", word.replace('\'', r"'\''")));
        }
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
            .env_remove("KUBECONFIG")
            .env("TERM", "xterm")
            .kill_on_drop(true);
        finish(command, typed)
            .await
            .unwrap_or_else(|problem| panic!("{} kubectl {arguments:?} {problem}", self.version))
    }
}

async fn finish(mut command: Command, input: &[u8]) -> Result<Ended, String> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("did not start: {error}"))?;
    let pipe = child.stdin.take();
    let feed = async move {
        if let Some(mut pipe) = pipe {
            // A program that has heard enough closes its end.
            drop(pipe.write_all(input).await);
        }
    };
    let output = timeout(DEADLINE, async { tokio::join!(feed, child.wait_with_output()).1 })
        .await
        .map_err(|_elapsed| format!("did not end within {DEADLINE:?}"))?
        .map_err(|error| format!("broke: {error}"))?;
    Ok(Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A kubectl that runs. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    stderr: ChildStderr,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = child.stderr.take().unwrap();
        Self { child, stdin, lines, stderr }
    }

    /// The next line of the output.
    pub(crate) async fn line(&mut self) -> String {
        match timeout(DEADLINE, self.lines.next_line()).await.expect("a line in time").unwrap() {
            Some(line) => line,
            None => panic!("kubectl ended instead of printing a line: {}", self.complaint().await),
        }
    }

    /// The next line that contains `wanted`; those before are passed over.
    pub(crate) async fn line_with(&mut self, wanted: &str) -> String {
        let mut passed = Vec::new();
        let search = async {
            loop {
                let line = self.line().await;
                if line.contains(wanted) {
                    return line;
                }
                passed.push(line);
            }
        };
        match timeout(DEADLINE, search).await {
            Ok(line) => line,
            Err(_elapsed) => panic!("no line with {wanted:?} after {passed:?}"),
        }
    }

    /// Writes to its stdin.
    pub(crate) async fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// Closes its stdin.
    pub(crate) fn hush(&mut self) {
        self.stdin = None;
    }

    /// Closes its stdin, waits for its end and gives the exit code.
    pub(crate) async fn end(mut self) -> Option<i32> {
        self.hush();
        self.end_with_stdin_open().await
    }

    /// Waits for its end and gives the exit code.
    pub(crate) async fn end_with_stdin_open(mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait()).await.expect("an end in time").unwrap().code()
    }

    /// Waits for its end and gives the exit code, the rest of its output, and what it wrote to stderr.
    pub(crate) async fn end_with_rest(mut self) -> (Option<i32>, String, String) {
        let mut rest = String::new();
        let read = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                rest.push_str(&line);
                rest.push('\n');
            }
        };
        timeout(DEADLINE, read).await.expect("an end in time");
        let complaint = self.complaint().await;
        (self.end_with_stdin_open().await, rest, complaint)
    }

    async fn complaint(&mut self) -> String {
        let mut text = String::new();
        let read = timeout(DEADLINE, self.stderr.read_to_string(&mut text)).await;
        format!("{text} {read:?}")
    }
}

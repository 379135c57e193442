//! A real process of ours: its signals, its log lines, its file descriptors, its end.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moorline_testkit::{client::LIMIT, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Log lines kept of one process; what a test looks for is among the first.
const MOST_LINES: usize = 100_000;

/// Killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// `moorline` with these arguments and an empty environment.
pub(crate) fn moorline<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
    command.env_clear().args(arguments);
    command
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < MOST_LINES {
                    kept.push(line);
                }
            }
        });
        Self { child, lines }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let signal = match name {
            "CONT" => Signal::CONT,
            "KILL" => Signal::KILL,
            "STOP" => Signal::STOP,
            "TERM" => Signal::TERM,
            other => panic!("no test needs {other}"),
        };
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The log lines so far that hold all of `parts`.
    pub(crate) fn said(&self, parts: &[&str]) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
    }

    /// Waits for a log line that holds all of `parts`.
    pub(crate) async fn says(&self, parts: &[&str]) -> String {
        let said = eventually(LIMIT, async || self.said(parts).pop()).await;
        said.unwrap_or_else(|late| panic!("{late}: {parts:?} in\n{}", self.said(&[]).join("\n")))
    }

    /// The address behind `name=` in the line that says that it serves.
    pub(crate) async fn address(&self, name: &str) -> SocketAddr {
        let line = self.says(&["serving", &format!("{name}=")]).await;
        let rest = line.split_once(&format!("{name}=")).unwrap().1;
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for its end; gives its exit code, none if a signal ended it.
    pub(crate) async fn ended(&mut self, within: Duration) -> Option<i32> {
        let status = eventually(within, || std::future::ready(self.child.try_wait().unwrap())).await;
        status.unwrap_or_else(|late| panic!("it runs on, {late}\n{}", self.said(&[]).join("\n"))).code()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its number, under which `/proc` tells of it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if !std::thread::panicking() {
            let errors = self.said(&[" ERROR "]);
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }
}

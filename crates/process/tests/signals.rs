//! Signals and logs as a real process shows them: the test runs itself as the process that is told to stop.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStderr, Command, Stdio},
};

use moorline_process::{logs, signals};
use rustix::process::{Pid, Signal, kill_process};

const CHILD: &str = "MOORLINE_PROCESS_TEST_CHILD";

/// Waits for the first signal, says so, and then hangs: only the second signal can end it.
fn be_the_child() {
    logs::init(logs::Format::Json, "info").unwrap();
    logs::init(logs::Format::Text, "info").unwrap_err();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let terminated = signals::terminated().unwrap();
        tracing::info!(answer = 42, "ready");
        tracing::debug!("not to be seen");
        terminated.await;
        tracing::info!("stopping");
        std::future::pending::<()>().await;
    });
}

#[test]
fn the_first_signal_asks_and_the_second_ends() {
    #[expect(clippy::disallowed_methods, reason = "how the child is told what it is")]
    if std::env::var(CHILD).is_ok() {
        return be_the_child();
    }
    for (first, second, code) in [(Signal::TERM, Signal::INT, 130), (Signal::INT, Signal::TERM, 143)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_first_signal_asks_and_the_second_ends", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = expect_line(&mut lines, "ready");
        assert_eq!((&ready["answer"], &ready["level"]), (&42.into(), &"INFO".into()), "{ready}");
        assert!(ready["target"].as_str().unwrap().starts_with("signals"), "{ready}");
        send(&child, first);
        expect_line(&mut lines, "told to stop; once more stops at once");
        expect_line(&mut lines, "stopping");
        send(&child, second);
        expect_line(&mut lines, "told to stop at once");
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// The next log line, which must be JSON with this message.
fn expect_line(lines: &mut Lines<BufReader<ChildStderr>>, message: &str) -> serde_json::Value {
    let line = lines.next().unwrap().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["message"], message, "{line}");
    event
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

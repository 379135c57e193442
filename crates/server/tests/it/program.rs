//! The program itself: exit codes, and what an operator reads.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline-server"));
    command.env_clear().stdin(Stdio::null());
    command
}

#[test]
fn a_bad_configuration_is_code_two_and_all_of_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let output = program()
        .arg("--state-dir")
        .arg(dir.path())
        .args(["--tunnel-listen", "nowhere", "--heartbeat-interval", "soon", "--log", "loudly=x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in ["--tunnel-listen: \"nowhere\"", "--heartbeat-interval: \"soon\"", "--log"] {
        assert!(text.contains(part), "{part} is missing from:\n{text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn it_serves_until_it_is_terminated_and_ends_with_code_zero() {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0";
    let mut child = program()
        .arg("--state-dir")
        .arg(dir.path())
        .args(["--tunnel-listen", any, "--gateway-listen", any, "--admin-listen", any, "--shutdown-notice", "0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = lines.find(|line| line.as_ref().unwrap().contains("serving")).unwrap().unwrap();
    assert!(serving.contains("tunnel=127.0.0.1:"), "{serving}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:#?}");
    let token = moorline_server::bootstrap::StateDir::new(dir.path()).admin_token().unwrap().unwrap();
    assert!(!rest.iter().any(|line| line.contains(&token)));
}

//! The program itself: what it says about bad flags, and how it ends.

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench::within,
    hub::{Hub, QUIET, text},
    upstream::Upstream,
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline-agent"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn bad_flags_are_told_together_with_exit_code_2() {
    let output = program().args(["--sessions", "9", "--cert-dir", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    for words in ["--management-cluster-addr: is missing", "--sessions: 9 is out of range", "/nowhere", "--kubeconfig"]
    {
        assert!(said.contains(words), "{said:?} lacks {words:?}");
    }
    let output = program().args(["--log", "loudly=x=y"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(program().arg("--no-such-flag").output().unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn sigterm_ends_it_in_order() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let raw = hub.raw(&upstream.url());
    let mut command = program();
    command.arg("--management-cluster-addr").arg(raw.management_cluster_addr.unwrap());
    command.arg("--cert-dir").arg(raw.cert_dir.unwrap());
    command.arg("--kube-apiserver").arg(raw.kube_apiserver.unwrap());
    command.arg("--kube-token-file").arg(raw.kube_token_file.unwrap());
    command.args(["--admin-addr", "127.0.0.1:0", "--log-format", "json"]);
    let child = command.spawn().unwrap();
    let session = hub.session(QUIET).await;
    assert_eq!(text(session.get("/x").await).await, "fine");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let reason = session.ended().await;
    assert!(reason.is_graceful(), "{reason:?}");
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = within(waiting).await.expect("it ends").unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("session established") && !said.contains("the-agents-token"), "{said}");
}

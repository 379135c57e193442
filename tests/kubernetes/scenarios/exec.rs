//! `kubectl exec` on pipes.

use std::collections::BTreeSet;

use moorline_testkit::eventually;
use moorline_testkit::kubernetes::{Kubectl, PodSpec};
use rand::{Rng as _, SeedableRng as _};

use crate::audit;
use crate::kube::{DEADLINE, Kube};
use crate::stage::Stage;

async fn idle(stage: &Stage) -> &Kube {
    stage.pod(PodSpec::idle("idle")).await;
    &stage.kube
}

/// Stdout and stderr arrive apart, and complete.
pub(crate) async fn exec(stage: &Stage) {
    let kube = idle(stage).await;
    let ended = kube.run(&["exec", "idle", "--", "sh", "-c", "echo out; echo err >&2"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "out\n"), "{ended:?}");
    assert!(ended.stderr.ends_with("err\n"), "{ended:?}");
}

/// The command sees the end of its input, and only then answers.
pub(crate) async fn exec_with_stdin(stage: &Stage) {
    let kube = idle(stage).await;
    let mut input = vec![0; 5 << 20];
    rand::rngs::StdRng::seed_from_u64(5).fill_bytes(&mut input);
    let ended = kube.run_with(&["exec", "-i", "idle", "--", "cat"], &input).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout == input, "{} of {} bytes came back", ended.stdout.len(), input.len());
    let counted = kube.ok_with(&["exec", "-i", "idle", "--", "sh", "-c", "wc -c; echo done"], &input).await;
    assert_eq!(counted, format!("{}\ndone\n", input.len()));
}

pub(crate) async fn exec_exit_codes(stage: &Stage) {
    let kube = idle(stage).await;
    for code in [0, 1, 3, 42, 255] {
        let ended = kube.run(&["exec", "idle", "--", "sh", "-c", &format!("exit {code}")]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
    }
    let killed = kube.run(&["exec", "idle", "--", "sh", "-c", "kill -9 $$"]).await;
    assert_eq!(killed.code, Some(137), "{killed:?}");
}

/// A command that ends before its input does ends the session, with its own exit code.
pub(crate) async fn exec_without_reading_stdin(stage: &Stage) {
    let kube = idle(stage).await;
    if kube.version == Kubectl::Old {
        // Over SPDY, straight at a kube-apiserver, what the command said is lost when input is under way as it ends: its
        // node resets the connection, and kube-apiserver hangs up on kubectl as soon as one direction has failed. So an old
        // kubectl gets an input that has arrived, unread, and stays open.
        let mut unread = kube.start(&["exec", "-i", "idle", "--", "sh", "-c", "read begin; echo no; exit 4"]);
        unread.say(&format!("begin\n{}", "x".repeat(1 << 10))).await;
        let (code, output, complaint) = unread.end_with_rest().await;
        assert_eq!((code, output.as_str()), (Some(4), "no\n"), "{complaint}");
    } else {
        let unread = vec![b'x'; 8 << 20];
        let ended = kube.run_with(&["exec", "-i", "idle", "--", "sh", "-c", "echo no; exit 4"], &unread).await;
        assert_eq!((ended.code, ended.text().as_str()), (Some(4), "no\n"), "{}", ended.stderr);
    }
    // Input that stays open for ever does not keep a finished command's session.
    let mut open = kube.start(&["exec", "-i", "idle", "--", "head", "-n", "1"]);
    open.say("only\nmore\n").await;
    assert_eq!(open.line().await, "only");
    assert_eq!(open.end_with_stdin_open().await, Some(0));
    // And one that closes its input early goes on writing.
    let script = "read begin; exec <&-; i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done";
    let mut early = kube.start(&["exec", "-i", "idle", "--", "sh", "-c", script]);
    early.say("begin\nunread").await;
    let (code, output, complaint) = early.end_with_rest().await;
    assert_eq!((code, output.lines().count()), (Some(0), 1000), "{complaint}");
}

pub(crate) async fn exec_bulk_output(stage: &Stage) {
    let kube = idle(stage).await;
    let ended = kube.run(&["exec", "idle", "--", "head", "-c", "33554432", "/dev/zero"]).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 32 << 20), "{}", ended.stderr);
    assert!(ended.stdout.iter().all(|&byte| byte == 0));
}

/// Both ways of upgrading are in play: a `POST` is SPDY, a `GET` is a WebSocket.
pub(crate) async fn exec_protocol(stage: &Stage) {
    let kube = idle(stage).await;
    assert_eq!(kube.ok(&["exec", "idle", "--", "echo", "hello"]).await, "hello\n");
    let verbs = eventually(DEADLINE, || async {
        let events = audit::events(stage);
        let execs = events.iter().filter(|event| event["objectRef"]["subresource"] == "exec");
        let verbs: BTreeSet<String> = execs.filter_map(|event| event["verb"].as_str().map(str::to_owned)).collect();
        (!verbs.is_empty()).then_some(verbs)
    })
    .await
    .unwrap();
    match stage.kube.version {
        Kubectl::Old => assert_eq!(verbs, BTreeSet::from(["create".to_owned()])),
        Kubectl::New => assert_eq!(verbs, BTreeSet::from(["get".to_owned()])),
        Kubectl::Machine => {}
    }
}

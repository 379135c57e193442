//! `kubectl exec` on a terminal.

use moorline_testkit::kubernetes::PodSpec;

use crate::stage::Stage;

pub(crate) async fn exec_on_terminal(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let script = "test -t 0 && test -t 1 && echo terminal; read line; echo \"heard $line\"; exit 7";
    let ended = stage.kube.on_terminal(&["exec", "-it", "idle", "--", "sh", "-c", script], b"hello\n").await;
    let screen = ended.text();
    assert_eq!(ended.code, Some(7), "{screen}");
    assert!(screen.contains("terminal\r\n") && screen.contains("heard hello\r\n"), "{screen}");
}

/// The size of the user's terminal reaches the command's.
pub(crate) async fn exec_follows_size(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let script = "i=0; while [ \"$(stty size)\" != '33 77' ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done; \
                  echo \"size $(stty size)\"";
    let ended = stage.kube.on_terminal(&["exec", "-it", "idle", "--", "sh", "-c", script], b"").await;
    let screen = ended.text();
    assert!(screen.contains("size 33 77"), "{screen}");
}

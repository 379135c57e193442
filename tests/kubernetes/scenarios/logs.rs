//! `kubectl logs`, to the end and following.

use moorline_testkit::kubernetes::PodSpec;

use crate::stage::Stage;

pub(crate) async fn logs(stage: &Stage) {
    let kube = &stage.kube;
    stage.pod(PodSpec::running("short", &["seq", "1", "20000"])).await;
    kube.ok(&["wait", "pod/short", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]).await;
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(kube.ok(&["logs", "short"]).await, expected);
    assert_eq!(kube.ok(&["logs", "short", "--tail=2"]).await, "19999\n20000\n");
    assert_eq!(kube.ok(&["logs", "short", "-f"]).await, expected);
}

pub(crate) async fn logs_follow(stage: &Stage) {
    // Every line answers one that is typed, so each can be awaited before the next exists.
    let mut pod = PodSpec::running("talker", &["sh", "-c", "echo ready; exec cat"]);
    pod.stdin = true;
    stage.pod(pod).await;
    let mut follower = stage.kube.start(&["logs", "-f", "talker"]);
    assert_eq!(follower.line().await, "ready");
    let mut typist = stage.kube.start(&["attach", "-i", "-q", "talker"]);
    for number in 0..5 {
        let line = format!("line {number}");
        typist.say(&format!("{line}\n")).await;
        assert_eq!(follower.line().await, line);
    }
    // The stream ends when the container does.
    stage.kube.ok(&["delete", "pod", "talker"]).await;
    assert_eq!(follower.end().await, Some(0));
}

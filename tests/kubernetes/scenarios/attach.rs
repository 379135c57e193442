//! `kubectl attach`.

use moorline_testkit::kubernetes::PodSpec;

use crate::stage::Stage;

pub(crate) async fn attach(stage: &Stage) {
    let script = "while read line; do echo \"heard $line\"; [ \"$line\" = end ] && exit 0; done";
    let mut pod = PodSpec::running("listener", &["sh", "-c", script]);
    pod.stdin = true;
    stage.pod(pod).await;
    let mut attached = stage.kube.start(&["attach", "-i", "-q", "listener"]);
    for word in ["one", "two"] {
        attached.say(&format!("{word}\n")).await;
        assert_eq!(attached.line().await, format!("heard {word}"));
    }
    attached.say("end\n").await;
    assert_eq!(attached.line().await, "heard end");
    assert_eq!(attached.end_with_stdin_open().await, Some(0));
    assert_eq!(stage.kube.ok(&["logs", "listener"]).await, "heard one\nheard two\nheard end\n");
}

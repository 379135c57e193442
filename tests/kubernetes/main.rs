//! Real Kubernetes: real control planes, real kubectl.
#![expect(clippy::unwrap_used, reason = "tests")]

use moorline_testkit::kubernetes::{ControlPlane, Options, Tools, PodSpec};

#[tokio::test]
async fn starts() {
    let Some(tools) = Tools::require_or_skip() else { return };
    let t = std::time::Instant::now();
    let plane = ControlPlane::start(&tools, Options::default()).await.unwrap();
    println!("ready {:?}", t.elapsed());
    let node = plane.add_node("n1").await.unwrap();
    plane.add_pod(&node, &PodSpec::idle("idle")).await.unwrap();
    println!("pod {:?}", t.elapsed());
    for k in tools.kubectls() {
        let o = plane.kubectl(k).unwrap().args(["get", "pods,nodes", "-A", "-o", "wide"]).output().unwrap();
        println!("{k}: {}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    }
    println!("all {:?}", t.elapsed());
}

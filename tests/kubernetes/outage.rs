//! A kube-apiserver that dies and comes back, seen by kubectl through Moorline.

use http::StatusCode;
use moorline_testkit::eventually;
use moorline_testkit::kubernetes::{ControlPlane, Kubectl, Options, Tools};
use serde_json::{Value, json};

use crate::kube::{DEADLINE, Kube};
use crate::tunnel::{ALICE, House, RUNTIME, enroll, house};

const NAME: &str = "fickle";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// kubectl hears a reason, watches end as they do without anything in between, and all is well again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_kube_apiserver_is_told_and_forgotten() {
    let Some(house) = house().await else { return };
    let tools = Tools::require_or_skip().unwrap();
    let plane = ControlPlane::start(&tools, Options { name: NAME.into(), ..Options::default() }).await.unwrap();
    let plane: &'static ControlPlane = Box::leak(Box::new(plane));
    plane.grant_everything(ALICE.1).await.unwrap();
    let map = |name: &str| json!({ "metadata": { "name": name } });
    plane.api().create("/api/v1/namespaces", &map("default")).await.unwrap();
    plane.api().create(MAPS, &map("before")).await.unwrap();
    let agent = RUNTIME.spawn(enroll(&house.server, NAME, plane)).await.unwrap();

    let through = crate::doors::kubectl(house, NAME, ALICE);
    let straight = Kube { kubeconfig: plane.admin_kubeconfig().unwrap(), ..through.clone() };
    for version in [Kubectl::Old, Kubectl::New] {
        let [through, straight] = [&through, &straight].map(|kube| Kube { version, ..kube.clone() });
        let watch = ["get", "configmaps", "-w", "-o", "json", "--output-watch-events"];
        let mut watches = [through.start(&watch), straight.start(&watch)];
        for watch in &mut watches {
            watch.line_with("\"before\"").await;
        }
        // The first lines are a list's; this object's are the watch's.
        let during = format!("during-{version}");
        plane.api().create(MAPS, &map(&during)).await.unwrap();
        for watch in &mut watches {
            watch.line_with(&format!("\"{during}\"")).await;
        }
        plane.stop_api_server();
        for watch in watches {
            let (code, rest, complaint) = watch.end_with_rest().await;
            assert_eq!(code, Some(0), "{complaint}");
            // An informer that is told of an error lists everything anew; one whose watch just ends resumes.
            assert!(!rest.contains("ERROR"), "{rest}");
        }
        told(house, &through).await;

        plane.start_api_server().await.unwrap();
        let well = async || (through.run(&["get", "configmap", "before"]).await.code == Some(0)).then_some(());
        eventually(DEADLINE, well).await.unwrap();
    }
    RUNTIME.spawn(agent.ended()).await.unwrap().unwrap();
}

/// What is answered in place of the kube-apiserver that is not there.
async fn told(house: &House, kube: &Kube) {
    let client = house.server.admin_client().unwrap().with_token(ALICE.0);
    let answer = client.get(&format!("/clusters/{NAME}{MAPS}")).await.unwrap();
    let gone = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    assert!(gone.contains(&answer.code), "{answer:?}");
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(answer.code.as_u16())));
    let ended = kube.run(&["get", "configmaps"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let reason = format!("cluster \"{NAME}\": the kube-apiserver cannot be reached");
    assert!(ended.stderr.contains("Error from server") && ended.stderr.contains(&reason), "{ended:?}");
}

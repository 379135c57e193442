//! What only the whole way shows: who is let in, both ways to name a cluster, and whom the managed clusters saw.

use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::client::Client;
use moorline_testkit::kubernetes::Kubectl;
use serde_json::Value;

use crate::kube::Kube;
use crate::tunnel::{AGENT, ALICE, House, NAMES, STRANGER, house};

/// What an agent asks for as itself, to tell how its kube-apiserver is: nothing that shows anybody's objects.
const PROBES: [&str; 3] = ["/readyz", "/version", "/api/v1/namespaces/kube-system"];

fn alice(house: &House) -> Client {
    house.server.admin_client().unwrap().with_token(ALICE.0)
}

pub(crate) fn kubectl(house: &House, name: &str, who: (&str, &str)) -> Kube {
    Kube {
        tools: house.clusters[0].plane.tools().clone(),
        version: Kubectl::New,
        kubeconfig: house.kubeconfig(name, who),
        prefix: String::new(),
        namespace: "default".to_owned(),
    }
}

#[tokio::test]
async fn a_stranger_cannot_tell_which_clusters_exist() {
    let Some(house) = house().await else { return };
    let stranger = house.server.admin_client().unwrap().with_token(STRANGER.0);
    let mut answers = Vec::new();
    for name in [NAMES[0], "no-such-cluster"] {
        // Of a refused discovery kubectl shows the reason only, whoever refused it.
        let ended = kubectl(house, name, STRANGER).run(&["get", "pods"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("Error from server (Forbidden)"), "{}", ended.stderr);
        let answer = stranger.get(&format!("/clusters/{name}/api/v1/pods")).await.unwrap();
        assert_eq!(answer.code, StatusCode::FORBIDDEN);
        assert!(answer.body.contains("cannot get resource"), "{}", answer.body);
        answers.push(answer.body.replace(name, "NAME"));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn the_header_names_a_cluster_as_the_path_does() {
    let Some(house) = house().await else { return };
    let client = alice(house);
    for (name, cluster) in NAMES.into_iter().zip(house.clusters) {
        let connections = [client.connect().await.unwrap(), client.connect_http2().await.unwrap()];
        for mut connection in connections {
            let mut request = client.request(Method::GET, "/api/v1/nodes?limit=1");
            request.headers_mut().insert("x-cluster-id", HeaderValue::from_static(name));
            let response = connection.send(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let nodes: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(nodes["kind"], "NodeList");
            let straight = cluster.plane.api().get("/api/v1/nodes?limit=1").await.unwrap();
            assert_eq!(nodes["items"][0]["metadata"]["uid"], straight["items"][0]["metadata"]["uid"]);
        }
    }
}

/// By itself a kubectl talks HTTP/2 to the gateway, and HTTP/1.1 where it is told to: Go says which on its stderr.
#[tokio::test]
async fn kubectl_talks_http2_or_http1() {
    let Some(house) = house().await else { return };
    let mut kube = kubectl(house, NAMES[0], ALICE);
    let get = ["get", "nodes", "-o", "name"];
    for version in kube.tools.kubectls() {
        kube.version = version;
        let two = kube.run_in(&[("GODEBUG", "http2debug=1")], &get).await;
        assert_eq!((two.code, two.text().as_str()), (Some(0), "node/node-1\n"), "{two:?}");
        assert!(two.stderr.contains("http2: Transport received DATA"), "{two:?}");
        let one = kube.run_in(&[("GODEBUG", "http2debug=1"), ("DISABLE_HTTP2", "true")], &get).await;
        assert_eq!((one.code, one.text().as_str()), (Some(0), "node/node-1\n"), "{one:?}");
        assert!(!one.stderr.contains("http2: Transport received"), "{one:?}");
    }
}

#[tokio::test]
async fn no_request_is_the_agents_own_but_its_probes() {
    let Some(house) = house().await else { return };
    for (name, cluster) in NAMES.into_iter().zip(house.clusters) {
        let answer = alice(house).get(&format!("/clusters/{name}/api/v1/namespaces")).await.unwrap();
        assert_eq!(answer.code, StatusCode::OK);
        let events = cluster.plane.audit_events(AGENT).unwrap();
        let own = events.iter().filter(|event| event["user"]["username"] == AGENT);
        let mut impersonated = 0;
        for event in own {
            if event["impersonatedUser"]["username"].is_string() {
                impersonated += 1;
                assert_ne!(event["impersonatedUser"]["username"], AGENT);
                continue;
            }
            let path = event["requestURI"].as_str().unwrap();
            assert!(event["verb"] == "get" && PROBES.contains(&path), "the agent asked for {path} as itself: {event}");
        }
        assert!(impersonated > 0);
    }
}

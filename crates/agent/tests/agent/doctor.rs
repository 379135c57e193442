//! The doctor: each thing that is wrong is found, named by its check and told with a remedy.

use std::time::Duration;

use moorline_agent::{RawConfig, Surroundings, doctor};
use moorline_ca::Authority;
use moorline_model::{Report, Verdict};
use moorline_testkit::Refusing;
use serde_json::json;

use crate::{
    api::Api,
    bench::{now, spawn},
    hub::Hub,
    keeping::SECRET,
};

async fn examine(raw: &RawConfig) -> Report {
    let surroundings = Surroundings { variable: &|_| None, service_account: "/nowhere".into(), now: now() };
    doctor::examine_in(raw, &surroundings).await
}

fn verdict(report: &Report, check: &str) -> Verdict {
    let finding = report.findings.iter().find(|finding| finding.check == check);
    finding.unwrap_or_else(|| panic!("no {check} in\n{report}")).verdict
}

async fn world() -> (Hub, Api, RawConfig) {
    let (hub, api) = (Hub::start().await, Api::start().await);
    api.connect_to(&format!("127.0.0.1:{}", hub.port()));
    api.apply(SECRET, hub.secret());
    api.apply("/api/v1/namespaces/kube-system", json!({ "metadata": {} }));
    let raw = RawConfig {
        management_cluster_addr: None,
        management_cluster_connection: Some("default".to_owned()),
        identity_secret: Some("moorline/moorline-agent-certs".to_owned()),
        ..hub.raw(&api.url())
    };
    (hub, api, raw)
}

#[tokio::test]
async fn services_that_cannot_be_offered_are_found() {
    let (hub, _api, mut raw) = world().await;
    spawn(async move {
        loop {
            drop(hub.handshake().await);
        }
    });
    assert_eq!(verdict(&examine(&raw).await, "services"), Verdict::Skipped);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    raw.services = vec!["store=127.0.0.1:0".to_owned(), format!("logs={}", taken.local_addr().unwrap())];
    let report = examine(&raw).await;
    assert_eq!(verdict(&report, "services"), Verdict::Ok, "{report}");
    // Reserved for documentation, and so on no machine.
    raw.services = vec!["store=192.0.2.1:9200".to_owned()];
    let report = examine(&raw).await;
    assert_eq!(verdict(&report, "services"), Verdict::Fail, "{report}");
}

#[tokio::test]
async fn where_all_is_well_nothing_fails() {
    let (hub, api, raw) = world().await;
    spawn(async move { hub.handshake().await });
    let report = examine(&raw).await;
    assert!(!report.failed(), "{report}");
    for check in
        ["kube-apiserver", "clock", "permission-impersonate-users", "permission-secret", "dns", "tls-chain", "tunnel"]
    {
        assert_eq!(verdict(&report, check), Verdict::Ok, "{check} in\n{report}");
    }
    // The certificate of these tests lives for a day.
    assert_eq!(verdict(&report, "certificate-expiry"), Verdict::Warn, "{report}");
    assert_eq!(verdict(&report, "proxy"), Verdict::Skipped);
    let text = report.to_string();
    assert!(!text.contains("the-agents-token") && !text.contains("PRIVATE"), "{text}");
    assert!(api.impersonated("/").iter().all(Option::is_none));
}

#[tokio::test]
async fn what_is_wrong_is_found_with_its_remedy() {
    let (hub, api, raw) = world().await;
    // Another authority than that of the server that answers, a right that is missing.
    let stranger = Authority::generate("stranger", now(), Duration::from_secs(86_400)).unwrap();
    hub.install(&stranger);
    api.apply(SECRET, hub.secret());
    api.deny("groups");
    spawn(async move { hub.handshake().await });
    let report = examine(&raw).await;
    assert!(report.failed());
    for (check, wanted) in [
        ("permission-impersonate-users", Verdict::Ok),
        ("permission-impersonate-groups", Verdict::Fail),
        ("dns", Verdict::Ok),
        ("tcp", Verdict::Ok),
        ("tls-chain", Verdict::Fail),
        ("server-name", Verdict::Skipped),
        ("tunnel", Verdict::Skipped),
    ] {
        assert_eq!(verdict(&report, check), wanted, "{check} in\n{report}");
    }
    let chain = report.findings.iter().find(|finding| finding.check == "tls-chain").unwrap();
    assert!(chain.message.starts_with("UnknownAuthority: ") && !chain.remedy.is_empty(), "{report}");
}

#[tokio::test]
async fn without_a_cluster_or_a_server_the_rest_is_still_looked_at() {
    let (hub, _api, raw) = world().await;
    let nobody = Refusing::bind().unwrap();
    let raw = RawConfig { kube_apiserver: Some(format!("http://{}", nobody.address())), ..raw };
    let raw = RawConfig { management_cluster_addr: Some(nobody.address().to_string()), ..raw };
    let report = examine(&raw).await;
    assert_eq!(verdict(&report, "kube-apiserver"), Verdict::Fail, "{report}");
    assert_eq!(verdict(&report, "permissions"), Verdict::Skipped, "{report}");
    assert_eq!(verdict(&report, "tcp"), Verdict::Fail, "{report}");
    let raw = RawConfig { cert_dir: Some("/nowhere".into()), ..hub.raw("http://127.0.0.1:1") };
    let report = examine(&raw).await;
    assert_eq!((report.failed(), verdict(&report, "tunnel")), (true, Verdict::Skipped), "{report}");
    assert!(report.findings[0].message.contains("--cert-dir"), "{report}");
}

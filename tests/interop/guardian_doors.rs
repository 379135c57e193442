//! Who is let in as a Guardian, and who is not: nothing of this dialect opens a door of ours, or the other way round.

use http::StatusCode;
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use moorline_testkit::guardian::{Tls, connected, enrol, enrol_brought};
use moorline_testkit::house::{Agent, raw_agent, write_enrolment};

use crate::house::House;

/// Version 1, self-signed, without extensions, by the recipe of Calico's documentation; the key in PKCS#1.
const BROUGHT: (&str, &str) = (
    include_str!("../../crates/mtls/tests/fixtures/rsa-2048.crt"),
    include_str!("../../crates/mtls/tests/fixtures/rsa-2048.key"),
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls() {
    let house = House::start().await;
    for (name, tls, version) in [("east", Tls::V12, "TLS 1.2"), ("west", Tls::V13, "TLS 1.3")] {
        let Some(mut guardian) = house.guardian(name, |settings| settings.tls = Some(tls)).await else { return };
        let told = guardian.stand_in.event("connected").await.unwrap();
        assert_eq!(told, format!("{version} alpn=\"\" name=moorline-tunnel"));
        assert_eq!(house.user.get(&format!("/clusters/{name}/api/v1/pods")).await.unwrap().code, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_version_1_connects_when_it_is_registered_and_not_before() {
    let house = House::start().await;
    let files = tempfile::tempdir().unwrap();
    // Some Guardian has to be expected for the door to be there at all.
    enrol(&house.user, "west", files.path()).await.unwrap();
    for (name, text) in [("managed-cluster.crt", BROUGHT.0), ("managed-cluster.key", BROUGHT.1)] {
        moorline_process::write_private(&files.path().join(name), text.as_bytes()).unwrap();
    }
    let Some(guardian) = house.run(files, |_| {}).await else { return };
    house.metric_is("moorline_tunnel_refused_total", &["unknown"], |value| value >= 2.0).await;
    assert_eq!(house.server.metric("moorline_tunnel_sessions", &[]).await.unwrap(), 0.0);

    // The same one, which tries on, is let in as soon as its certificate is known.
    let files = tempfile::tempdir().unwrap();
    enrol_brought(&house.user, "east", BROUGHT, files.path()).await.unwrap();
    connected(&house.user, "east").await.unwrap();
    assert!(guardian.stand_in.lines().iter().any(|line| line.starts_with("connected TLS 1.3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_the_door_of_its_own_dialect_only() {
    let house = House::start().await;
    let Some(guardian) = house.guardian("west", |_| {}).await else { return };

    // Guardian's certificate in the hands of our agent: the same authority signed it.
    let wrong = house.refusals().await;
    let mut raw = raw_agent(guardian.files(), house.server.tunnel, &house.upstream.url());
    raw.kube_token_file = Some(guardian.files().join("token"));
    let app = moorline_agent::App::build(moorline_agent::Config::from_raw(&raw).unwrap()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(app.run(async move { drop(stopped.await) }));
    eventually(LIMIT, async || (house.refusals().await > wrong).then_some(())).await.unwrap();
    drop(stop);
    running.join_all().await;

    // Our agent's certificate in the hands of a Guardian.
    let created = house.server.create("east").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    write_enrolment(&created, files.path()).unwrap();
    let wrong = house.refusals().await;
    let Some(_thief) = house.run(files, |_| {}).await else { return };
    eventually(LIMIT, async || (house.refusals().await > wrong + 1.0).then_some(())).await.unwrap();
    let answer = house.user.get("/clusters/east/api/v1").await.unwrap();
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);

    // And each in its own hands, side by side.
    let _agent = Agent::start(&created, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    house.server.connected("east").await.unwrap();
    assert_eq!(house.user.get("/clusters/west/api/v1").await.unwrap().code, StatusCode::OK);
    assert_eq!(house.server.metric("moorline_tunnel_sessions", &[]).await.unwrap(), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_guardian_expected_there_is_no_such_door() {
    let house = House::start().await;
    let created = house.server.create("east").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    write_enrolment(&created, files.path()).unwrap();
    let Some(mut guardian) = house.run(files, |_| {}).await else { return };
    let end = guardian.stand_in.event("ended").await;
    assert!(end.is_ok() || guardian.stand_in.lines().iter().any(|line| line.starts_with("failed")), "{end:?}");
    assert!(house.refusals().await > 0.0);
    assert_eq!(house.server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap(), 0.0);
}

//! A cluster goes from our own agent to Guardian and back: at each moment one of the two is connected.

use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, ManagedCluster, paths};
use moorline_model::Dialect;
use moorline_testkit::client::{LIMIT, full};
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, write_enrolment};

use crate::house::House;

/// The dialects of the certificates that stand for `east`.
async fn stands(house: &House) -> Vec<Dialect> {
    let answer = house.user.get("/v1/clusters/east").await.unwrap();
    let cluster: ManagedCluster = serde_json::from_str(&answer.body).unwrap();
    cluster.status.certificates.iter().map(|certificate| certificate.dialect).collect()
}

async fn migrate(house: &House, dialect: Dialect) -> CreatedCluster {
    let (path, body) = (paths::migration(&"east".parse().unwrap()), format!("{{\"dialect\":\"{dialect}\"}}"));
    let answer = house.user.ask(house.user.request_with(Method::POST, &path, full(body))).await.unwrap();
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

async fn settled(house: &House, dialect: Dialect) {
    let alone = eventually(LIMIT, async || (stands(house).await == [dialect]).then_some(())).await;
    assert!(alone.is_ok(), "not alone after a while: {:?}", stands(house).await);
}

async fn gets_through(house: &House) {
    let answer = house.user.get("/clusters/east/api/v1/pods").await.unwrap();
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_our_agent_to_guardian_and_back() {
    let house = House::start_with(|raw| raw.check_interval = Some("300ms".to_owned())).await;
    let created = house.server.create("east").await.unwrap();
    let agent = Agent::start(&created, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    house.server.connected("east").await.unwrap();

    let there = migrate(&house, Dialect::Guardian).await;
    assert_eq!(stands(&house).await, [Dialect::Moorline, Dialect::Guardian]);
    gets_through(&house).await;
    let files = tempfile::tempdir().unwrap();
    write_enrolment(&there, files.path()).unwrap();
    let Some(mut guardian) = house.run(files, |_| {}).await else { return };
    guardian.stand_in.event("connected").await.unwrap();
    settled(&house, Dialect::Guardian).await;
    gets_through(&house).await;
    drop(agent);

    // The answer to the first is lost: what it handed out lets nobody in, and Guardian stays.
    migrate(&house, Dialect::Moorline).await;
    let back = migrate(&house, Dialect::Moorline).await;
    assert_eq!(stands(&house).await, [Dialect::Guardian, Dialect::Moorline]);
    gets_through(&house).await;
    let _agent = Agent::start(&back, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    settled(&house, Dialect::Moorline).await;
    guardian.stand_in.event("ended").await.unwrap();
    gets_through(&house).await;
    let refused = house.refusals().await;
    eventually(LIMIT, async || (house.refusals().await > refused + 1.0).then_some(())).await.unwrap();
    assert_eq!(house.server.metric("moorline_tunnel_sessions", &[]).await.unwrap(), 1.0, "Guardian dials on in vain");
}

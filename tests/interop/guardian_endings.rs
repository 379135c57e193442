//! Every way in which Guardian's sessions and streams end: what waited is told, what comes after works, nothing is left.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_server::RawConfig;
use moorline_testkit::client::LIMIT;
use moorline_testkit::guardian::{Settings, Signal, connected};
use moorline_testkit::house::Server;
use moorline_testkit::{eventually, guardian};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::guardian_requests::upgrade;
use crate::house::House;
use crate::peer::within;

/// A watch, a switched connection and a request that hangs, all at once.
struct Busy {
    watch: hyper::body::Incoming,
    switched: moorline_mtls::ClientStream<tokio::net::TcpStream>,
    hanging: tokio::task::JoinSet<anyhow::Result<moorline_testkit::client::Answer>>,
}

impl Busy {
    async fn start(house: &House) -> Self {
        let watch = house.user.request(Method::GET, "/clusters/east/api/v1/watch/ticks");
        let mut watch = house.user.send(watch).await.unwrap().into_body();
        within(watch.frame()).await.unwrap().unwrap();
        let (switched, head) = upgrade(house, "/clusters/east/api/v1/watch/echo", b"").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut hanging = tokio::task::JoinSet::new();
        let user = house.user.clone();
        hanging.spawn(async move { user.get("/clusters/east/api/v1/watch/hang").await });
        eventually(LIMIT, async || (house.upstream.running() == 3).then_some(())).await.unwrap();
        Self { watch, switched, hanging }
    }

    /// All of it ends, whether or not anybody is left to say so.
    async fn comes_to_an_end(mut self) {
        drop(within(self.hanging.join_next()).await);
        drop(within(self.watch.collect()).await);
        drop(within(tokio::io::copy(&mut self.switched, &mut tokio::io::sink())).await);
    }

    /// All of it ends, and who waited is told.
    async fn ends(mut self) {
        let answer = within(self.hanging.join_next()).await.unwrap().unwrap().unwrap();
        let told = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        assert!(told.contains(&answer.code), "{} {}", answer.code, answer.body);
        assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
        drop(within(self.watch.collect()).await);
        drop(within(tokio::io::copy(&mut self.switched, &mut tokio::io::sink())).await);
    }
}

async fn welcomed(house: &House) -> f64 {
    house.server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap()
}

/// Waits until nothing runs, and requests get through on one session.
async fn at_rest(house: &House) {
    connected(&house.user, "east").await.unwrap();
    eventually(LIMIT, async || (house.upstream.running() == 0).then_some(())).await.unwrap();
    house.metric_is("moorline_tunnel_sessions", &[], |value| value == 1.0).await;
    for gauge in ["moorline_gateway_requests_running", "moorline_gateway_upgraded", "moorline_gateway_connections"] {
        house.metric_is(gauge, &[], |value| value == 0.0).await;
    }
    let parted = [r#"task="tunnel-farewell""#];
    house.metric_is("moorline_tasks", &parted, |value| value == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_guardian_ends() {
    let house = House::start().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    at_rest(&house).await;
    let before = house.tasks().await;
    for ending in ["hang-up", "reset", "hang-up", "reset"] {
        let (busy, sessions) = (Busy::start(&house).await, welcomed(&house).await);
        guardian.stand_in.command(ending).await.unwrap();
        busy.ends().await;
        house.metric_is("moorline_tunnel_sessions_welcomed_total", &[], |value| value > sessions).await;
        at_rest(&house).await;
        same_tasks(&house, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_guardian_ends() {
    let house = House::patient(|_| {}).await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    at_rest(&house).await;
    for ending in ["half-close", "close-streams"] {
        let busy = Busy::start(&house).await;
        assert_ne!(guardian.stand_in.command(ending).await.unwrap(), "0");
        busy.ends().await;
        at_rest(&house).await;
    }
    // Ended before they have begun: one request may fail, none may hang, and the next ones work.
    guardian.stand_in.command("slam 5").await.unwrap();
    for _ in 0..8 {
        let (_socket, head) = upgrade(&house, "/clusters/east/api/v1/watch/echo", b"").await;
        assert!(head.starts_with("HTTP/1.1 101") || head.starts_with("HTTP/1.1 50"), "{head}");
    }
    at_rest(&house).await;
    assert_eq!(welcomed(&house).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_away_lets_what_runs_finish() {
    let house = House::start().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    let watch = house.user.request(Method::GET, "/clusters/east/api/v1/watch/bytes/30000000");
    let answer = house.user.send(watch).await.unwrap();
    guardian.stand_in.command("go-away").await.unwrap();
    let body = within(answer.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body.len(), 30_000_000);
    house.metric_is("moorline_tunnel_sessions_welcomed_total", &[], |value| value == 2.0).await;
    at_rest(&house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guardian_that_is_killed_and_restarted() {
    let house = House::start().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    at_rest(&house).await;
    let before = house.tasks().await;
    for _ in 0..3 {
        let busy = Busy::start(&house).await;
        guardian.restart().await;
        busy.ends().await;
        at_rest(&house).await;
    }
    same_tasks(&house, &before).await;
}

/// Frozen as a process, and frozen as a reader of its socket only, whose pings go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guardian_that_freezes_is_found_and_comes_back() {
    let house = House::start().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    at_rest(&house).await;
    for process in [true, false] {
        let (busy, sessions) = (Busy::start(&house).await, welcomed(&house).await);
        if process {
            guardian.stand_in.signal(Signal::Stop).unwrap();
        } else {
            guardian.stand_in.command("freeze").await.unwrap();
        }
        busy.ends().await;
        if process {
            let answer = house.user.get("/clusters/east/api/v1").await.unwrap();
            assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
            guardian.stand_in.signal(Signal::Continue).unwrap();
        } else {
            guardian.stand_in.command("thaw").await.unwrap();
        }
        house.metric_is("moorline_tunnel_sessions_welcomed_total", &[], |value| value > sessions).await;
        at_rest(&house).await;
    }
}

/// What a user says to a command that has ended has nowhere to go, and does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_a_command_that_has_ended_does_not_wait() {
    let house = House::start().await;
    let Some(_guardian) = house.guardian("east", |_| {}).await else { return };
    let (socket, head) = upgrade(&house, "/clusters/east/api/v1/watch/break", b"go on").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (mut read, mut write) = tokio::io::split(socket);
    let bytes = vec![0; 16 << 20];
    // How both end is not said: in order, or broken off.
    let talking = async { drop(write.write_all(&bytes).await) };
    let listening = async { drop(read.read_to_end(&mut Vec::new()).await) };
    within(async { tokio::join!(talking, listening) }).await;
    house.metric_is("moorline_gateway_upgraded", &[], |value| value == 0.0).await;
    at_rest(&house).await;
}

/// Each end that the server makes is one that Guardians of today survive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guardian_of_today_survives_a_restart_of_the_server() {
    let brief = |raw: &mut RawConfig| raw.drain_grace = Some("300ms".to_owned());
    let mut house = House::start_with(|raw| {
        brief(raw);
        // Of its own: no other test takes the port while nobody listens there.
        raw.tunnel_listen = Some("127.1.0.4:0".to_owned());
    })
    .await;
    let mortal = |settings: &mut Settings| settings.mortal = true;
    let Some(mut guardian) = house.guardian("east", mortal).await else { return };
    let tunnel = house.server.tunnel;
    for _ in 0..3 {
        let busy = Busy::start(&house).await;
        let (_outcome, directory) = house.server.ended().await.unwrap();
        busy.comes_to_an_end().await;
        assert_eq!(guardian.stand_in.event("ended").await.unwrap(), "EOF");
        let listening = |raw: &mut RawConfig| {
            brief(raw);
            raw.tunnel_listen = Some(tunnel.to_string());
        };
        house.server = Server::start_in(directory, listening).await.unwrap();
        house.user = house.server.admin_client().unwrap();
        connected(&house.user, "east").await.unwrap();
    }
}

/// A returning Guardian never waits for the session that it has lost without knowing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_session_wins() {
    let house = House::start().await;
    let Some(guardian) = house.guardian("east", |_| {}).await else { return };
    guardian.stand_in.signal(Signal::Stop).unwrap();
    let settings = guardian.settings.clone();
    let second = guardian::StandIn::start_or_skip(&settings).await.unwrap().unwrap();
    house.metric_is("moorline_tunnel_sessions_welcomed_total", &[], |value| value == 2.0).await;
    tokio::time::timeout(Duration::from_secs(10), connected(&house.user, "east")).await.unwrap().unwrap();
    house.metric_is("moorline_tunnel_sessions", &[], |value| value == 1.0).await;
    drop(second);
    drop(guardian);
}

async fn same_tasks(house: &House, before: &[String]) {
    let mut now = Vec::new();
    let same = eventually(LIMIT, || async { (house.tasks().await == before).then_some(()) }).await;
    if same.is_err() {
        now = house.tasks().await;
    }
    assert!(same.is_ok(), "{before:#?} became {now:#?}");
}

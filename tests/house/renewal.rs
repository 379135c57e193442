//! Certificates of agents follow one another while requests run: nothing is lost, whoever dies when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::client::{Client, LIMIT};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

use super::people::until;

/// Requests a second.
const RATE: u32 = 50;

/// For how long there is load, in seconds, and how long a certificate lives: `MOORLINE_RENEWAL_SECONDS=600
/// MOORLINE_RENEWAL_LIFE=60` for an afternoon.
fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is for whoever starts it")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the requests of a load came to.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
}

impl Load {
    /// Starts [`RATE`] requests a second over a few connections, and one watch; each failure ends the test.
    fn start(user: &Client) -> (Arc<Self>, JoinSet<()>) {
        const CALLERS: u32 = 5;
        let load = Arc::new(Self::default());
        let mut running = JoinSet::new();
        for _ in 0..CALLERS {
            let (user, load) = (user.clone(), Arc::clone(&load));
            running.spawn(async move {
                let mut connection = user.connect().await.unwrap();
                let mut pace = tokio::time::interval(Duration::from_secs(1) * CALLERS / RATE);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !load.stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let response =
                        connection.send(user.request(Method::GET, "/clusters/east/bytes/4096")).await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 4096);
                    load.served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (user, watching) = (user.clone(), Arc::clone(&load));
        running.spawn(async move {
            let request = user.request(Method::GET, "/clusters/east/api/v1/watch/ticks?watch=true");
            let mut watch = user.send(request).await.unwrap().into_body();
            while !watching.stop.load(Ordering::Relaxed) {
                let frame = tokio::time::timeout(LIMIT, watch.frame()).await.unwrap();
                frame.unwrap().unwrap();
            }
        });
        (load, running)
    }
}

#[tokio::test]
async fn f08_certificates_are_renewed_under_load_and_nothing_is_lost() {
    let _logs = Logs::capture();
    let (seconds, life) = (setting("MOORLINE_RENEWAL_SECONDS", 30), setting("MOORLINE_RENEWAL_LIFE", 10));
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start_with(|raw| raw.agent_certificate_life = Some(format!("{life}s"))).await.unwrap();
    let created = server.create("east").await.unwrap();
    let agent = Agent::start(&created, server.tunnel, &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    let (load, mut running) = Load::start(&server.admin_client().unwrap());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(running.try_join_next().is_none(), "a caller gave up");
    }
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let renewals = agent.metric("moorline_agent_certificate_renewals_total", &["ok"]).await.unwrap();
    assert!(renewals >= 2.0, "{renewals}");
    let sessions = server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap();
    assert!(sessions >= renewals, "each certificate was connected with: {sessions} for {renewals}");
    // One connects, one may be in the making, and one is the watch's, which stayed where it was.
    until("older certificates go", async || server.cluster("east").await.unwrap().status.fingerprints.len() <= 2).await;
    let served = load.served.load(Ordering::Relaxed);
    println!("{served} requests, {renewals} renewals, {sessions} sessions in {seconds} s");
    assert!(served as u64 > seconds * 5, "{served}");
}

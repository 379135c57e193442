//! What the house lives through: silence on the way, a server that ends and comes back, and ending under load.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, BEAT, Server};
use moorline_testkit::link::Link;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

/// Found after three missed beats; the rest is for a busy machine.
const FOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn f03_a_silently_cut_link_is_found_and_what_ran_on_it_ends() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let link = Link::to(server.tunnel).await.unwrap();
    let created = server.create("east").await.unwrap();
    let _agent = Agent::start(&created, link.address(), &upstream.url(), |_| {}).unwrap();
    server.connected("east").await.unwrap();
    let user = server.admin_client().unwrap();
    let watch = user.send(user.request(Method::GET, "/clusters/east/api/v1/watch/ticks")).await.unwrap();
    let mut waiting = JoinSet::new();
    let caller = user.clone();
    waiting.spawn(async move { caller.get("/clusters/east/hang").await });
    eventually(LIMIT, async || (upstream.running() == 2).then_some(())).await.unwrap();

    let cut = Instant::now();
    link.fall_silent();
    let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
    let told = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    assert!(told.contains(&answer.code), "{}", answer.code);
    assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
    let ended = tokio::time::timeout(FOUND, watch.into_body().collect()).await;
    assert!(ended.is_ok(), "the watch goes on over a dead link");
    assert!(cut.elapsed() >= BEAT && cut.elapsed() < FOUND, "{:?}", cut.elapsed());
    let after = user.get("/clusters/east/api").await.unwrap();
    assert_eq!(after.code, StatusCode::SERVICE_UNAVAILABLE, "{}", after.body);
    assert!(after.headers.contains_key("retry-after"));

    // The link heals, and so does the house, by itself.
    link.set(moorline_testkit::link::Weather::default());
    link.cut();
    server.connected("east").await.unwrap();
}

#[tokio::test]
async fn f06_agents_come_back_to_a_server_that_was_restarted() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    // Of its own: no other test takes the port while nobody listens there.
    let first = Server::start_with(|raw| raw.tunnel_listen = Some("127.1.0.2:0".to_owned())).await.unwrap();
    let tunnel = first.tunnel;
    let mut agents = Vec::new();
    for name in ["east", "west", "north"] {
        agents.push(first.agent(name, &upstream.url()).await.unwrap());
    }
    let (_outcome, directory) = first.ended().await.unwrap();
    let second = Server::start_in(directory, |raw| raw.tunnel_listen = Some(tunnel.to_string())).await.unwrap();
    for name in ["east", "west", "north"] {
        second.connected(name).await.unwrap();
    }
}

#[tokio::test]
async fn ending_under_load_loses_nothing_that_was_begun() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let mut server = Server::start().await.unwrap();
    let _agent = server.agent("east", &upstream.url()).await.unwrap();
    let user = server.admin_client().unwrap();
    let slow = user.send(user.request(Method::GET, "/clusters/east/bytes/8388608")).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let user = user.clone();
        callers.spawn(async move {
            let mut served = 0;
            // Until the door is closed: each request is answered whole, or its connection was never accepted.
            loop {
                let Ok(mut connection) = user.connect().await else { return served };
                for _ in 0..20 {
                    let Ok(response) = connection.send(user.request(Method::GET, "/clusters/east/bytes/4096")).await
                    else {
                        break;
                    };
                    let code = response.status();
                    let body = response.into_body().collect().await.expect("a begun answer is whole").to_bytes();
                    assert!(code == StatusCode::SERVICE_UNAVAILABLE || (code == StatusCode::OK && body.len() == 4096));
                    served += 1;
                    if code == StatusCode::SERVICE_UNAVAILABLE {
                        return served;
                    }
                }
            }
        });
    }
    eventually(LIMIT, async || (upstream.seen("/bytes/4096").len() > 50).then_some(())).await.unwrap();
    server.stop();
    let whole = slow.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(whole.len(), 8 << 20, "a running answer is finished");
    let served: i32 = callers.join_all().await.into_iter().sum();
    assert!(served > 50, "{served}");
    let (outcome, _directory) = server.ended().await.unwrap();
    assert_eq!(outcome.cut, 0, "nothing had to be cut");
}

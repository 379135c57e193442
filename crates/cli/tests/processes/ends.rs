//! SIGTERM under load: what was accepted is answered whole, what comes later is told to come again, and both programs
//! end by themselves with code 0.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::{client::Client, upstream::Upstream};
use tokio::task::JoinSet;

use super::house::{Agent, Server, until};

/// The grace of these houses, and what follows it.
const GRACE: Duration = Duration::from_secs(25);

const SIZE: usize = 64 * 1024;

/// What callers have seen.
#[derive(Debug, Default)]
struct Tally {
    served: usize,
    told_to_come_again: usize,
}

/// Callers that ask until they are told to stop, or their server is gone. Every answer that has begun must be whole, and
/// a connection may end only between two requests.
fn load(user: &Client, stop: &Arc<AtomicBool>) -> JoinSet<Tally> {
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (user, stop) = (user.clone(), Arc::clone(stop));
        callers.spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let Ok(mut connection) = user.connect().await else { break };
                for _ in 0..20 {
                    let request = user.request(Method::GET, &format!("/clusters/east/bytes/{SIZE}"));
                    // Refused before its head was read: not accepted.
                    let Ok(response) = connection.send(request).await else { break };
                    let code = response.status();
                    let body = response.into_body().collect().await.expect("a begun answer is whole").to_bytes();
                    match code {
                        StatusCode::OK => {
                            assert_eq!(body.len(), SIZE);
                            tally.served += 1;
                        }
                        StatusCode::SERVICE_UNAVAILABLE => tally.told_to_come_again += 1,
                        other => panic!("{other} {body:?}"),
                    }
                }
            }
            tally
        });
    }
    callers
}

#[tokio::test]
async fn a_terminated_server_loses_no_request_that_it_accepted() {
    let (mut server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let mut agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    let (user, stop) = (server.user(), Arc::new(AtomicBool::new(false)));
    // Accepted, and its answer has not begun when the signal comes.
    let slow = user.send(user.request(Method::GET, "/clusters/east/bytes/16777216")).await.unwrap();
    let callers = load(&user, &stop);
    until("load", async || upstream.seen(&format!("/bytes/{SIZE}")).len() > 100).await;
    server.program.signal("TERM");
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), 16 << 20);
    assert_eq!(server.program.ended(GRACE).await, Some(0));
    stop.store(true, Ordering::Relaxed);
    let served: usize = callers.join_all().await.iter().map(|tally| tally.served).sum();
    assert!(served > 100, "{served}");
    // Whatever reached the cluster was answered to its user.
    assert_eq!(upstream.seen(&format!("/bytes/{SIZE}")).len(), served);
    agent.program.says(&["the server sends this session away", "draining"]).await;
    agent.program.signal("TERM");
    assert_eq!(agent.program.ended(GRACE).await, Some(0), "an agent without a server ends as well");
}

#[tokio::test]
async fn a_terminated_agent_finishes_what_runs_and_hands_over() {
    let (mut server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let created = server.create("east").await;
    let mut first = Agent::start(&created, server.tunnel, &upstream).await;
    server.connected("east").await;
    let (user, stop) = (server.user(), Arc::new(AtomicBool::new(false)));
    let slow = user.send(user.request(Method::GET, "/clusters/east/bytes/16777216")).await.unwrap();
    let second = Agent::start(&created, server.tunnel, &upstream).await;
    until("both serve", async || server.metric("moorline_tunnel_sessions").await == 2.0).await;
    let callers = load(&user, &stop);
    until("load", async || upstream.seen(&format!("/bytes/{SIZE}")).len() > 100).await;
    first.program.signal("TERM");
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), 16 << 20);
    assert_eq!(first.program.ended(GRACE).await, Some(0));
    let then = upstream.seen(&format!("/bytes/{SIZE}")).len();
    until("load goes on", async || upstream.seen(&format!("/bytes/{SIZE}")).len() > then + 100).await;
    stop.store(true, Ordering::Relaxed);
    for tally in callers.join_all().await {
        assert!(tally.served > 0 && tally.told_to_come_again == 0, "{tally:?}");
    }
    drop(second);
    server.program.signal("TERM");
    assert_eq!(server.program.ended(GRACE).await, Some(0));
}

#[tokio::test]
async fn the_last_agent_that_ends_leaves_503_and_no_broken_answer() {
    let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let mut agent = Agent::start(&server.create("east").await, server.tunnel, &upstream).await;
    server.connected("east").await;
    let (user, stop) = (server.user(), Arc::new(AtomicBool::new(false)));
    let callers = load(&user, &stop);
    until("load", async || upstream.seen(&format!("/bytes/{SIZE}")).len() > 100).await;
    agent.program.signal("TERM");
    assert_eq!(agent.program.ended(GRACE).await, Some(0));
    stop.store(true, Ordering::Relaxed);
    let tallies = callers.join_all().await;
    let (served, told) =
        tallies.iter().fold((0, 0), |(served, told), tally| (served + tally.served, told + tally.told_to_come_again));
    assert!(served > 100 && told > 0, "{tallies:?}");
}

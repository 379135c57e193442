//! The way out: what runs may end, what comes is told to come again (F7).

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use moorline_process::Phase;

use super::{
    house::House,
    user::{body, status},
};

#[tokio::test(start_paused = true)]
async fn running_requests_finish_and_connections_close() {
    let mut house = House::new();
    let (mut one, mut two, mut idle) = (house.h1().await, house.h2().await, house.h1().await);
    let (response, ()) = tokio::join!(idle.get("/clusters/east/api"), async { house.agent.next().await.ok("x") });
    assert!(!response.headers().contains_key("connection"));
    drop(body(response).await);
    let path = "/clusters/east/api";
    let (first, one_pieces) =
        tokio::join!(one.get(path), async { house.agent.next().await.stream(Response::builder()).0 });
    let (second, two_pieces) =
        tokio::join!(two.get(path), async { house.agent.next().await.stream(Response::builder()).0 });
    let (shutdown, state, mut agent) = house.shut_down();
    state.phases.reached(Phase::NotReady).await;
    let (response, ()) = tokio::join!(idle.get(path), async { agent.next().await.ok("still served") });
    assert_eq!(response.headers()["connection"], "close", "and asked to go elsewhere");
    assert_eq!(body(response).await, "still served");
    state.phases.reached(Phase::Draining).await;
    one_pieces.send("one").await;
    two_pieces.send("two").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop((one_pieces, two_pieces));
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "one");
    assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), "two");
    drop((one, two, idle, agent));
    let outcome = shutdown.await.unwrap();
    assert_eq!(outcome.cut, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_is_told_so() {
    let mut house = House::new();
    let mut user = house.h2().await;
    // A log that is followed lasts longer than our patience.
    let (log, _pieces) = tokio::join!(user.get("/clusters/east/api/v1/namespaces/a/pods/b/log?follow=true"), async {
        house.agent.next().await.stream(Response::builder())
    });
    let served = house.served();
    let shared = std::sync::Arc::clone(&house.shared);
    let (client, gateway) = tokio::io::duplex(4096);
    let (shutdown, state, _agent) = house.shut_down();
    state.phases.reached(Phase::Draining).await;
    // A connection whose handshake ended in the last moment.
    let serving = super::super::listener::serve_h1(gateway, served, &shared);
    let asking = async {
        let mut late = super::user::User::h1(client, &state.tasks).await;
        late.get("/clusters/east/api").await
    };
    let (response, ()) = tokio::join!(asking, serving);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(status(response).await["code"], 503);
    let outcome = shutdown.await.unwrap();
    assert_eq!(outcome.cut, 2, "the log and its connection");
    drop(log);
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_hung_up_on() {
    let house = House::new();
    let (_socket, serving) = house.raw();
    let begun = tokio::time::Instant::now();
    serving.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_between_two_events() {
    let mut house = House::new();
    let (mut one, mut two) = (house.h1().await, house.h2().await);
    let path = "/clusters/east/api/v1/pods?watch=true";
    let json = || Response::builder().header("content-type", "application/json");
    let (at_rest, resting) = tokio::join!(one.get(path), async { house.agent.next().await.stream(json()) });
    let (in_the_middle, writing) = tokio::join!(two.get(path), async { house.agent.next().await.stream(json()) });
    let (mut at_rest, mut in_the_middle) = (at_rest.into_body(), in_the_middle.into_body());
    resting.0.send("{event}\n").await;
    at_rest.frame().await.unwrap().unwrap();
    writing.0.send("{event").await;
    in_the_middle.frame().await.unwrap().unwrap();
    let (shutdown, state, agent) = house.shut_down();
    state.phases.reached(Phase::Draining).await;
    assert_eq!(at_rest.collect().await.unwrap().to_bytes(), "", "a clean end");
    resting.1.cancelled().await;
    writing.0.send("}\n").await;
    assert_eq!(in_the_middle.frame().await.unwrap().unwrap().into_data().unwrap(), "}\n");
    assert_eq!(in_the_middle.collect().await.unwrap().to_bytes(), "");
    writing.1.cancelled().await;
    drop((one, two, agent));
    assert_eq!(shutdown.await.unwrap().cut, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_a_silent_watch_is_not_idle_and_one_without_is() {
    let mut house = House::new();
    let mut user = house.h2().await;
    let path = "/clusters/east/api?watch=true";
    let (watch, pieces) = tokio::join!(user.get(path), async { house.agent.next().await.stream(Response::builder()) });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { house.agent.next().await.ok("x") });
    assert_eq!(body(response).await, "x");
    drop((watch, pieces));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(user.send(super::user::get("/clusters/east/api")).await.is_err(), "closed while idle");
}

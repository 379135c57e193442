//! Connections that are switched: bytes both ways, half-close, and answers that are no switch (F13, F14).

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    agent::text,
    house::House,
    user::{UserBody, ask, body, empty, status},
};

fn exec(protocol: &str) -> Request<UserBody> {
    ask("POST", "/clusters/east/api/v1/namespaces/a/pods/b/exec?command=sh")
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(empty())
        .unwrap()
}

fn switched(protocol: &str) -> Response<super::agent::AgentBody> {
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .header("x-moorline-secret", "x")
        .body(text(""))
        .unwrap()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_side_ends_on_its_own() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, agent) = tokio::join!(user.send(exec("SPDY/3.1")), async {
        let arrival = house.agent.next().await;
        assert_eq!(arrival.header("upgrade"), Some("SPDY/3.1"));
        assert_eq!(arrival.header("connection"), Some("Upgrade"));
        arrival.answer(switched("SPDY/3.1"))
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    assert!(!response.headers().contains_key("x-moorline-secret"));
    let (ours, theirs) = tokio::join!(hyper::upgrade::on(response), hyper::upgrade::on(agent));
    let (mut ours, mut theirs) = (TokioIo::new(ours.unwrap()), TokioIo::new(theirs.unwrap()));
    assert_eq!(house.shared.metrics.running.get(), 1, "an open shell is a running request");

    let big = vec![7_u8; 1024 * 1024];
    let mut got = vec![0; big.len()];
    let (written, read) = tokio::join!(ours.write_all(&big), theirs.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert_eq!(got, big);

    ours.shutdown().await.unwrap();
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0, "stdin has ended");
    theirs.write_all(b"the answer comes after").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut rest = String::new();
    ours.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "the answer comes after");
    house.settle().await;
    assert_eq!(house.shared.metrics.running.get(), 0);
    assert_eq!(house.pool.idle_count(), 0, "such a stream never comes back");
}

#[tokio::test]
async fn a_cut_on_either_side_is_a_cut_on_the_other() {
    let mut house = House::new();
    for user_cuts in [true, false] {
        let mut user = house.h1().await;
        let (response, agent) = tokio::join!(user.send(exec("websocket")), async {
            house.agent.next().await.answer(switched("websocket"))
        });
        let (ours, theirs) = tokio::join!(hyper::upgrade::on(response.unwrap()), hyper::upgrade::on(agent));
        let (mut ours, mut theirs) = (TokioIo::new(ours.unwrap()), TokioIo::new(theirs.unwrap()));
        if user_cuts {
            drop((ours, user));
            // A duplex pipe has no reset: the user's end shows as an end of input here.
            assert_eq!(theirs.read(&mut [0; 8]).await.unwrap_or(0), 0);
            drop(theirs);
        } else {
            ours.write_all(b"ping").await.unwrap();
            theirs.read_exact(&mut [0; 4]).await.unwrap();
            drop(theirs);
            assert_eq!(ours.read(&mut [0; 8]).await.unwrap_or(0), 0);
        }
        house.settle().await;
        assert_eq!(house.shared.metrics.upgraded.get(), 0);
        assert_eq!(house.shared.metrics.running.get(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_switch_arrives_whole() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.send(exec("SPDY/3.1")), async {
        let response = Response::builder().status(403).header("content-type", "text/plain").body(text("pods/exec: no"));
        house.agent.next().await.answer(response.unwrap());
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(body(response).await, "pods/exec: no");
    // The connection is as good as before.
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { house.agent.next().await.ok("x") });
    assert_eq!(body(response).await, "x");
}

#[tokio::test]
async fn only_what_was_asked_for_is_switched_to() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.send(exec("websocket")), async {
        drop(house.agent.next().await.answer(switched("h2c")));
    });
    assert_eq!(status(response.unwrap()).await["code"], 502);
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.send(exec("h2c")), async {
        let arrival = house.agent.next().await;
        assert_eq!((arrival.header("upgrade"), arrival.header("connection")), (None, None));
        arrival.ok("no switch");
    });
    assert_eq!(body(response.unwrap()).await, "no switch");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_nobody_answers_ends() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, _silent) = tokio::join!(user.send(exec("SPDY/3.1")), house.agent.next());
    assert_eq!(status(response.unwrap()).await["code"], 504);
    house.settle().await;
    assert_eq!(house.shared.metrics.running.get(), 0);
}

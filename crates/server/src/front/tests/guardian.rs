//! Requests to a cluster whose agent is Calico's Guardian: whose they are, by what they go, and what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    agent::text,
    house::House,
    user::{User, ask, body, empty, full, get, status},
};

const PIECE: &str = match std::str::from_utf8(&[b'x'; 8 * 1024]) {
    Ok(piece) => piece,
    Err(_) => unreachable!(),
};

#[tokio::test]
async fn a_request_is_its_users_and_nobody_elses() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let request = ask("GET", "/clusters/east/api/v1/pods?limit=5")
        .header("x-moorline-identity", "evil")
        .header("x-cluster-id", "east")
        .header("x-remote-user", "evil")
        .body(empty())
        .unwrap();
    let (response, ()) = tokio::join!(user.send(request), async {
        let arrival = house.agent.next().await;
        assert_eq!(arrival.request.version(), http::Version::HTTP_2);
        assert_eq!(arrival.request.uri().path_and_query().unwrap(), "/api/v1/pods?limit=5");
        let headers: BTreeSet<_> = arrival.request.headers().keys().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(headers, BTreeSet::from(["audit-id", "impersonate-group", "impersonate-user"].map(str::to_owned)));
        assert_eq!(
            (arrival.header("impersonate-user"), arrival.header("impersonate-group")),
            (Some("alice"), Some("dev"))
        );
        let answer = Response::builder().header("audit-id", "x").header("strict-transport-security", "max-age=9");
        arrival.answer(answer.body(text("pods")).unwrap());
    });
    let response = response.unwrap();
    assert!(!response.headers().contains_key("strict-transport-security"), "the cluster speaks for the gateway");
    assert_eq!(body(response).await, "pods");
}

#[tokio::test]
async fn what_guardian_does_not_carry_is_said() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    for (path, code) in [("/version", 404), ("/openapi/v2", 404), ("/api//v1", 400), ("/api/v1/a/../b", 400)] {
        let response = user.get(&format!("/clusters/east{path}")).await;
        assert_eq!(response.status(), code, "{path}");
        let status = status(response).await;
        assert!(status["message"].as_str().unwrap().contains("Guardian"), "{status}");
    }
    for (protocol, content, code) in [("websocket", "a body", 400), ("SPDY/3.1", "", 501)] {
        let mut user = house.h1().await;
        let exec = ask("POST", "/clusters/east/api/v1/namespaces/a/pods/b/exec")
            .header("connection", "Upgrade")
            .header("upgrade", protocol)
            .body(full(content))
            .unwrap();
        assert_eq!(user.send(exec).await.unwrap().status(), code);
    }
    assert!(!house.agent.has_more(), "nothing of it went anywhere");
}

#[tokio::test]
async fn what_it_says_of_itself_is_told_as_such() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    for (code, words) in [(502, "kube-apiserver cannot be reached"), (401, "the agent's own credential")] {
        let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
            house.agent.next().await.answer(Response::builder().status(code).body(text("")).unwrap());
        });
        let status = status(response).await;
        assert_eq!(status["code"], 502);
        assert!(status["message"].as_str().unwrap().contains(words), "{status}");
    }
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async {
        let arrival = house.agent.next().await;
        assert_eq!(arrival.request.uri().path(), "/api/", "Go would redirect to it");
        arrival.answer(
            Response::builder().status(502).header("audit-id", "x").body(text("an aggregated API's own")).unwrap(),
        );
    });
    assert_eq!((response.status().as_u16(), body(response).await.as_str()), (502, "an aggregated API's own"));
}

#[tokio::test]
async fn few_streams_carry_many_requests_and_the_rest_have_their_own() {
    const SHARED: usize = 64;
    const ALL: usize = 100;
    let mut house = House::guardian(|limits| {
        limits.max_requests_per_user = 4 * ALL;
        limits.max_requests_per_cluster = 4 * ALL;
    });
    let (mut streams, mut users, mut held) = (BTreeMap::new(), Vec::new(), Vec::new());
    let User::H2(sender) = house.h2().await else { panic!("HTTP/2 was asked for") };
    for _ in 0..ALL {
        let mut user = User::H2(sender.clone());
        users.push(house.tasks.spawn("user", async move { user.get("/clusters/east/api/v1/pods").await }));
        let arrival = house.agent.next().await;
        let (count, version) = streams.entry(arrival.stream).or_insert((0, arrival.request.version()));
        *count += 1;
        assert_eq!((*version, *count <= 16), (arrival.request.version(), true));
        held.push(arrival);
        // So that a connection that is being opened is there for the next.
        house.settle().await;
    }
    let shared = streams.values().filter(|(_, version)| *version == http::Version::HTTP_2);
    assert_eq!(shared.clone().count(), 4);
    assert_eq!(shared.map(|(count, _)| count).sum::<usize>(), SHARED);
    assert_eq!(streams.len(), 4 + ALL - SHARED);
    // Who hangs up is heard to, and makes room.
    let first = held.remove(0);
    users.remove(0).abort();
    tokio::time::timeout(Duration::from_secs(10), first.gone.cancelled()).await.unwrap();
    let mut late = User::H2(sender);
    let (response, ()) = tokio::join!(late.get("/clusters/east/api/v1/pods"), async {
        let arrival = house.agent.next().await;
        assert_eq!(arrival.stream, first.stream);
        arrival.ok("room");
    });
    assert_eq!(body(response).await, "room");
    for (arrival, user) in held.into_iter().zip(users) {
        arrival.ok("done");
        assert_eq!(body(user.await.unwrap()).await, "done");
    }
}

/// Go's proxy ends a stream behind its last bytes. Who counts bytes has them all by then, and is not to hang up.
#[tokio::test]
async fn an_answer_of_known_length_is_waited_for_to_its_end() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let (response, (pieces, gone)) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
        let (pieces, gone) = house.agent.next().await.stream(Response::builder().header("content-length", "8"));
        pieces.send("pods").await;
        (pieces, gone)
    });
    assert_eq!(response.headers()["content-length"], "8");
    pieces.send("more").await;
    house.settle().await;
    assert!(!gone.is_cancelled(), "the stream was reset");
    drop(pieces);
    assert_eq!(body(response).await, "podsmore");
    // Cut where its end should be, it is none.
    let (response, pieces) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
        let (pieces, _gone) = house.agent.next().await.stream(Response::builder().header("content-length", "4"));
        pieces.send("pods").await;
        pieces
    });
    pieces.cut().await;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn who_finds_no_place_in_the_whole_process_has_a_stream_of_its_own() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let mut others: Vec<_> = std::iter::from_fn(|| house.places.take()).collect();
    assert_eq!(others.len(), 256, "64 MiB of windows");
    for version in [http::Version::HTTP_11, http::Version::HTTP_2, http::Version::HTTP_2] {
        let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
            let arrival = house.agent.next().await;
            assert_eq!(arrival.request.version(), version);
            arrival.ok("done");
        });
        assert_eq!(body(response).await, "done");
        others.truncate(255);
    }
}

#[tokio::test]
async fn what_runs_long_or_sends_much_shares_no_stream() {
    let mut house = House::guardian(|_| {});
    let mut streams = BTreeSet::new();
    let mut asked = vec![ask("GET", "/clusters/east/api/v1/pods?watch=1").body(empty()).unwrap()];
    asked.push(ask("GET", "/clusters/east/api/v1/namespaces/a/pods/b/log?follow=true").body(empty()).unwrap());
    asked.push(ask("POST", "/clusters/east/api/v1/namespaces/a/configmaps").body(full(PIECE)).unwrap());
    let large: &'static str = Box::leak("x".repeat(65 * 1024).into_boxed_str());
    asked.push(ask("POST", "/clusters/east/api/v1/namespaces/a/configmaps").body(full(large)).unwrap());
    let versions = [http::Version::HTTP_11, http::Version::HTTP_11, http::Version::HTTP_2, http::Version::HTTP_11];
    for (request, version) in asked.into_iter().zip(versions) {
        let mut user = house.h1().await;
        let path = request.uri().to_string();
        let (response, ()) = tokio::join!(user.send(request), async {
            let arrival = house.agent.next().await;
            assert_eq!((arrival.request.version(), streams.insert(arrival.stream)), (version, true), "{path}");
            assert_eq!(arrival.header("impersonate-user"), Some("alice"));
            arrival.ok("done");
        });
        assert_eq!(body(response.unwrap()).await, "done");
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody() {
    let mut house = House::guardian(|_| {});
    let (mut slow, mut quick) = (house.h1().await, house.h1().await);
    let (response, (pieces, stalled)) = tokio::join!(slow.get("/clusters/east/api/v1/pods"), async {
        let arrival = house.agent.next().await;
        let stream = arrival.stream;
        (arrival.stream(Response::builder()).0, stream)
    });
    // More than its window, and what lies between, holds.
    let flood = house.tasks.spawn("flood", async move {
        for _ in 0..512 {
            pieces.send(PIECE).await;
        }
    });
    for _ in 0..20 {
        let (response, ()) = tokio::join!(quick.get("/clusters/east/api/v1/pods"), async {
            let arrival = house.agent.next().await;
            assert_eq!(arrival.stream, stalled, "they share a stream");
            arrival.ok("quick");
        });
        assert_eq!(body(response).await, "quick");
    }
    assert!(!flood.is_finished());
    assert_eq!(body(response).await.len(), 512 * PIECE.len());
}

#[tokio::test]
async fn an_upgrade_goes_on_a_stream_of_its_own_behind_a_byte_that_is_given_up() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let exec = ask("GET", "/clusters/east/api/v1/namespaces/a/pods/b/exec?command=sh")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(empty())
        .unwrap();
    let (response, agent) = tokio::join!(user.send(exec), async {
        let arrival = house.agent.next().await;
        assert_eq!(arrival.request.version(), http::Version::HTTP_11);
        assert_eq!(arrival.header("upgrade"), Some("websocket"));
        assert_eq!(arrival.header("impersonate-user"), Some("alice"));
        let switched = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "websocket");
        arrival.answer(switched.body(text("")).unwrap())
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 101);
    let (ours, theirs) = tokio::join!(hyper::upgrade::on(response), hyper::upgrade::on(agent));
    let (mut ours, mut theirs) = (TokioIo::new(ours.unwrap()), TokioIo::new(theirs.unwrap()));
    ours.write_all(b"ls").await.unwrap();
    let mut got = [0; 3];
    theirs.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\nls", "Go's server takes the first byte; hyper does not");
    theirs.write_all(b"files").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut files = String::new();
    ours.read_to_string(&mut files).await.unwrap();
    assert_eq!(files, "files");
}

#[tokio::test]
async fn a_stream_that_breaks_takes_its_requests_along_and_no_later_ones() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
        let _never_answered = house.agent.next().await;
        house.agent.drop_streams();
    });
    assert_eq!(response.status(), 502);
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/pods"), async {
        house.agent.next().await.ok("again");
    });
    assert_eq!(body(response).await, "again");
}

#[tokio::test]
async fn kubectl_learns_that_fields_are_validated() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let discovery: &'static str = Box::leak(
        json!({ "groupVersion": "v1", "resources": [{ "name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["patch"] }] })
            .to_string()
            .into_boxed_str(),
    );
    let (response, ()) = tokio::join!(user.get("/clusters/east/openapi/v3/api/v1"), async {
        let arrival = house.agent.next().await;
        assert_eq!((arrival.request.uri().path(), arrival.header("accept")), ("/api/v1", Some("application/json")));
        assert_eq!(arrival.header("impersonate-user"), Some("alice"));
        arrival.ok(discovery);
    });
    assert_eq!(response.headers()["content-type"], "application/json");
    let made = body(response).await;
    assert!(made.contains("fieldValidation") && made.contains("\"Pod\""), "{made}");
    // What the cluster refuses, it refuses.
    let refused = user.send(get("/clusters/east/openapi/v3"));
    let (response, ()) = tokio::join!(refused, async {
        house.agent.next().await.answer(Response::builder().status(403).body(text("no")).unwrap());
    });
    assert_eq!(response.unwrap().status(), 403);
}

#[tokio::test]
async fn what_a_websocket_was_refused_with_is_said_again_to_the_spdy_that_follows() {
    let mut house = House::guardian(|_| {});
    let mut user = house.h1().await;
    let exec = |method: &str, protocol: &str| {
        ask(method, "/clusters/east/api/v1/namespaces/a/pods/b/exec?command=sh")
            .header("connection", "Upgrade")
            .header("upgrade", protocol)
            .body(empty())
            .unwrap()
    };
    let forbidden = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"alice may not","reason":"Forbidden","code":403}"#;
    let (response, ()) = tokio::join!(user.send(exec("GET", "websocket")), async {
        house.agent.next().await.answer(Response::builder().status(403).body(text(forbidden)).unwrap());
    });
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), body(response).await.as_str()), (403, forbidden));
    let again = user.send(exec("POST", "SPDY/3.1")).await.unwrap();
    assert_eq!((again.status().as_u16(), &status(again).await["message"]), (403, &json!("alice may not")));
    assert_eq!(user.send(exec("POST", "SPDY/3.1")).await.unwrap().status(), 501);
}

//! Which stream a request goes by, and which streams come back.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;

use super::{
    house::House,
    user::{ask, body, empty, full, status},
};

#[tokio::test]
async fn one_stream_carries_one_request_after_another() {
    let mut house = House::new();
    let (mut one, mut two) = (house.h1().await, house.h2().await);
    let mut streams = Vec::new();
    for _ in 0..3 {
        for user in [&mut one, &mut two] {
            let (response, stream) = tokio::join!(user.get("/clusters/east/api"), async {
                let arrival = house.agent.next().await;
                let stream = arrival.stream;
                arrival.ok("x");
                stream
            });
            assert_eq!(body(response).await, "x");
            house.settle().await;
            assert_eq!(house.pool.idle_count(), 1);
            streams.push(stream);
        }
    }
    assert!(streams.iter().all(|stream| *stream == streams[0]), "{streams:?}");
}

#[tokio::test]
async fn head_and_bodiless_answers_give_their_stream_back() {
    let mut house = House::new();
    let mut user = house.h1().await;
    for method in ["HEAD", "DELETE"] {
        let request = ask(method, "/clusters/east/api").body(empty()).unwrap();
        let (response, ()) = tokio::join!(user.send(request), async {
            let response = Response::builder().status(204).body(super::agent::text(""));
            house.agent.next().await.answer(response.unwrap());
        });
        assert_eq!(response.unwrap().status(), 204);
        house.settle().await;
        assert_eq!(house.pool.idle_count(), 1);
    }
}

#[tokio::test]
async fn two_requests_at_once_have_two_streams() {
    let mut house = House::new();
    let mut user = house.h2().await;
    let (path, mut other) = ("/clusters/east/api", house.h1().await);
    let ((one, two), ()) = tokio::join!(async { tokio::join!(user.get(path), other.get(path)) }, async {
        let (first, second) = (house.agent.next().await, house.agent.next().await);
        assert_ne!(first.stream, second.stream);
        first.ok("1");
        second.ok("2");
    });
    drop((body(one).await, body(two).await));
    house.settle().await;
    assert_eq!(house.pool.idle_count(), 2);
}

#[tokio::test]
async fn an_aborted_response_takes_its_stream_along() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, (pieces, gone, stream)) = tokio::join!(user.get("/clusters/east/api"), async {
        let arrival = house.agent.next().await;
        let stream = arrival.stream;
        let (pieces, gone) = arrival.stream(Response::builder());
        pieces.send("first").await;
        (pieces, gone, stream)
    });
    let mut response = response.into_body();
    response.frame().await.unwrap().unwrap();
    drop((response, user));
    gone.cancelled().await;
    drop(pieces);
    house.settle().await;
    assert_eq!(house.pool.idle_count(), 0);
    let mut user = house.h1().await;
    let (response, next) = tokio::join!(user.get("/clusters/east/api"), async {
        let arrival = house.agent.next().await;
        let next = arrival.stream;
        arrival.ok("x");
        next
    });
    assert_eq!(body(response).await, "x");
    assert_ne!(next, stream);
}

#[tokio::test]
async fn long_requests_have_a_stream_of_their_own() {
    let mut house = House::new();
    let mut user = house.h1().await;
    for path in [
        "/clusters/east/api/v1/pods?watch=true",
        "/clusters/east/api/v1/namespaces/a/pods/b/log?follow=true",
        "/clusters/east/api/v1/namespaces/a/services/b/proxy/",
    ] {
        let (response, ()) = tokio::join!(user.get(path), async { house.agent.next().await.ok("event") });
        assert_eq!(body(response).await, "event");
        house.settle().await;
        assert_eq!(house.pool.idle_count(), 0, "{path}");
    }
}

#[tokio::test]
async fn an_idle_stream_that_is_gone_is_not_noticed_by_the_user() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { house.agent.next().await.ok("one") });
    assert_eq!(body(response).await, "one");
    house.settle().await;
    assert_eq!(house.pool.idle_count(), 1);
    // No task has run in between, so the pool cannot know yet.
    house.agent.drop_streams();
    let request = ask("POST", "/clusters/east/api").body(full("payload")).unwrap();
    let (response, ()) = tokio::join!(user.send(request), async {
        let request = house.agent.next().await.answer(Response::new(super::agent::text("two")));
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "payload");
    });
    assert_eq!(body(response.unwrap()).await, "two");
}

#[tokio::test(start_paused = true)]
async fn idle_streams_end_by_themselves() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { house.agent.next().await.ok("one") });
    assert_eq!(body(response).await, "one");
    house.settle().await;
    assert_eq!(house.pool.idle_count(), 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(house.pool.idle_count(), 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(house.pool.idle_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_kube_apiserver_is_waited_for_so_long() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, gone) = tokio::join!(user.get("/clusters/east/api"), async {
        let arrival = house.agent.next().await;
        arrival.gone.cancelled().await;
        tokio::time::Instant::now()
    });
    let _ = gone;
    assert_eq!(status(response).await["code"], 504);
    // A followed log may be silent for hours before its head.
    let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/namespaces/a/pods/b/log?follow=true"), async {
        let arrival = house.agent.next().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        arrival.ok("line");
    });
    assert_eq!(body(response).await, "line");
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_not_a_silent_kube_apiserver() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (pieces, mut given) = tokio::sync::mpsc::channel::<&'static str>(1);
    let slow = futures_util::stream::poll_fn(move |cx| {
        given.poll_recv(cx).map(|piece| Some(Ok(http_body::Frame::data(bytes::Bytes::from_static(piece?.as_bytes())))))
    });
    let request = ask("POST", "/clusters/east/api").body(http_body_util::StreamBody::new(slow).boxed()).unwrap();
    let uploading = async move {
        for piece in ["a", "b", "c", "d", "e"] {
            pieces.send(piece).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    };
    let (response, (), ()) = tokio::join!(user.send(request), uploading, async {
        let arrival = house.agent.next().await;
        tokio::time::sleep(Duration::from_secs(310)).await;
        arrival.ok("stored");
    });
    assert_eq!(body(response.unwrap()).await, "stored");
}

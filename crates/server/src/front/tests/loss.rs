//! Hang-ups reach the agent, and what is lost on the way looks lost.

use http::Response;
use http_body_util::BodyExt as _;
use moorline_mux::CloseReason;

use super::{
    house::House,
    user::{ask, status},
};

#[tokio::test]
async fn f12_a_user_who_hangs_up_while_waiting_takes_the_request_back() {
    let mut house = House::new();
    for path in ["/clusters/east/api", "/clusters/east/api?watch=true"] {
        for mut user in [house.h1().await, house.h2().await] {
            let arrival = tokio::select! {
                _ = user.get(path) => unreachable!("nobody answers"),
                arrival = house.agent.next() => arrival,
            };
            drop(user);
            arrival.gone.cancelled().await;
        }
    }
    house.settle().await;
    assert_eq!(house.pool.idle_count(), 0);
    assert_eq!(house.shared.metrics.running.get(), 0);
}

#[tokio::test]
async fn f12_a_user_who_hangs_up_on_a_silent_watch_ends_it() {
    let mut house = House::new();
    for mut user in [house.h1().await, house.h2().await] {
        let (response, (pieces, gone)) = tokio::join!(user.get("/clusters/east/api?watch=true"), async {
            house.agent.next().await.stream(Response::builder())
        });
        pieces.send("event").await;
        let mut watch = response.into_body();
        assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "event");
        drop((watch, user));
        gone.cancelled().await;
    }
    house.settle().await;
    assert_eq!(house.shared.metrics.running.get(), 0);
    assert_eq!(house.shared.metrics.hung_up.get(), 2);
}

#[tokio::test]
async fn a_user_who_hangs_up_while_sending_is_not_taken_to_have_finished() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (pieces, mut given) = tokio::sync::mpsc::channel::<&'static str>(1);
    let slow = futures_util::stream::poll_fn(move |cx| {
        given.poll_recv(cx).map(|piece| Some(Ok(http_body::Frame::data(bytes::Bytes::from_static(piece?.as_bytes())))))
    });
    let request = ask("POST", "/clusters/east/api").body(http_body_util::StreamBody::new(slow).boxed()).unwrap();
    pieces.send("half").await.unwrap();
    let mut arrival = tokio::select! {
        _ = user.send(request) => unreachable!("nobody answers"),
        arrival = house.agent.next() => arrival,
    };
    let uploaded = arrival.request.body_mut();
    assert_eq!(uploaded.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    drop((user, pieces));
    assert!(uploaded.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn f15_a_response_that_is_cut_does_not_look_whole() {
    for counted in [true, false] {
        let mut house = House::new();
        for mut user in [house.h1().await, house.h2().await] {
            let (response, pieces) = tokio::join!(user.get("/clusters/east/api"), async {
                let builder = Response::builder();
                let builder = if counted { builder.header("content-length", "10") } else { builder };
                let (pieces, _gone) = house.agent.next().await.stream(builder);
                pieces.send("12345").await;
                pieces
            });
            let mut cut = response.into_body();
            assert_eq!(cut.frame().await.unwrap().unwrap().into_data().unwrap(), "12345");
            pieces.cut().await;
            assert!(cut.frame().await.unwrap().is_err(), "counted: {counted}");
        }
        assert_eq!(house.shared.metrics.bodies_lost.get(), 2);
    }
}

/// kube-apiserver ends its watches itself, at any time: a client resumes from the last event that it got. Where that is
/// not known to be whole, or where a response is no stream of events, a cut is shown.
#[tokio::test]
async fn f16_a_watch_that_is_cut_between_two_events_just_ends() {
    let json = || Response::builder().header("content-type", "application/json");
    let cases = [
        (json(), "{event}\n", true),
        (json(), "{event}\n{eve", false),
        (json().status(500), "{\n", false),
        (json().header("content-encoding", "gzip"), "{\n", false),
        (json().header("content-length", "10"), "{event}\n", false),
        (Response::builder().header("content-type", "application/vnd.kubernetes.protobuf"), "\n", false),
    ];
    for (head, text, clean) in cases {
        let mut house = House::new();
        let mut user = house.h2().await;
        let (response, pieces) = tokio::join!(user.get("/clusters/east/api/v1/pods?watch=true"), async {
            let (pieces, _gone) = house.agent.next().await.stream(head);
            pieces.send(text).await;
            pieces
        });
        let mut watch = response.into_body();
        assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        pieces.cut().await;
        // Nothing more, or an error.
        let rest = watch.collect().await.map(http_body_util::Collected::to_bytes);
        assert_eq!(rest.is_ok_and(|rest| rest.is_empty()), clean, "{text:?}");
        assert_eq!(house.shared.metrics.bodies_lost.get(), 1);
    }
}

#[tokio::test]
async fn a_lost_tunnel_is_said_before_the_head_and_shown_after_it() {
    let mut house = House::new();
    let (mut waiting, mut watching) = (house.h1().await, house.h2().await);
    let (watch, pieces) = tokio::join!(watching.get("/clusters/east/api?watch=true"), async {
        house.agent.next().await.stream(Response::builder())
    });
    let mut watch = watch.into_body();
    pieces.0.send("event").await;
    watch.frame().await.unwrap().unwrap();
    let (response, ()) = tokio::join!(waiting.get("/clusters/east/api"), async {
        let _arrival = house.agent.next().await;
        house.agent.session.close(CloseReason::Local("test"));
        house.agent.session.closed().await;
    });
    let status = status(response).await;
    assert_eq!(status["code"], 502);
    assert!(status["message"].as_str().unwrap().contains("was lost"), "{status}");
    assert!(watch.frame().await.unwrap().is_err());
}

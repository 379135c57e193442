//! One request at a time: who it runs as, how it streams, how it ends.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use moorline_agent::RawConfig;
use moorline_model::{Identity, Status};
use moorline_testkit::Refusing;
use moorline_wire::{Failure, headers, probe, write_identity};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::{
    bench::{Agent, eventually, within},
    hub::{Body, Hub, QUIET, Session, ann, request, text, with_body},
    upstream::Upstream,
};

struct World {
    hub: Hub,
    upstream: Upstream,
    session: Session,
    agent: Agent,
}

async fn world() -> World {
    world_with(|_| {}).await
}

async fn world_with(change: impl FnOnce(&mut RawConfig)) -> World {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let mut raw = hub.raw(&upstream.url());
    change(&mut raw);
    let agent = Agent::start(&raw);
    let session = hub.session(QUIET).await;
    World { hub, upstream, session, agent }
}

/// A body that the test feeds.
fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (feed, fed) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(fed, |mut fed| async {
        fed.recv().await.map(|bytes| (Ok::<_, io::Error>(Frame::data(bytes)), fed))
    });
    (feed, http_body_util::BodyExt::boxed(StreamBody::new(frames)))
}

#[tokio::test]
async fn the_user_arrives_exactly_and_nothing_of_what_was_forged() {
    let world = world().await;
    let mut asked = request("GET", "/api/v1/pods?limit=5");
    let forged = asked.headers_mut();
    for (name, value) in [
        ("authorization", "Bearer forged"),
        ("Impersonate-User", "root"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-scopes", "all"),
        ("x-remote-user", "root"),
        ("x-moorline-anything", "x"),
        ("cookie", "x"),
        ("connection", "impersonate-user, x-hop"),
        ("x-hop", "x"),
        ("accept", "application/json"),
    ] {
        forged.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
    }
    let id = "6f0c2f2e-4b0e-4c39-9a3c-0d7cbb0ea001";
    forged.insert(headers::REQUEST_ID, HeaderValue::from_static(id));
    forged.insert("audit-id", HeaderValue::from_static("forged"));
    let mut http = world.session.http().await;
    let response = within(http.send_request(asked)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "fine");

    let seen = world.upstream.heads("/api/v1/pods").remove(0);
    assert_eq!(seen.uri.query(), Some("limit=5"));
    let mut arrived: Vec<_> =
        seen.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    arrived.sort();
    let host = format!("host: {}", world.upstream.address);
    assert_eq!(
        arrived,
        [
            "accept: application/json",
            "audit-id: 6f0c2f2e-4b0e-4c39-9a3c-0d7cbb0ea001",
            "authorization: Bearer the-agents-token",
            &host,
            "impersonate-group: devs",
            "impersonate-group: system:authenticated",
            "impersonate-user: ann",
        ]
    );
}

#[tokio::test]
async fn f19_a_probe_learns_whether_the_kube_apiserver_answers_and_nothing_else() {
    let world = world().await;
    assert!(world.session.hello.capabilities.iter().any(|word| word == probe::CAPABILITY));
    let before = world.upstream.heads("/readyz").len();
    assert_eq!(probe_of(&world.session).await, r#"{"upstream_ok":true}"#);
    let asked = world.upstream.heads("/readyz");
    assert!(asked.len() > before);
    for head in asked {
        let names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["host", "authorization"], "as the agent asks by itself");
    }
    // The same path of a user is a path of the kube-apiserver.
    let response = world.session.get(probe::PATH).await;
    assert_eq!(text(response).await, "fine");
    assert_eq!(world.upstream.heads(probe::PATH)[0].headers["impersonate-user"], "ann");
    world.upstream.sick(true);
    let answer = probe::read_answer(probe_of(&world.session).await.as_bytes()).unwrap();
    assert!(!answer.upstream_ok);
    assert!(answer.upstream_reason.is_some_and(|why| why.contains("answered 500") && !why.contains("etcd")));
}

/// As a server asks, with headers that no server of ours adds.
async fn probe_of(session: &Session) -> String {
    let mut asked = request("GET", probe::PATH);
    asked.headers_mut().remove(headers::IDENTITY);
    asked.headers_mut().insert("impersonate-user", HeaderValue::from_static("root"));
    asked.headers_mut().insert("x-moorline-anything", HeaderValue::from_static("x"));
    let mut http = session.http().await;
    let response = within(http.send_request(asked)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let body = text(response).await;
    eventually("the stream is closed", || http.is_closed()).await;
    body
}

#[tokio::test]
async fn a_request_without_one_identity_goes_nowhere() {
    let world = world().await;
    let mut without = request("GET", "/secret");
    without.headers_mut().remove(headers::IDENTITY);
    let mut twice = request("GET", "/secret");
    let again = twice.headers()[headers::IDENTITY].clone();
    twice.headers_mut().append(headers::IDENTITY, again);
    let mut damaged = request("GET", "/secret");
    damaged.headers_mut().insert(headers::IDENTITY, HeaderValue::from_static("e30"));
    for asked in [without, twice, damaged] {
        let mut http = world.session.http().await;
        let response = within(http.send_request(asked)).await.unwrap().unwrap();
        assert_eq!(Failure::of_response(response.headers()), Some(Failure::IdentityMissing));
        let status: Status = serde_json::from_str(&text(response).await).unwrap();
        assert!(status.message.contains("identity"), "{status:?}");
        eventually("the stream is closed", || http.is_closed()).await;
    }
    assert!(world.upstream.heads("/secret").is_empty());
}

#[tokio::test]
async fn other_targets_than_paths_are_refused() {
    let world = world().await;
    let identity = write_identity(&ann());
    for line in ["GET http://169.254.169.254/latest HTTP/1.1", "CONNECT 10.0.0.1:443 HTTP/1.1", "OPTIONS * HTTP/1.1"] {
        let mut stream = world.session.stream().await;
        let head = format!("{line}\r\nHost: x\r\n{}: {}\r\n\r\n", headers::IDENTITY, identity.to_str().unwrap());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "{line}");
    }
    assert_eq!(world.upstream.running(), 0);
}

#[tokio::test]
async fn the_cluster_has_the_last_word_on_whom_the_server_may_be() {
    let world = world_with(|raw| raw.acting.deny_users = vec!["mallory".to_owned()]).await;
    for identity in
        [Identity::new("ann").unwrap().with_groups(["system:masters"]).unwrap(), Identity::new("mallory").unwrap()]
    {
        let mut asked = request("GET", "/secret");
        asked.headers_mut().insert(headers::IDENTITY, write_identity(&identity));
        let mut http = world.session.http().await;
        let response = within(http.send_request(asked)).await.unwrap().unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(Failure::of_response(response.headers()), Some(Failure::IdentityDenied));
        let message = text(response).await;
        assert!(message.contains("system:masters") || message.contains("mallory"), "names the rule: {message}");
        assert!(!http.is_closed(), "the next user's request may be fine");
    }
    assert!(world.upstream.heads("/secret").is_empty());
}

#[tokio::test]
async fn users_have_the_names_that_the_cluster_gives_them() {
    let world = world_with(|raw| {
        raw.acting.user_prefix = Some("hub:".to_owned());
        raw.acting.group_prefix = Some("hub:".to_owned());
        raw.acting.map_users = vec!["cn=root=system:kube-scheduler".to_owned(), "cid=carl".to_owned()];
        raw.acting.allow_groups = vec!["hub:dev".to_owned()];
    })
    .await;
    for (user, group, expected) in [
        ("ann", "dev", Ok("hub:ann")),
        ("cid", "dev", Ok("carl")),
        ("carl", "dev", Ok("hub:carl")),
        ("ann", "ops", Err("group \"hub:ops\" is not on the managed cluster's list of allowed groups")),
        ("cn=root", "dev", Err("user system:kube-* is denied by the managed cluster's configuration")),
    ] {
        let identity = Identity::new(user).unwrap().with_groups([group, "system:authenticated"]).unwrap();
        let mut asked = request("GET", &format!("/as-{user}"));
        asked.headers_mut().insert(headers::IDENTITY, write_identity(&identity));
        let response = within(world.session.http().await.send_request(asked)).await.unwrap().unwrap();
        match expected {
            Ok(name) => {
                assert_eq!(response.status(), 200);
                let heads = world.upstream.heads(&format!("/as-{user}"));
                let values = |header: &str| -> Vec<_> { heads[0].headers.get_all(header).iter().cloned().collect() };
                assert_eq!(values("impersonate-user"), [name]);
                assert_eq!(values("impersonate-group"), ["hub:dev", "system:authenticated"]);
            }
            Err(rule) => {
                assert_eq!(response.status(), 403);
                assert_eq!(Failure::of_response(response.headers()), Some(Failure::IdentityDenied));
                let message = text(response).await;
                let said: Status = serde_json::from_str(&message).unwrap();
                assert!(said.message.contains(rule), "{message}");
            }
        }
    }
    let metrics = world.agent.page("/metrics").await;
    let counted = format!("moorline_agent_requests_refused_total{{reason=\"{}\"}} 2", Failure::IdentityDenied.as_str());
    assert!(metrics.contains(&counted), "{metrics}");
}

#[tokio::test]
async fn a_large_identity_passes() {
    let world = world().await;
    let groups: Vec<_> = (0..2000).map(|n| format!("team-{n}-{}", "x".repeat(60))).collect();
    let mut asked = request("GET", "/many");
    let identity = Identity::new("ann").unwrap().with_groups(groups).unwrap();
    asked.headers_mut().insert(headers::IDENTITY, write_identity(&identity));
    let mut http = world.session.http().await;
    let response = within(http.send_request(asked)).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(world.upstream.heads("/many")[0].headers.get_all("impersonate-group").iter().count(), 2000);
}

#[tokio::test]
async fn bodies_stream_up_as_they_come() {
    let world = world().await;
    let (feed, body) = fed();
    let mut http = world.session.http().await;
    let answering = http.send_request(with_body("POST", "/upload", body));
    let feeding = async {
        for round in 1..=3 {
            feed.send(Bytes::from(vec![7; 100_000])).await.unwrap();
            eventually("the upload arrives", || world.upstream.uploaded() == round * 100_000).await;
        }
        drop(feed);
    };
    let (response, ()) = tokio::join!(within(answering), feeding);
    assert_eq!(text(response.unwrap().unwrap()).await, "300000");
}

#[tokio::test]
async fn events_arrive_before_the_end_and_hanging_up_cancels() {
    let world = world().await;
    let mut http = world.session.http().await;
    let response = within(http.send_request(request("GET", "/watch"))).await.unwrap().unwrap();
    let mut body = response.into_body();
    let event = within(body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap();
    assert_eq!(event, "event\n");
    assert_eq!(world.upstream.running(), 1);
    drop((body, http));
    eventually("the watch is cancelled", || world.upstream.running() == 0).await;
    eventually("the stream is gone", || world.session.handle.stats().streams_open_outbound == 0).await;
}

#[tokio::test]
async fn hanging_up_before_the_answer_cancels() {
    let world = world().await;
    let mut http = world.session.http().await;
    {
        let mut asking = std::pin::pin!(http.send_request(request("GET", "/hang?watch=true")));
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            () = eventually("the request arrives", || world.upstream.running() == 1) => {}
        }
    }
    drop(http);
    eventually("the request is cancelled", || world.upstream.running() == 0).await;
}

#[tokio::test]
async fn hanging_up_in_the_middle_of_an_upload_cancels() {
    let world = world().await;
    let (feed, body) = fed();
    let mut http = world.session.http().await;
    {
        let mut asking = std::pin::pin!(http.send_request(with_body("PUT", "/upload", body)));
        feed.send(Bytes::from_static(b"half")).await.unwrap();
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            () = eventually("the upload begins", || world.upstream.uploaded() == 4) => {}
        }
    }
    drop(http);
    eventually("the upload is cancelled", || world.upstream.running() == 0).await;
}

#[tokio::test]
async fn hanging_up_cancels_an_upload_that_the_kube_apiserver_does_not_read() {
    let world = world().await;
    let mut stream = world.session.stream().await;
    let identity = write_identity(&ann());
    let head = format!(
        "PUT /hang HTTP/1.1\r\nHost: a\r\n{}: {}\r\nContent-Length: 1000000000\r\n\r\n",
        headers::IDENTITY,
        identity.to_str().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("the upload arrives", || world.upstream.running() == 1).await;
    // As much as fits into everything between here and there.
    let piece = vec![0; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stream.write(&piece)).await {
        written.unwrap();
    }
    assert_eq!(world.upstream.running(), 1);
    drop(stream);
    // The kube-apiserver itself hears of it when it next reads.
    let ended = within(async {
        while !world.agent.page("/metrics").await.contains("moorline_agent_requests_running 0") {
            tokio::task::yield_now().await;
        }
    });
    assert!(ended.await.is_some(), "the upload is not cancelled");
}

#[tokio::test]
async fn a_short_body_is_never_taken_for_a_whole_one() {
    let world = world().await;
    let response = world.session.get("/half").await;
    assert!(within(response.into_body().collect()).await.unwrap().is_err());
}

#[tokio::test]
async fn answers_are_cleaned() {
    let world = world().await;
    let response = world.session.get("/leak").await;
    let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    for name in ["x-moorline-failure", "x-moorline-other", "impersonate-user", "keep-alive", "connection", "x-private"]
    {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(response.headers()["audit-id"], "kept");
    assert_eq!(text(response).await, "leaky");
}

#[tokio::test]
async fn connections_are_kept_and_a_dead_one_is_not_used() {
    let world = world().await;
    let mut http = world.session.http().await;
    let mut ask = async |path: &str| {
        let response = within(http.send_request(request("GET", path))).await.unwrap().unwrap();
        let status = response.status();
        text(response).await;
        http.ready().await.unwrap();
        status
    };
    assert_eq!(ask("/one").await, 200);
    let before = world.upstream.connections();
    for _ in 0..20 {
        assert_eq!(ask("/two").await, 200);
    }
    assert_eq!(world.upstream.connections(), before, "kept");
    world.upstream.cut().await;
    assert_eq!(ask("/three").await, 200);
    assert!(world.upstream.connections() > before);
    assert_eq!(ask("/closing").await, 200, "the stream outlives a connection that is closed");
    assert_eq!(ask("/four").await, 200);
    assert_eq!(world.session.handle.stats().opened_total, 1);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_ends_is_delivered() {
    let world = world().await;
    let (feed, body) = fed();
    let mut http = world.session.http().await;
    let response = within(http.send_request(with_body("POST", "/early", body))).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await, "too much");
    drop(feed);
}

#[tokio::test]
async fn failures_of_the_kube_apiserver_are_told_apart() {
    let (nobody, hub) = (Refusing::bind().unwrap(), Hub::start().await);
    let _agent = Agent::start(&hub.raw(&format!("http://{}", nobody.address())));
    let session = hub.session(QUIET).await;
    let response = session.get("/x").await;
    assert_eq!(response.status(), 502);
    assert_eq!(Failure::of_response(response.headers()), Some(Failure::UpstreamRefused));
    let status: Status = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(status.code, 502);

    let world = world_with(|raw| raw.kube_response_timeout = Some("300ms".to_owned())).await;
    let response = world.session.get("/hang").await;
    assert_eq!(response.status(), 504);
    assert_eq!(Failure::of_response(response.headers()), Some(Failure::UpstreamTimeout));
    eventually("the request is cancelled", || world.upstream.running() == 0).await;
    let response = world.session.get("/401").await;
    assert_eq!(Failure::of_response(response.headers()), Some(Failure::UpstreamCredential));
    let response = world.session.get("/api/v1/namespaces/a/services/b/proxy/401").await;
    assert_eq!(response.status(), 401, "somebody else's 401 passes");
    assert_eq!(Failure::of_response(response.headers()), None);
    let _still_listening = world.hub.port();
}

#[tokio::test]
async fn a_slow_upload_is_no_silence() {
    let world = world_with(|raw| raw.kube_response_timeout = Some("400ms".to_owned())).await;
    let (feed, body) = fed();
    let mut http = world.session.http().await;
    let answering = http.send_request(with_body("POST", "/upload", body));
    let feeding = async {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..12 {
            beat.tick().await;
            feed.send(Bytes::from_static(b"x")).await.unwrap();
        }
        drop(feed);
    };
    let (response, ()) = tokio::join!(within(answering), feeding);
    assert_eq!(text(response.unwrap().unwrap()).await, "12");
}

#[tokio::test]
async fn too_many_requests_are_shed() {
    let world = world_with(|raw| raw.max_requests = Some(2)).await;
    let mut held: Vec<_> =
        futures_util::stream::iter(["/watch", "/watch"]).then(|path| world.session.get(path)).collect().await;
    let response = world.session.get("/one-more").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(Failure::of_response(response.headers()), Some(Failure::Overloaded));
    assert_eq!(response.headers()["retry-after"], "1");
    held.pop();
    eventually("one has ended", || world.upstream.running() == 1).await;
    assert_eq!(world.session.get("/one-more").await.status(), 200);
}

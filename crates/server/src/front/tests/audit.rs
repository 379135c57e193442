//! The trail that requests leave: one completed event for each, whatever becomes of it, and no secret in any.

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    agent::text,
    house::House,
    user::{User, UserBody, ask, body, empty, full, get, status},
};
use crate::audit::{
    Mode,
    tests::{Book, config},
};

/// Stands for every secret that a request can carry.
const PLANTED: &str = "plantedsecret0123456789";

fn book() -> Book {
    Book::new(config(Mode::Batch, 1000), None)
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

/// What one event says: code, end, decision, cause.
fn came_to(event: &Value) -> (u64, &str, Option<&str>, Option<&str>) {
    let notes = &event["annotations"];
    assert_eq!(event["stage"], "ResponseComplete", "{event}");
    let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
    let decision = notes["authorization.k8s.io/decision"].as_str();
    (code, notes["moorline.io/end"].as_str().unwrap(), decision, notes["moorline.io/cause"].as_str())
}

async fn refused(user: &mut User, request: Request<UserBody>) {
    let response = user.send(request).await.unwrap();
    assert!(response.status().is_client_error() || response.status().is_server_error());
    body(response).await;
}

fn changed(mut request: Request<UserBody>, headers: &[(&'static str, &str)]) -> Request<UserBody> {
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn every_request_leaves_one_event_whatever_becomes_of_it() {
    let mut book = book();
    let mut house = House::audited(&book);
    for mut user in [house.h1().await, house.h2().await] {
        let (response, ()) = tokio::join!(user.get("/clusters/east/api/v1/namespaces/shop/pods?limit=5"), async {
            let answer = Response::builder().header("audit-id", "the-cluster's-own").body(text("0123456789"));
            house.agent.next().await.answer(answer.unwrap());
        });
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        body(response).await;
        refused(&mut user, changed(get("/clusters/east/api"), &[("authorization", "Bearer nobody")])).await;
        refused(&mut user, changed(get("/clusters/east/api"), &[("authorization", "Bearer mallory-token")])).await;
        refused(&mut user, get("/clusters/nowhere/api")).await;
        refused(&mut user, get("/clusters/west/api")).await;
        refused(&mut user, get("/clusters/East/api")).await;
        refused(&mut user, changed(get("/clusters/east/api"), &[("impersonate-user", "root")])).await;
        refused(&mut user, changed(get("/clusters/east/api"), &[("impersonate-group", "ops")])).await;
        let answer = user.send(ask("POST", "/v1/clusters").body(full("{}")).unwrap()).await.unwrap();
        assert_eq!(body(answer).await, "alice as None");
        body(user.get("/readyz").await).await;
        let upload = ask("PUT", "/api/v1/namespaces/shop/configmaps/till").header("x-cluster-id", "east");
        let upload = changed(upload.body(full("12345")).unwrap(), &[("impersonate-user", "bob")]);
        let (response, _) = tokio::join!(user.send(upload), async {
            let request = house.agent.next().await.answer(Response::new(text("")));
            assert_eq!(http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes(), "12345");
        });
        body(response.unwrap()).await;

        house.settle().await;
        let events = book.events();
        let all: Vec<_> = events.iter().map(came_to).collect();
        assert_eq!(
            all,
            [
                (200, "complete", Some("allow"), None),
                (401, "complete", None, Some("unauthenticated")),
                (403, "complete", Some("forbid"), Some("denied")),
                (404, "complete", Some("allow"), Some("unknown-cluster")),
                (503, "complete", Some("allow"), Some("not-connected")),
                (400, "complete", None, Some("bad-target")),
                (403, "complete", Some("forbid"), Some("denied")),
                (400, "complete", None, Some("bad-impersonation")),
                (200, "complete", None, None),
                (200, "complete", None, None),
                (200, "complete", Some("allow"), None),
            ]
        );
        check_first(&events[0], &id);
        assert_eq!(events[1]["user"], json!({}));
        assert_eq!(events[1]["responseStatus"]["reason"], "Unauthorized");
        assert_eq!(events[1]["responseStatus"]["message"], "the bearer token is not known");
        assert_eq!(events[2]["user"], json!({"username": "mallory", "groups": ["system:authenticated"]}));
        let why = events[6]["annotations"]["authorization.k8s.io/reason"].as_str().unwrap();
        assert!(why.contains("\"alice\" cannot impersonate resource \"users\""), "{why}");
        assert_eq!((&events[6]["impersonatedUser"], &events[6]["user"]["username"]), (&Value::Null, &json!("alice")));
        assert_eq!(events[8]["verb"], "create");
        assert_eq!(events[8]["objectRef"]["resource"], "managedclusters");
        assert_eq!((&events[9]["requestURI"], &events[9]["verb"]), (&json!("/readyz"), &json!("get")));
        let last = &events[10];
        assert_eq!(last["impersonatedUser"]["username"], "bob");
        assert_eq!(last["annotations"]["moorline.io/bytes-received"], "5");
        assert_eq!((&last["verb"], &last["objectRef"]["name"]), (&json!("update"), &json!("till")));
        let ids: std::collections::HashSet<_> = events.iter().map(|event| event["auditID"].as_str()).collect();
        assert_eq!(ids.len(), events.len(), "each has an id of its own");
    }
}

fn check_first(event: &Value, id: &str) {
    let fixed = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": id,
        "requestURI": "/clusters/east/api/v1/namespaces/shop/pods?limit=5",
        "verb": "list",
        "user": {"username": "alice", "groups": ["dev", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"],
        "objectRef": {"resource": "pods", "namespace": "shop", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
    });
    for (key, value) in fixed.as_object().unwrap() {
        assert_eq!(&event[key], value, "{key}");
    }
    let notes = &event["annotations"];
    assert_eq!(notes["authorization.k8s.io/reason"], "ClusterRole reach via ClusterRoleBinding reach");
    assert_eq!(notes["moorline.io/cluster"], "east");
    assert_eq!(notes["moorline.io/cluster-audit-id"], "the-cluster's-own");
    assert_eq!(notes["moorline.io/session"], "09090909-0909-0909-0909-090909090909");
    assert_eq!((&notes["moorline.io/bytes-sent"], &notes["moorline.io/bytes-received"]), (&json!("10"), &json!("0")));
    assert!(event["stageTimestamp"].as_str() >= event["requestReceivedTimestamp"].as_str());
}

#[tokio::test]
async fn what_runs_long_leaves_an_event_when_it_begins_and_one_when_it_ends() {
    let mut book = book();
    let mut house = House::audited(&book);
    let mut user = house.h2().await;
    let watch = "/clusters/east/api/v1/pods?watch=true";
    let (response, (pieces, gone)) =
        tokio::join!(user.get(watch), async { house.agent.next().await.stream(Response::builder()) });
    let begun = book.events();
    assert_eq!(stages(&begun), ["RequestReceived"]);
    assert_eq!((&begun[0]["verb"], &begun[0]["responseStatus"]), (&json!("watch"), &Value::Null));
    assert_eq!(begun[0]["annotations"]["authorization.k8s.io/decision"], "allow");
    pieces.send("{}\n").await;
    drop(response);
    gone.cancelled().await;
    house.settle().await;
    let ended = book.events();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["auditID"], begun[0]["auditID"]);
    assert_eq!(came_to(&ended[0]), (200, "hung-up", Some("allow"), None));

    // A watch that the tunnel loses, and one whose user is gone before the answer.
    let (response, (pieces, _)) =
        tokio::join!(user.get(watch), async { house.agent.next().await.stream(Response::builder()) });
    pieces.cut().await;
    drop(http_body_util::BodyExt::collect(response.into_body()).await);
    let arrival = {
        let sending = user.get(watch);
        tokio::pin!(sending);
        tokio::select! {
            _never = &mut sending => panic!("answered"),
            arrival = house.agent.next() => arrival,
        }
    };
    arrival.gone.cancelled().await;
    house.settle().await;
    let completed: Vec<_> = book.events().into_iter().filter(|event| event["stage"] == "ResponseComplete").collect();
    let ends: Vec<_> = completed.iter().map(came_to).collect();
    assert_eq!(ends, [(200, "lost", Some("allow"), None), (0, "hung-up", Some("allow"), None)]);
    assert_eq!(completed[1]["responseStatus"], Value::Null, "nothing was answered");
}

#[tokio::test]
async fn a_shell_shows_as_one() {
    let mut book = book();
    let mut house = House::audited(&book);
    let mut user = house.h1().await;
    let exec = ask("POST", "/clusters/east/api/v1/namespaces/a/pods/b/exec?command=sh&command=-c")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(empty())
        .unwrap();
    let (response, agent) = tokio::join!(user.send(exec), async {
        let switched = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
        house.agent.next().await.answer(switched.body(text("")).unwrap())
    });
    let (ours, theirs) = tokio::join!(hyper::upgrade::on(response.unwrap()), hyper::upgrade::on(agent));
    let (mut ours, mut theirs) = (TokioIo::new(ours.unwrap()), TokioIo::new(theirs.unwrap()));
    ours.write_all(b"input").await.unwrap();
    theirs.read_exact(&mut [0; 5]).await.unwrap();
    theirs.write_all(b"output!").await.unwrap();
    ours.read_exact(&mut [0; 7]).await.unwrap();
    // Cut, not ended: what passed is known all the same.
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap_or_default(), 0);
    drop(theirs);
    house.settle().await;
    let events = book.events();
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    for event in &events {
        assert_eq!(event["annotations"]["moorline.io/stream"], "exec");
        assert_eq!((&event["verb"], &event["objectRef"]["subresource"]), (&json!("create"), &json!("exec")));
    }
    let notes = &events[1]["annotations"];
    assert_eq!((&notes["moorline.io/bytes-sent"], &notes["moorline.io/bytes-received"]), (&json!("7"), &json!("5")));
    assert_eq!(events[1]["responseStatus"]["code"], 101);
}

#[tokio::test]
async fn no_secret_is_written_down() {
    let mut book = book();
    let mut house = House::audited(&book);
    let mut user = house.h1().await;
    let protocol = format!("base64url.bearer.authorization.k8s.io.{PLANTED}, v4.channel.k8s.io");
    let jwt = format!("eyJhbGciOiJSUzI1NiJ9.{PLANTED}.{PLANTED}");
    let headers = [
        ("authorization", format!("Bearer {PLANTED}")),
        ("authorization", format!("Basic {PLANTED}")),
        ("proxy-authorization", format!("Basic {PLANTED}")),
        ("cookie", format!("session={PLANTED}")),
        ("sec-websocket-protocol", protocol),
        ("x-api-key", PLANTED.to_owned()),
        ("x-forwarded-client-cert", PLANTED.to_owned()),
        ("x-request-id", PLANTED.to_owned()),
        ("audit-id", PLANTED.to_owned()),
        ("x-forwarded-for", PLANTED.to_owned()),
    ];
    let mut sent = 0;
    for (name, value) in &headers {
        let request = changed(get("/clusters/nowhere/api"), &[(name, value)]);
        refused(&mut user, request).await;
        sent += 1;
    }
    for query in [
        format!("token={PLANTED}"),
        format!("watch=true&access_token={PLANTED}&x=1"),
        format!("%74oken={PLANTED}"),
        format!("next=https%3A%2F%2Fx%2F%3Fid_token%3D{PLANTED}"),
        format!("command=mysql&command=--password%3D{PLANTED}"),
        format!("x={jwt}"),
        format!("{}&token={PLANTED}", "a".repeat(4090)),
        format!("{}&token={PLANTED}", "a".repeat(4060)),
    ] {
        refused(&mut user, get(&format!("/clusters/nowhere/api/v1/pods?{query}"))).await;
        refused(&mut user, get(&format!("/clusters/East/api/v1/pods?{query}"))).await;
        sent += 2;
    }
    let secret = ask("POST", "/clusters/nowhere/api/v1/secrets").body(full(PLANTED)).unwrap();
    refused(&mut user, secret).await;
    refused(&mut user, get(&format!("/clusters/nowhere/api/v1/proxy/{jwt}/x"))).await;
    sent += 2;
    house.settle().await;
    let events = book.events();
    let completed = events.iter().filter(|event| event["stage"] == "ResponseComplete");
    assert_eq!(completed.count(), sent);
    for event in events {
        assert!(!event.to_string().contains(PLANTED), "{event}");
        assert!(event["requestURI"].as_str().unwrap().len() < 4200);
    }
    assert!(!house.agent.has_more());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_written_nothing_goes_on() {
    let book = Book::new(config(Mode::Blocking, 8), None);
    let mut house = House::audited(&book);
    let mut user = house.h1().await;
    // Nobody takes what is handed on.
    for path in ["/clusters/east/api", "/clusters/nowhere/api", "/v1/clusters"] {
        let status = status(user.get(path).await).await;
        assert_eq!((&status["code"], &status["reason"]), (&json!(503), &json!("ServiceUnavailable")), "{path}");
        assert!(status["message"].as_str().unwrap().contains("cannot be recorded"), "{path}");
    }
    assert!(!house.agent.has_more());
    assert_eq!(body(user.get("/readyz").await).await, "ok", "a load balancer is told of the server, not of its log");
}

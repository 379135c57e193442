//! Who may do what, how much of it, and what is said when it is too much; and no secret in any log.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use moorline_ca::Authority;
use moorline_model::Timestamp;
use moorline_mtls::KeyPair;
use moorline_process::write_private;
use moorline_server::bootstrap::StateDir;
use moorline_testkit::client::{Body, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::people::{ADMIN, ALICE, BOB, CAROL, House, code, table, until};

fn status(body: &str) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()), "{body}");
    status
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let house = House::new().await;
    let unknown = house.user("a-token-that-nobody-has");
    for path in ["/clusters/east/api", "/clusters/none/api", "/v1/clusters", "/v1/clusters/east"] {
        for client in [unknown.clone(), unknown.without_token()] {
            let answer = client.get(path).await.unwrap();
            assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(status(&answer.body)["message"], "Unauthorized");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
    // To whom may not reach it, a cluster that is there looks like one that is not, and like one that is away.
    house.server.create("away").await.unwrap();
    let mut told = Vec::new();
    for cluster in ["east", "away", "none"] {
        let answer = house.user(BOB).get(&format!("/clusters/{cluster}/api")).await.unwrap();
        assert_eq!(answer.code, StatusCode::FORBIDDEN, "{}", answer.body);
        told.push(answer.body.replace(cluster, "NAME"));
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
    assert_eq!(house.user(ALICE).get("/clusters/none/api").await.unwrap().code, StatusCode::FORBIDDEN);
    assert_eq!(house.user(ADMIN).get("/clusters/none/api").await.unwrap().code, StatusCode::NOT_FOUND);
    assert_eq!(house.user(ADMIN).get("/clusters/away/api").await.unwrap().code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(house.upstream.seen_of_users().is_empty());
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_access_on_open_connections() {
    let house = House::with("", |raw| raw.reload_interval = Some("100ms".to_owned())).await;
    let alice = house.user(ALICE);
    for mut connection in [alice.connect().await.unwrap(), alice.connect_http2().await.unwrap()] {
        let mut ask = async || {
            let response = connection.send(alice.request(Method::GET, "/clusters/east/api")).await.unwrap();
            let code = response.status();
            response.into_body().collect().await.unwrap();
            code
        };
        until("she has access", async || ask().await == StatusCode::OK).await;
        let file = house.server.directory().join("tokens.csv");
        let without: String =
            table("").lines().filter(|line| !line.starts_with(ALICE)).map(|line| format!("{line}\n")).collect();
        write_private(&file, without.as_bytes()).unwrap();
        until("she has lost it", async || ask().await == StatusCode::UNAUTHORIZED).await;
        write_private(&file, table("").as_bytes()).unwrap();
    }
    assert_eq!(house.user(ADMIN).get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
}

#[tokio::test]
async fn acting_as_somebody_needs_the_right_to_each_part() {
    let house = House::new().await;
    let act = |token: &str, lines: &[(&str, &str)]| {
        let client = house.user(token);
        let mut request = client.request(Method::GET, "/clusters/east/api/v1/acted");
        for (name, value) in lines {
            request
                .headers_mut()
                .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        async move { client.ask(request).await.unwrap().code.as_u16() }
    };
    let (user, group, uid, extra) =
        ("impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-scopes");
    assert_eq!(act(CAROL, &[(user, "dave"), (group, "ops"), (uid, "7"), (extra, "view")]).await, 200);
    let seen = house.upstream.seen("/api/v1/acted").pop().unwrap();
    assert_eq!(seen.values(user), ["dave"]);
    assert_eq!(seen.values(group), ["ops", "system:authenticated"]);
    assert_eq!((seen.values(uid), seen.values(extra)), (vec!["7".to_owned()], vec!["view".to_owned()]));
    assert_eq!(act(CAROL, &[(user, "dave")]).await, 200);
    for (token, lines, expected) in [
        (CAROL, &[(user, "alice")][..], 403),
        (CAROL, &[(user, "admin")], 403),
        (CAROL, &[(user, "dave"), (group, "moorline:admins")], 403),
        (CAROL, &[(user, "dave"), (group, "ops"), (group, "system:masters")], 403),
        (CAROL, &[(user, "dave"), (uid, "8")], 403),
        (CAROL, &[(user, "dave"), (extra, "view"), (extra, "edit")], 403),
        (CAROL, &[(user, "dave"), ("impersonate-extra-other", "view")], 403),
        (CAROL, &[(user, "system:serviceaccount:kube-system:admin")], 403),
        // She may act as Bob, who may reach nothing.
        (CAROL, &[(user, "bob")], 403),
        (CAROL, &[(group, "ops")], 400),
        (CAROL, &[(user, "dave"), (user, "bob")], 400),
        (ALICE, &[(user, "dave")], 403),
        (ALICE, &[(user, "alice")], 403),
        (BOB, &[(user, "alice")], 403),
    ] {
        assert_eq!(act(token, lines).await, expected, "{lines:?}");
    }
    assert_eq!(house.upstream.seen("/api/v1/acted").len(), 2);
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    let house = House::new().await;
    let day = Duration::from_secs(86_400);
    let now: Timestamp = std::time::SystemTime::now().into();
    let read = |name: &str| std::fs::read_to_string(house.server.directory().join(name)).unwrap();
    let ours = Authority::from_pem(&read("user-ca.crt"), &read("user-ca.key")).unwrap();
    assert!(StateDir::new(house.server.directory()).user_ca_certificate().ends_with("user-ca.crt"));
    let keys = |authority: &Authority, user: &str, group: &str| {
        let issued = authority.issue_user(user, &[group.to_owned()], now, day).unwrap();
        KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    };
    let client = house.user(ADMIN);
    let erin = client.with_certificate(keys(&ours, "erin", "dev"));
    assert_eq!(erin.get("/clusters/east/api/v1/erin").await.unwrap().code, StatusCode::OK);
    let seen = house.upstream.seen("/api/v1/erin").pop().unwrap();
    assert_eq!(seen.values("impersonate-user"), ["erin"]);
    assert_eq!(seen.values("impersonate-group"), ["dev", "system:authenticated"]);
    let frank = client.with_certificate(keys(&ours, "frank", "sales"));
    assert_eq!(frank.get("/clusters/east/api").await.unwrap().code, StatusCode::FORBIDDEN);
    // Of somebody else's authority, of the tunnel's, and the certificate of an agent: none is let in.
    let theirs = Authority::generate("moorline user CA", now, day).unwrap();
    let tunnel = Authority::from_pem(&read("tunnel-ca.crt"), &read("tunnel-ca.key")).unwrap();
    let file = |name: &str| std::fs::read(house.agent.files().join(name)).unwrap();
    let agent = KeyPair::from_pem(&file("managed-cluster.crt"), &file("managed-cluster.key")).unwrap();
    for bad in [keys(&theirs, "admin", "moorline:admins"), keys(&tunnel, "admin", "moorline:admins"), agent] {
        let answer = client.with_certificate(bad).get("/clusters/east/api").await;
        assert!(answer.as_ref().map_or(true, |answer| answer.code == StatusCode::UNAUTHORIZED), "{answer:?}");
    }
}

#[tokio::test]
async fn f30_users_in_thousands_of_groups_arrive_with_all_of_them() {
    let groups = |count: usize| (0..count).map(|number| format!("group-{number:05}")).collect::<Vec<_>>();
    let line = |token: &str, count| format!("{token},{token},1,\"dev,{}\"\n", groups(count).join(","));
    let tokens = line("many-500", 500) + &line("many-5000", 4998);
    let house = House::with(&tokens, |_| {}).await;
    for (token, count) in [("many-500", 500), ("many-5000", 4998)] {
        for path in ["first", "again"] {
            let answer = house.user(token).get(&format!("/clusters/east/api/{token}/{path}")).await.unwrap();
            assert_eq!(answer.code, StatusCode::OK, "{token}: {}", answer.body);
            let seen = house.upstream.seen(&format!("/api/{token}/{path}")).pop().unwrap();
            assert_eq!(seen.values("impersonate-user"), [token]);
            assert_eq!(seen.values("impersonate-group").len(), count + 2);
        }
    }
}

#[tokio::test]
async fn f30_too_large_a_head_is_told_so() {
    let house = House::new().await;
    let alice = house.user(ALICE);
    let mut many = alice.request(Method::GET, "/clusters/east/api");
    for number in 0..270 {
        many.headers_mut().append("x-many", number.into());
    }
    let mut long = alice.request(Method::GET, "/clusters/east/api");
    long.headers_mut().insert("x-long", "x".repeat(140 * 1024).parse().unwrap());
    for request in [many, long] {
        for http2 in [false, true] {
            let mut connection = if http2 { alice.connect_http2().await } else { alice.connect().await }.unwrap();
            let response = connection.send(again(&request)).await.unwrap();
            assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "h2: {http2}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(status(&String::from_utf8_lossy(&body))["code"], 431);
        }
    }
    let huge = format!("GET /clusters/east/api HTTP/1.1\r\nHost: a\r\nX-Huge: {}\r\n\r\n", "x".repeat(2 << 20));
    let answer = house.raw(huge.as_bytes()).await;
    assert!([0, 431].contains(&code(&answer)), "{answer}");
    assert!(house.upstream.seen_of_users().is_empty());
    assert_eq!(alice.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
}

fn again(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(full(""));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

#[tokio::test]
async fn f32_slow_heads_are_ended_and_slow_bodies_are_not() {
    /// More than a busy machine needs for a handshake and a head.
    const HEAD: Duration = Duration::from_secs(3);
    let house = House::with("", |raw| raw.head_timeout = Some(format!("{}s", HEAD.as_secs()))).await;
    let alice = house.user(ALICE);
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut socket = alice.tls(&[b"http/1.1"]).await.unwrap();
        socket.write_all(b"GET /clusters/east/api HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
        slow.push(socket);
    }
    // A body in pieces of one byte, longer under way than a head may be.
    let mut drip = alice.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!(
        "POST /clusters/east/upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    drip.write_all(head.as_bytes()).await.unwrap();
    let (begun, mut pieces) = (Instant::now(), 0);
    while begun.elapsed() < HEAD + Duration::from_secs(1) {
        pieces += 1;
        drip.write_all(b"1\r\nx\r\n").await.unwrap();
        assert_eq!(alice.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drip.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    drip.read_to_string(&mut answer).await.unwrap();
    assert!(code(&answer) == 200 && answer.ends_with(&format!("\r\n\r\n{pieces}")), "{pieces}: {answer}");
    until("the slow heads are gone", async || {
        house.server.metric("moorline_gateway_connections", &[]).await.unwrap() == 0.0
    })
    .await;
    drop(slow);
}

#[tokio::test]
async fn f33_one_user_cannot_take_all_the_room() {
    let house = House::with("", |raw| raw.max_requests_per_user = Some(10)).await;
    let (alice, admin) = (house.user(ALICE), house.user(ADMIN));
    let mut connection = alice.connect_http2().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(connection.send(alice.request(Method::GET, "/clusters/east/ticks?watch=1")).await.unwrap());
    }
    for _ in 0..100 {
        let answer = alice.get("/clusters/east/api").await.unwrap();
        assert_eq!(answer.code, StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(status(&answer.body)["reason"], "TooManyRequests");
    }
    assert_eq!(admin.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
    // Acting as her takes none of her room, and gives her none of theirs.
    drop(held);
    until("there is room again", async || alice.get("/clusters/east/api").await.unwrap().code == StatusCode::OK).await;
}

#[tokio::test]
async fn who_is_denied_by_the_clusters_own_rules_hears_which() {
    let erin = "the-token-of-erin-2f6d";
    let house = House::with(&format!("{erin},erin,,\"dev,system:masters\"\n"), |_| {}).await;
    let refused = house.user(erin).get("/clusters/east/api").await.unwrap();
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    let said = status(&refused.body);
    assert_eq!(said["reason"], "Forbidden");
    let message = "cluster \"east\": the cluster's own rules deny the group \"system:masters\"";
    assert_eq!(said["message"], message);
    assert!(!refused.headers.keys().any(|name| name.as_str().starts_with("x-moorline-")));
    let labels = ["reason=\"identity-denied\""];
    assert!(house.agent.metric("moorline_agent_requests_refused_total", &labels).await.unwrap() >= 1.0);
}

#[tokio::test]
async fn f33_one_user_cannot_take_all_the_room_of_a_cluster() {
    let house = House::with("", |raw| raw.max_requests_per_cluster = Some(8)).await;
    let (alice, admin) = (house.user(ALICE), house.user(ADMIN));
    let mut connection = alice.connect_http2().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let watch = alice.request(Method::GET, "/clusters/east/ticks?watch=1");
        held.push(connection.send(watch).await.unwrap());
    }
    assert!(held.iter().all(|watch| watch.status() == StatusCode::OK));
    let refused = alice.get("/clusters/east/api").await.unwrap();
    assert_eq!(refused.code, StatusCode::TOO_MANY_REQUESTS);
    let said = status(&refused.body);
    assert_eq!((&said["reason"], &said["details"]["retryAfterSeconds"]), (&"TooManyRequests".into(), &1.into()));
    assert!(said["message"].as_str().unwrap().contains("your share"), "{said}");
    assert_eq!(admin.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
}

#[tokio::test]
async fn f33_who_sends_too_many_a_second_is_told_to_wait_and_nobody_else() {
    let house = House::with("", |raw| (raw.user_qps, raw.user_burst) = (Some(1), Some(20))).await;
    let (alice, admin) = (house.user(ALICE), house.user(ADMIN));
    let mut connection = alice.connect().await.unwrap();
    let (mut through, mut refused) = (0, 0);
    for _ in 0..200 {
        let response = connection.send(alice.request(Method::GET, "/clusters/east/api")).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match head.status {
            StatusCode::OK => through += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                refused += 1;
                assert_eq!(head.headers["retry-after"], "1");
                let said = status(std::str::from_utf8(&body).unwrap());
                assert_eq!(said["details"]["retryAfterSeconds"], 1);
            }
            other => panic!("{other}: {body:?}"),
        }
    }
    // As many as may come at once, and one for each second that it took.
    assert!((20..60).contains(&through), "{through}");
    // Not the first, where a second has passed since the last that was let through.
    until("she is told so here, too", async || {
        alice.get("/v1/clusters").await.unwrap().code == StatusCode::TOO_MANY_REQUESTS
    })
    .await;
    assert_eq!(admin.get("/clusters/east/api").await.unwrap().code, StatusCode::OK);
    let told = house.server.metric("moorline_gateway_failures_total", &["cause=\"user-rate\""]).await.unwrap();
    assert!(told >= f64::from(refused), "{told} of {refused}");
}

#[tokio::test]
async fn f34_no_secret_is_in_any_log() {
    let house = House::new().await;
    for secret in
        [ADMIN, ALICE, BOB, CAROL, "the-agent's-own-token", "query-secret-20af", "body-secret-7d1c", "PRIVATE KEY"]
    {
        house.logs.forbid(secret);
    }
    let key = std::fs::read_to_string(house.agent.files().join("managed-cluster.key")).unwrap();
    house.logs.forbid(key.lines().nth(1).unwrap());
    house.logs.forbid(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ALICE));
    for token in [ADMIN, ALICE, BOB, CAROL, "a-wrong-token"] {
        let client = house.user(token);
        for path in ["api/v1/pods", "status/500", "leak", "cut/10", "hang/..", "refuse-upgrade", "%zz"] {
            let path = format!("/clusters/east/{path}?access_token=query-secret-20af");
            let request = client.request_with(Method::POST, &path, full("body-secret-7d1c"));
            drop(tokio::time::timeout(Duration::from_millis(300), client.ask(request)).await);
        }
    }
    house.raw(format!("GET / HTTP/1.1\r\nAuthorization: Basic {ALICE}\r\nBad {ALICE}\r\n\r\n").as_bytes()).await;
    assert!(house.logs.contain(&["request refused"]), "the logs are looked at");
}

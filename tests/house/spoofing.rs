//! Nothing that a user writes can pass for who they are, from the gateway's door to the kube-apiserver.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use moorline_testkit::client::{Body, full};
use moorline_testkit::upstream::Seen;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::people::{ADMIN, ALICE, House, code};

/// Lines that mean something to some proxy, login service or kube-apiserver, and must mean nothing here.
const SPOOFS: [(&str, &str); 22] = [
    ("x-moorline-identity", "eyJ1c2VyIjoicm9vdCJ9"),
    ("X-Moorline-Identity", "eyJ1c2VyIjoicm9vdCJ9"),
    ("X_MOORLINE_IDENTITY", "eyJ1c2VyIjoicm9vdCJ9"),
    ("x-moorline-request-id", "root"),
    ("x-moorline-failure", "overloaded"),
    ("X-Remote-User", "root"),
    ("X-Remote-Group", "system:masters-root"),
    ("X-Remote-Uid", "root"),
    ("X-Remote-Extra-Scopes", "root"),
    ("x_remote_user", "root"),
    ("impersonate_user", "root"),
    ("Impersonate_Group", "root"),
    ("X-Forwarded-For", "root"),
    ("X-Forwarded-Client-Cert", "By=root"),
    ("X-Forwarded-User", "root"),
    ("X-Auth-Request-User", "root"),
    ("X-Client-Cert", "root"),
    ("Forwarded", "for=root"),
    ("Cookie", "session=root"),
    ("Proxy-Authorization", "Basic root"),
    ("Keep-Alive", "root"),
    ("X-Real-Ip", "root"),
];

/// What asks to be somebody else, in ways that a user without that right must be refused for.
const CLAIMS: [&str; 15] = [
    "Impersonate-User: root",
    "impersonate-user: root",
    "IMPERSONATE-USER: root",
    "iMpErSoNaTe-uSeR:root",
    "Impersonate-User: alice\r\nImpersonate-User: root",
    "Impersonate-User: root\r\nImpersonate-User: alice",
    "Impersonate-User:",
    "Impersonate-User:   \t ",
    "Impersonate-Group: system:masters",
    "Impersonate-User: alice\r\nImpersonate-Group: system:masters",
    "Impersonate-Uid: 0",
    "Impersonate-Extra-Scopes: all",
    "Impersonate-Extra-%53copes%2f%2e: all",
    "Impersonate-What-Comes-Later: root",
    "Impersonate-User: root\r\nConnection: Impersonate-User",
];

/// Alice, all of her, and nobody else.
fn is_alice(seen: &Seen) {
    assert_eq!(seen.values("impersonate-user"), ["alice"]);
    assert_eq!(seen.values("impersonate-group"), ["dev", "system:authenticated"]);
    assert_eq!(seen.values("impersonate-uid"), ["1001"]);
    assert_eq!(seen.values("authorization"), ["Bearer the-agent's-own-token"]);
    for (name, value) in &seen.headers {
        let (name, value) = (name.as_str(), String::from_utf8_lossy(value.as_bytes()));
        let written = ["impersonate-user", "impersonate-group", "impersonate-uid"].contains(&name);
        let canonical = name.replace('_', "-");
        assert!(written || !canonical.starts_with("impersonate-"), "{name}: {value}");
        for prefix in ["x-moorline", "x-remote", "x-forwarded", "proxy-", "cookie", "te", "trailer"] {
            assert!(!canonical.starts_with(prefix) || name == "transfer-encoding", "{name}: {value}");
        }
        assert!(!value.contains("root") && !value.contains(ALICE) && !value.contains("masters"), "{name}: {value}");
    }
    assert!(seen.values("content-length").len() + seen.values("transfer-encoding").len() <= 1, "{seen:?}");
}

#[tokio::test]
async fn f29_headers_that_claim_nothing_are_removed_over_either_protocol() {
    let house = House::new().await;
    let alice = house.user(ALICE);
    for mut connection in [alice.connect().await.unwrap(), alice.connect_http2().await.unwrap()] {
        let mut request = alice.request_with(Method::POST, "/clusters/east/api/v1/spoofed", full("body"));
        for (name, value) in SPOOFS {
            let name: http::HeaderName = name.to_lowercase().parse().unwrap();
            if name != "keep-alive" {
                request.headers_mut().append(&name, value.parse().unwrap());
                request.headers_mut().append(&name, value.parse().unwrap());
            }
        }
        let response = connection.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
    }
    let seen = house.upstream.seen("/api/v1/spoofed");
    assert_eq!(seen.len(), 2);
    seen.iter().for_each(is_alice);
}

#[tokio::test]
async fn f29_nor_does_any_spelling_on_the_wire_or_an_upgrade_pass() {
    let house = House::new().await;
    let lines =
        SPOOFS.map(|(name, value)| format!("{name}: {value}\r\n{}:\t{value}\t\r\n", name.to_uppercase())).concat();
    let connections = [
        "close",
        "close, Impersonate-User, x-moorline-identity",
        "close, authorization, host, x-cluster-id, impersonate-group",
        "close\r\nConnection: X-Moorline-Identity\r\nConnection: , ,impersonate-uid",
    ];
    for connection in connections {
        let answer = house
            .raw(format!("GET /clusters/east/api/v1/spoofed HTTP/1.1\r\nHost: root\r\nConnection: {connection}\r\nAuthorization: Bearer {ALICE}\r\n{lines}\r\n").as_bytes())
            .await;
        assert_eq!(code(&answer), 200, "{connection}: {answer}");
    }
    for protocol in ["SPDY/3.1", "websocket"] {
        let mut socket = house.user(ALICE).tls(&[b"http/1.1"]).await.unwrap();
        let head = format!(
            "GET /clusters/east/echo HTTP/1.1\r\nHost: root\r\nConnection: Upgrade, Impersonate-User, X-Moorline-Identity\r\n\
             Upgrade: {protocol}\r\nAuthorization: Bearer {ALICE}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.cm9vdA\r\n{lines}\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
    }
    let plain = house.upstream.seen("/api/v1/spoofed");
    let upgrades = house.upstream.seen("/echo");
    assert_eq!((plain.len(), upgrades.len()), (connections.len(), 2));
    plain.iter().chain(&upgrades).for_each(is_alice);
    for seen in upgrades {
        let protocols = seen.values("sec-websocket-protocol").concat();
        assert_eq!(protocols, "v5.channel.k8s.io");
    }
}

#[tokio::test]
async fn f29_claims_without_the_right_are_refused_and_reach_nobody() {
    let house = House::new().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    for claim in CLAIMS {
        for more in ["", upgrade, "X-Moorline-Identity: eyJ1c2VyIjoicm9vdCJ9\r\n"] {
            let head = format!(
                "GET /clusters/east/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\n{more}{claim}\r\n\r\n"
            );
            let answer = house.raw(head.as_bytes()).await;
            assert!([400, 403].contains(&code(&answer)), "{claim:?}: {answer}");
        }
        let alice = house.user(ALICE);
        let mut request = alice.request(Method::GET, "/clusters/east/api");
        for line in claim.split("\r\n").filter(|line| !line.starts_with("Connection")) {
            let (name, value) = line.split_once(':').unwrap();
            request.headers_mut().append(
                http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap(),
                value.trim().parse().unwrap(),
            );
        }
        let response = alice.connect_http2().await.unwrap().send(request).await.unwrap();
        assert!([400, 403].contains(&response.status().as_u16()), "{claim:?} over h2: {}", response.status());
    }
    assert!(house.upstream.seen_of_users().is_empty());
}

#[tokio::test]
async fn f29_only_one_bearer_token_in_its_place_says_who_asks() {
    let house = House::new().await;
    for lines in [
        String::new(),
        format!("Authorization: Bearer {ALICE}\r\nAuthorization: Bearer {ADMIN}\r\n"),
        format!("Authorization: Bearer {ALICE}\r\nauthorization: Bearer {ALICE}\r\n"),
        format!("Authorization: Bearer {ALICE}, Bearer {ADMIN}\r\n"),
        format!("Authorization: Bearer {ALICE} {ADMIN}\r\n"),
        format!("Authorization: Basic {ADMIN}\r\n"),
        format!("Authorization: Bearer\r\nX-Authorization: Bearer {ADMIN}\r\n"),
        format!("Authorization: {ADMIN}\r\n"),
        format!("Authorization: Bearer{ADMIN}\r\n"),
        format!("Authorization: Bearer {ADMIN}x\r\n"),
        format!("Authorization: Bearer \"{ADMIN}\"\r\n"),
        format!("Authorization: Token {ADMIN}\r\n"),
        format!("Authorization: Bearer {}\r\n", ADMIN.to_uppercase()),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer sha256:0000\r\n".to_owned(),
        format!("Proxy-Authorization: Bearer {ADMIN}\r\n"),
        format!("Cookie: token={ADMIN}; authorization=Bearer {ADMIN}\r\n"),
        format!("Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{ADMIN}\r\n"),
        "X-Remote-User: admin\r\nX-Remote-Group: moorline:admins\r\n".to_owned(),
    ] {
        for path in ["/clusters/east/api", "/clusters/none/api", "/v1/clusters", "/api/v1/pods"] {
            let head =
                format!("GET {path}?access_token={ADMIN} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
            let answer = house.raw(head.as_bytes()).await;
            assert_eq!(code(&answer), 401, "{lines}: {answer}");
            assert!(!answer.contains("the-token"), "{answer}");
        }
    }
    assert!(house.upstream.seen_of_users().is_empty());
}

#[tokio::test]
async fn f31_trailers_end_at_the_door() {
    let house = House::new().await;
    let head = format!(
        "POST /clusters/east/upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\n"
    );
    let trailers = "Impersonate-User: root\r\nX-Moorline-Identity: root\r\nAuthorization: Bearer root\r\n";
    let answer = house
        .raw(format!("{head}Trailer: Impersonate-User\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{trailers}\r\n").as_bytes())
        .await;
    assert!(code(&answer) == 200 && answer.contains("\r\n4"), "{answer}");

    let alice = house.user(ALICE);
    let mut map = http::HeaderMap::new();
    map.insert("impersonate-user", "root".parse().unwrap());
    let frames = [Ok(Frame::data("body".into())), Ok::<_, std::io::Error>(Frame::trailers(map))];
    let body: Body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let mut connection = alice.connect_http2().await.unwrap();
    let response = connection.send(alice.request_with(Method::POST, "/clusters/east/upload", body)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "4");

    assert_eq!(house.upstream.trailers(), 0);
    house.upstream.seen("/upload").iter().for_each(is_alice);
}

#[tokio::test]
async fn f31_what_two_readers_could_read_differently_is_refused() {
    let house = House::new().await;
    let upper = "A".repeat(70);
    for bad in [
        "GET https://localhost/clusters/east/bad HTTP/1.1\r\nHost: localhost\r\n",
        "GET http://other/clusters/east/bad HTTP/1.1\r\nHost: localhost\r\n",
        "GET //clusters/east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/east//bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/ea%73t/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/east%2fbad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/east%2Fbad/api HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/%2e%2e/api HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/../api HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/./east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters//east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/EAST/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters/ east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /clusters%2feast/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /%63lusters/east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET /x/../clusters/east/bad HTTP/1.1\r\nHost: a\r\n",
        "GET clusters/east/bad HTTP/1.1\r\nHost: a\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east\r\n",
        "CONNECT localhost:443 HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: west\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east\r\nX-Cluster-Id: east\r\n",
        "GET /api/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east\r\nX-Cluster-Id: west\r\n",
        "GET /api/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east, west\r\n",
        "GET /api/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: EAST\r\n",
        "GET //api/bad HTTP/1.1\r\nHost: a\r\nX-Cluster-Id: east\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n",
        "POST /clusters/east/bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n",
        "POST /clusters/east/bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nX-Moorline-Identity : root\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nImpersonate-User\t: root\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\n: root\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\n Impersonate-User: root\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nX-A: b\r\n Impersonate-User: root\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nImpersonate-User: ro\0ot\r\n",
        "GET /clusters/east/bad HTTP/1.1\r\nHost: a\r\nX-A: b\rImpersonate-User: root\r\n",
        "GET /clusters/east/bad HTTP/9.9\r\nHost: a\r\n",
        &format!("GET /clusters/{upper}/bad HTTP/1.1\r\nHost: a\r\n"),
    ] {
        let answer =
            house.raw(format!("{bad}Connection: close\r\nAuthorization: Bearer {ALICE}\r\n\r\n").as_bytes()).await;
        assert!((400..500).contains(&code(&answer)), "{bad:?}: {answer}");
    }
    assert!(house.upstream.seen_of_users().is_empty(), "{:?}", house.upstream.seen_of_users());
}

#[tokio::test]
async fn f31_a_request_hidden_in_a_body_stays_a_body_or_a_stranger() {
    let house = House::new().await;
    let hidden =
        "GET /clusters/east/api/v1/smuggled HTTP/1.1\r\nHost: a\r\nImpersonate-User: root\r\nConnection: close\r\n\r\n";
    let auth = format!("Host: a\r\nAuthorization: Bearer {ALICE}\r\n");
    for head in [
        format!(
            "POST /clusters/east/upload HTTP/1.1\r\n{auth}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            5 + hidden.len()
        ),
        format!(
            "POST /clusters/east/upload HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "POST /clusters/east/upload HTTP/1.1\r\n{auth}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "POST /clusters/east/upload HTTP/1.1\r\n{auth}Connection: content-length\r\nContent-Length: {}\r\n\r\n",
            hidden.len()
        ),
        format!(
            "POST /clusters/east/upload HTTP/1.1\r\n{auth}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("GET /clusters/east/upload HTTP/1.1\r\n{auth}Content-Length: {}\r\n\r\n", hidden.len()),
        format!("GET /clusters/east/status/304 HTTP/1.1\r\n{auth}Content-Length: {}\r\n\r\n", hidden.len()),
        format!("HEAD /clusters/east/api/v1/head HTTP/1.1\r\n{auth}Content-Length: {}\r\n\r\n", hidden.len()),
    ] {
        // A second request of the same user ends the connection where the first left it open.
        let answer =
            house.raw(format!("{head}{hidden}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_ne!(code(&answer), 0, "{head}");
    }
    assert!(house.upstream.seen("/api/v1/smuggled").is_empty());
    house.upstream.seen_of_users().iter().for_each(is_alice);
}

#[tokio::test]
async fn f31_paths_behind_the_name_are_for_the_cluster_that_was_named() {
    let house = House::new().await;
    for (path, arrives) in [
        ("/clusters/east", "/"),
        ("/clusters/east/", "/"),
        ("/clusters/east/../west/api", "/../west/api"),
        ("/clusters/east/%2e%2e/%2fclusters%2fwest", "/%2e%2e/%2fclusters%2fwest"),
        (
            "/clusters/east/api/v1/namespaces/a/services/https:b:/proxy//c",
            "/api/v1/namespaces/a/services/https:b:/proxy//c",
        ),
        ("/clusters/east/api?x=/clusters/west&access_token=1%0d%0a", "/api?x=/clusters/west&access_token=1%0d%0a"),
    ] {
        for lines in ["", "X-Cluster-Id: east\r\n"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: west\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\n{lines}\r\n"
            );
            assert_eq!(code(&house.raw(head.as_bytes()).await), 200, "{path}");
            let seen = house.upstream.seen_of_users().pop().unwrap();
            assert_eq!(seen.uri.to_string(), arrives);
            is_alice(&seen);
        }
    }
}

#[tokio::test]
async fn f31_http2_authorities_name_nothing() {
    let house = House::new().await;
    let tls = house.user(ALICE).tls(&[b"h2"]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tls);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let running = tokio::task::JoinSet::from_iter([async move { drop(connection.await) }]);
    for (uri, expected) in [
        ("https://west/clusters/east/api/v1/h2", 200),
        ("http://root:pw@10.0.0.1:1/clusters/east/api/v1/h2", 200),
        ("https://localhost//clusters/east/api/v1/h2", 400),
        ("https://localhost/clusters/ea%73t/api/v1/h2", 400),
    ] {
        let request = Request::get(uri)
            .header("authorization", format!("Bearer {ALICE}"))
            .header("host", "root")
            .header("te", "trailers")
            .header("x-moorline-identity", "root")
            .body(full(""))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{uri}");
    }
    let seen = house.upstream.seen_of_users();
    assert_eq!(seen.len(), 2);
    seen.iter().for_each(is_alice);
    assert!(seen.iter().all(|seen| seen.values("host") != ["root"] && seen.values("host") != ["west"]), "{seen:?}");
    drop(running);
}

/// A literal header field without indexing (RFC 7541, 6.2.2), not compressed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[0][..], &part(name), &part(value)].concat()
}

/// What the gateway says to one HTTP/2 request with this list of fields: a status, or that it broke off.
async fn http2(house: &House, fields: &[(&str, &str)]) -> Option<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS on stream 1 with END_STREAM and END_HEADERS.
    bytes.extend([length[1], length[2], length[3], 1, 0x5, 0, 0, 0, 1]);
    bytes.extend(block);
    let mut socket = house.user(ALICE).tls(&[b"h2"]).await.unwrap();
    socket.write_all(&bytes).await.unwrap();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut payload).await.ok()?;
        match head[3] {
            // The first field of an answer is its status, from the static table for the common ones.
            1 => return payload.first().copied(),
            // RST_STREAM, GOAWAY
            3 | 7 => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn f31_http2_fields_that_http1_could_not_carry_are_refused() {
    const OK: u8 = 0x88;
    let house = House::new().await;
    let token = format!("Bearer {ALICE}");
    let good = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/clusters/east/api/v1/raw"),
        (":authority", "localhost"),
        ("authorization", token.as_str()),
    ];
    assert_eq!(http2(&house, &good).await, Some(OK), "what the others differ from");
    let seen = house.upstream.seen_of_users().len();
    for bad in [
        ("x-a", "b\r\nImpersonate-User: root"),
        ("x-a", "b\nimpersonate-user: root"),
        ("x-a", "b\0c"),
        ("Impersonate-User", "root"),
        ("X-Moorline-Identity", "root"),
        ("x-a\r\nimpersonate-user", "root"),
        ("x-a: b", "root"),
        ("", "root"),
        (":path", "/clusters/west/api"),
        (":method", "POST"),
        (":authority", "west"),
        (":impersonate-user", "root"),
        ("connection", "impersonate-user"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "1"),
        ("upgrade", "SPDY/3.1"),
        ("proxy-connection", "keep-alive"),
        ("te", "chunked"),
        ("content-length", "5"),
        ("authorization", token.as_str()),
    ] {
        let fields: Vec<_> = good.into_iter().chain([bad]).collect();
        let answer = http2(&house, &fields).await;
        assert_ne!(answer, Some(OK), "{bad:?}");
    }
    for path in ["", "*", "clusters/east/api", "/clusters/east/a b\r\nx: y", "https://localhost/clusters/east/api"] {
        let fields = good.map(|(name, value)| (name, if name == ":path" { path } else { value }));
        assert_ne!(http2(&house, &fields).await, Some(OK), "{path:?}");
    }
    assert_eq!(house.upstream.seen_of_users().len(), seen, "{:?}", house.upstream.seen_of_users());
}

#[tokio::test]
async fn what_the_cluster_answers_leaks_nothing_of_the_tunnel() {
    let house = House::new().await;
    let alice = house.user(ALICE);
    // The client fails by itself on a leak.
    assert_eq!(alice.get("/clusters/east/leak").await.unwrap().body, "leaky");
    let mut connection = alice.connect_http2().await.unwrap();
    let response = connection.send(alice.request(Method::GET, "/clusters/east/leak")).await.unwrap();
    assert_eq!((response.status(), response.headers().get("authorization")), (StatusCode::OK, None));
    let answer = house.raw(format!("GET /clusters/east/leak HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ALICE}\r\n\r\n").as_bytes()).await;
    assert!(!answer.to_lowercase().contains("somebody") && answer.ends_with("leaky"), "{answer}");
}

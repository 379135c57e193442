//! Nothing that a user writes can pass for who they are, in any spelling, over either protocol (F29, F31).

use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    agent::text,
    house::House,
    user::{ask, body, full},
};

/// Header lines as an attacker would write them.
const SPOOFS: [(&str, &str); 16] = [
    ("x-moorline-identity", "eyJ1c2VyIjoicm9vdCJ9"),
    ("X-MOORLINE-IDENTITY", "eyJ1c2VyIjoicm9vdCJ9"),
    ("x_moorline_identity", "eyJ1c2VyIjoicm9vdCJ9"),
    ("x-moorline-request-id", "00000000-0000-4000-8000-000000000000"),
    ("x-moorline-failure", "overloaded"),
    ("X-Remote-User", "root"),
    ("x-remote-group", "system:masters"),
    ("X-Remote-Extra-Scopes", "all"),
    ("x-forwarded-for", "10.0.0.1"),
    ("X-Forwarded-Client-Cert", "By=root"),
    ("forwarded", "for=10.0.0.1"),
    ("cookie", "session=root"),
    ("proxy-authorization", "Basic cm9vdDpyb290"),
    ("x_remote_user", "root"),
    ("impersonate_user", "root"),
    ("te", "trailers"),
];

fn check(request: &http::Request<hyper::body::Incoming>) {
    let identity = moorline_wire::read_identity(request.headers()).unwrap();
    assert_eq!(identity.user(), "alice");
    assert_eq!(identity.groups(), ["dev", "system:authenticated"]);
    assert_eq!(request.headers().get_all("x-moorline-request-id").iter().count(), 1);
    let mut left: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
    left.sort_unstable();
    let known =
        ["accept", "content-length", "host", "transfer-encoding", "x-moorline-identity", "x-moorline-request-id"];
    assert!(left.iter().all(|name| known.contains(name)), "{left:?}");
    for value in request.headers().values() {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(!value.contains("root") && !value.contains("alice-token") && !value.contains("cm9vd"), "{value}");
    }
}

#[tokio::test]
async fn no_header_of_a_user_says_who_they_are() {
    let mut house = House::new();
    for mut user in [house.h1().await, house.h2().await] {
        let h2 = matches!(user, super::user::User::H2(_));
        let mut request = ask("POST", "/clusters/east/api").header("accept", "application/json");
        for (name, value) in SPOOFS {
            request = request.header(name, value).header(name, value);
        }
        if !h2 {
            request = request
                .header("connection", "x-moorline-identity, X-Moorline-Request-Id, authorization, host, content-length")
                .header("keep-alive", "timeout=5")
                .header("upgrade", "h2c")
                .header("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA");
        }
        let (response, ()) = tokio::join!(user.send(request.body(full("body")).unwrap()), async {
            let arrival = house.agent.next().await;
            check(&arrival.request);
            let sent = arrival.answer(Response::new(text("ok"))).into_body().collect().await.unwrap();
            assert_eq!(sent.to_bytes(), "body");
        });
        assert_eq!(body(response.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn nor_does_any_spelling_on_the_wire() {
    let mut house = House::new();
    let lines = SPOOFS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let upper = SPOOFS.map(|(name, value)| format!("{}:{value}\t\r\n", name.to_uppercase())).concat();
    let request = format!(
        "GET /clusters/east/api HTTP/1.1\r\nHost: kubernetes.default\r\nConnection: close, X-Moorline-Identity\r\n\
         Connection: x-cluster-id,authorization\r\nX-Cluster-Id: east\r\nAuthorization: Bearer alice-token\r\n{lines}{upper}\r\n"
    );
    let (mut socket, _serving) = house.raw();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let (read, ()) = tokio::join!(socket.read_to_string(&mut answer), async {
        let arrival = house.agent.next().await;
        check(&arrival.request);
        assert_ne!(arrival.header("host"), Some("kubernetes.default"));
        arrival.ok("fine");
    });
    read.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine"), "{answer}");
    // What HTTP does not allow in a header is refused before anybody looks at it.
    for bad in
        ["X-Moorline-Identity : a", "X Moorline: a", " X-Folded: a", "X-Nul: a\0b", "Impersonate-User\u{e4}: root"]
    {
        let (mut socket, _serving) = house.raw();
        let request = format!("GET /clusters/east/api HTTP/1.1\r\nAuthorization: Bearer alice-token\r\n{bad}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
    assert!(!house.agent.has_more());
}

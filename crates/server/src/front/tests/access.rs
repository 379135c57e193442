//! Who gets through, and what the others are told.

use http::Response;
use http_body_util::BodyExt as _;
use moorline_access::StaticTokens;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{
    agent::text,
    house::House,
    user::{ask, body, empty, get, status},
};

#[tokio::test]
async fn every_refusal_is_a_status_that_kubectl_understands() {
    let house = House::new();
    for mut user in [house.h1().await, house.h2().await] {
        let mut no_one = get("/clusters/east/api");
        no_one.headers_mut().remove("authorization");
        let response = user.send(no_one).await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(status(response).await["reason"], "Unauthorized");

        for wrong in ["Bearer nobody", "Basic YWxpY2U6eA==", "Bearer"] {
            let mut request = get("/clusters/east/api");
            request.headers_mut().insert("authorization", wrong.parse().unwrap());
            assert_eq!(status(user.send(request).await.unwrap()).await["code"], 401, "{wrong}");
        }

        for cluster in ["east", "west", "nowhere"] {
            let mut request = get(&format!("/clusters/{cluster}/api"));
            request.headers_mut().insert("authorization", "Bearer mallory-token".parse().unwrap());
            let status = status(user.send(request).await.unwrap()).await;
            assert_eq!(
                status["message"],
                format!(
                    "managedclusters.moorline.io \"{cluster}\" is forbidden: User \"mallory\" cannot get resource \
                     \"managedclusters\" in API group \"moorline.io\" at the cluster scope"
                ),
                "the same whether there is such a cluster or not"
            );
            assert_eq!((&status["reason"], &status["code"]), (&"Forbidden".into(), &403.into()));
        }

        let unknown = status(user.get("/clusters/nowhere/api").await).await;
        assert_eq!((&unknown["reason"], &unknown["code"]), (&"NotFound".into(), &404.into()));
        assert_eq!(unknown["details"]["kind"], "managedclusters");

        let response = user.get("/clusters/west/api").await;
        assert_eq!(response.headers()["retry-after"], "5");
        let away = status(response).await;
        assert_eq!((&away["reason"], &away["code"]), (&"ServiceUnavailable".into(), &503.into()));
        assert_eq!(away["details"]["retryAfterSeconds"], 5);

        assert_eq!(status(user.get("/clusters/East/api").await).await["code"], 400);
        assert_eq!(status(user.get("/api/v1/pods").await).await["code"], 404, "no management cluster here");

        let mut odd = get("/clusters/east/api");
        odd.headers_mut().insert("impersonate-group", "ops".parse().unwrap());
        assert_eq!(status(user.send(odd).await.unwrap()).await["code"], 400, "a group without a user");

        let head = ask("HEAD", "/clusters/nowhere/api").body(empty()).unwrap();
        let response = user.send(head).await.unwrap();
        assert_eq!((response.status().as_u16(), body(response).await.as_str()), (404, ""));
    }
}

#[tokio::test]
async fn a_user_acts_for_others_only_by_right() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let act = |pairs: &[(&'static str, &str)]| {
        let mut request = get("/clusters/east/api");
        for (name, value) in pairs {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    };
    let (response, seen) =
        tokio::join!(user.send(act(&[("Impersonate-User", "bob"), ("impersonate-group", "ops")])), async {
            let arrival = house.agent.next().await;
            let identity = moorline_wire::read_identity(arrival.request.headers()).unwrap();
            assert!(!arrival.request.headers().keys().any(|name| name.as_str().starts_with("impersonate")));
            arrival.ok("hi");
            identity
        });
    assert_eq!(body(response.unwrap()).await, "hi");
    assert_eq!(seen.user(), "bob");
    assert_eq!(seen.groups(), ["ops", "system:authenticated"], "nothing of alice's own");
    for not in
        [&[("impersonate-user", "root")][..], &[("impersonate-user", "bob"), ("impersonate-group", "system:masters")]]
    {
        assert_eq!(status(user.send(act(not)).await.unwrap()).await["code"], 403, "{not:?}");
    }
    assert!(!house.agent.has_more());
}

#[tokio::test]
async fn nobody_is_anonymous_unless_told_so_and_then_without_a_right() {
    let nobody = |more: &[(&'static str, &str)]| {
        let mut request = get("/clusters/east/api");
        request.headers_mut().remove("authorization");
        for (name, value) in more {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    };
    let off = House::new();
    assert_eq!(off.h1().await.send(nobody(&[])).await.unwrap().status(), 401);

    let mut house = House::with(|gateway| gateway.anonymous = true);
    let (mut one, mut two) = (house.h1().await, house.h2().await);
    for user in [&mut one, &mut two] {
        let refused = status(user.send(nobody(&[])).await.unwrap()).await;
        assert_eq!(refused["code"], 403);
        assert!(refused["message"].as_str().unwrap().contains("User \"system:anonymous\" cannot get"), "{refused}");
        let acting = status(user.send(nobody(&[("impersonate-user", "bob")])).await.unwrap()).await;
        assert_eq!(acting["code"], 403, "{acting}");
        for wrong in ["Bearer nobody", "Basic YWxpY2U6eA==", "Bearer", "Bearer alice-token x", ""] {
            let response = user.send(nobody(&[("authorization", wrong)])).await.unwrap();
            assert_eq!(response.status(), 401, "{wrong:?}");
        }
    }
    assert!(!house.agent.has_more());

    let rules = |group: &str| {
        let role = "{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach}";
        let group = format!("{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: '{group}'}}");
        let version = "apiVersion: rbac.authorization.k8s.io/v1";
        let text = format!(
            "{version}\nkind: ClusterRole\nmetadata: {{name: reach}}\nrules: [{{apiGroups: [moorline.io], resources: \
             [managedclusters], verbs: [get]}}]\n---\n{version}\nkind: ClusterRoleBinding\nmetadata: {{name: reach}}\n\
             roleRef: {role}\nsubjects: [{group}]\n"
        );
        moorline_access::Policy::parse(&text).unwrap()
    };
    house.state.policy.store(rules("system:authenticated").into());
    assert_eq!(one.send(nobody(&[])).await.unwrap().status(), 403, "not one of those");
    house.state.policy.store(rules("system:unauthenticated").into());
    let (response, seen) = tokio::join!(one.send(nobody(&[])), async {
        let arrival = house.agent.next().await;
        let identity = moorline_wire::read_identity(arrival.request.headers()).unwrap();
        arrival.ok("public");
        identity
    });
    assert_eq!(body(response.unwrap()).await, "public");
    assert_eq!((seen.user(), seen.groups()), ("system:anonymous", &["system:unauthenticated".to_owned()][..]));
}

#[tokio::test]
async fn a_token_that_is_taken_away_fails_on_the_open_connection() {
    let mut house = House::new();
    let mut user = house.h1().await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { house.agent.next().await.ok("yes") });
    assert_eq!(body(response).await, "yes");
    house.state.tokens.store(StaticTokens::parse("other,somebody,,\n").unwrap().into());
    assert_eq!(user.get("/clusters/east/api").await.status(), 401);
}

#[tokio::test]
async fn a_user_has_so_many_requests_at_once_and_no_more() {
    let mut house = House::with(|gateway| gateway.max_requests_per_user = 2);
    let (mut one, mut two, mut three) = (house.h1().await, house.h1().await, house.h2().await);
    let watch = "/clusters/east/api/v1/pods?watch=true";
    let running = async { tokio::join!(one.get(watch), two.get(watch)) };
    let (watches, pieces) = tokio::join!(running, async {
        let first = house.agent.next().await.stream(Response::builder());
        (first, house.agent.next().await.stream(Response::builder()))
    });
    let response = three.get("/clusters/east/api").await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(status(response).await["reason"], "TooManyRequests");
    drop((watches, one, two));
    pieces.0.1.cancelled().await;
    pieces.1.1.cancelled().await;
    let (response, ()) = tokio::join!(three.get("/clusters/east/api"), async { house.agent.next().await.ok("again") });
    assert_eq!(body(response).await, "again");
}

#[tokio::test]
async fn our_own_api_gets_the_caller_and_no_credential() {
    let house = House::new();
    let mut user = house.h2().await;
    let request = ask("GET", "/v1/clusters").header("impersonate-user", "bob").body(empty()).unwrap();
    let response = user.send(request).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(body(response).await, "alice as Some(\"bob\")");
    let mut no_one = get("/v1/clusters");
    no_one.headers_mut().remove("authorization");
    assert_eq!(status(user.send(no_one).await.unwrap()).await["code"], 401);
    let mut probe = get("/readyz");
    probe.headers_mut().remove("authorization");
    assert_eq!(body(user.send(probe).await.unwrap()).await, "ok");
}

#[tokio::test]
async fn what_the_agent_says_becomes_our_words() {
    use moorline_wire::Failure;
    let mut house = House::new();
    let mut user = house.h1().await;
    for (failure, code) in [
        (Failure::UpstreamRefused, 502),
        (Failure::UpstreamTls, 502),
        (Failure::UpstreamTimeout, 504),
        (Failure::IdentityDenied, 403),
        (Failure::Overloaded, 503),
        (Failure::ShuttingDown, 503),
    ] {
        let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async {
            let response = Response::builder()
                .status(502)
                .header("x-moorline-failure", failure.header_value())
                .header("x-moorline-secret", "detail")
                .body(text("the agent's own words"));
            house.agent.next().await.answer(response.unwrap());
        });
        assert!(!response.headers().keys().any(|name| name.as_str().starts_with("x-moorline")));
        let status = status(response).await;
        assert_eq!(status["code"], code, "{failure:?}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("\"east\"") && !message.contains("own words"), "{message}");
    }
}

async fn raw(mut socket: DuplexStream, request: &str) -> String {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn ambiguous_requests_reach_nobody() {
    let mut house = House::new();
    let auth = "Host: x\r\nConnection: close\r\nAuthorization: Bearer alice-token\r\n";
    for (request, code) in [
        (format!("POST /clusters/east/api HTTP/1.1\r\n{auth}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"), "400"),
        (format!("POST /clusters/east/api HTTP/1.1\r\n{auth}Transfer-Encoding: chunked, gzip\r\n\r\n"), "400"),
        (format!("GET http://x/clusters/east/api HTTP/1.1\r\n{auth}\r\n"), "400"),
        (format!("OPTIONS * HTTP/1.1\r\n{auth}\r\n"), "400"),
        (format!("CONNECT east:443 HTTP/1.1\r\n{auth}\r\n"), "405"),
        (format!("GET /clusters/east//api HTTP/1.1\r\n{auth}\r\n"), "400"),
        (format!("GET /clusters/east/api HTTP/1.1\r\n{auth}{}\r\n", "Impersonate-Group: g\r\n".repeat(1100)), "431"),
        (format!("GET /clusters/east/api HTTP/1.1\r\n{auth}X-Long: {}\r\n\r\n", "a".repeat(200 * 1024)), "431"),
        (format!("GET /clusters/east/api HTTP/1.1\r\n{auth}X-Long: {}\r\n\r\n", "a".repeat(2 * 1024 * 1024)), "431"),
    ] {
        let sent = tokio::time::timeout(std::time::Duration::from_secs(20), raw_lenient(&house, &request))
            .await
            .unwrap_or_default();
        assert!(sent.starts_with(&format!("HTTP/1.1 {code} ")), "{:.160} -> {sent:.60}", request);
    }
    assert!(!house.agent.has_more());
    // Of two ways to tell where a body ends one is left, and nothing behind it is read as a request.
    for framing in
        ["Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Length: 3\r\nTransfer-Encoding: chunked"]
    {
        let request = format!(
            "POST /clusters/east/api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice-token\r\n{framing}\r\n\r\n\
             4\r\nabcd\r\n0\r\nImpersonate-User: root\r\n\r\nGET /clusters/east/smuggled HTTP/1.1\r\n\r\n"
        );
        let (answer, body) = tokio::join!(raw(house.raw().0, &request), async {
            let arrival = house.agent.next().await;
            assert_eq!(arrival.path(), "/api");
            assert_eq!(
                (arrival.header("content-length"), arrival.header("transfer-encoding")),
                (None, Some("chunked"))
            );
            let request = arrival.answer(Response::new(text("done")));
            request.into_body().collect().await.unwrap()
        });
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
        assert_eq!(body.trailers(), None, "trailers are headers that nobody checked");
        assert_eq!(body.to_bytes(), "abcd");
    }
    assert!(!house.agent.has_more());
}

/// Writes what the gateway takes, since it may answer before it has read everything.
async fn raw_lenient(house: &House, request: &str) -> String {
    let (socket, _serving) = house.raw();
    let (mut read, mut write) = tokio::io::split(socket);
    let mut answer = Vec::new();
    let (written, read) = tokio::join!(write.write_all(request.as_bytes()), read.read_to_end(&mut answer));
    drop((written, read));
    String::from_utf8(answer).unwrap()
}

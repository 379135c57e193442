//! What is out of order behind one agent: told quickly, in Kubernetes' words, and felt by nobody else.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use moorline_api::ConditionStatus;
use moorline_testkit::client::Answer;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::Link;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

use super::people::until;

/// Well below any time-out of kubectl; the rest is for a busy machine.
const QUICKLY: Duration = Duration::from_secs(5);

fn is_told(answer: &Answer) {
    let told = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    assert!(told.contains(&answer.code), "{} {}", answer.code, answer.body);
    assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
}

#[tokio::test]
async fn f11_f19_a_dead_kube_apiserver_is_told_at_once_and_shown() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let _agent = server.agent("east", &upstream.url()).await.unwrap();
    until("it shows as connected", async || server.cluster("east").await.unwrap().status.connected).await;
    drop(upstream);
    let user = server.admin_client().unwrap();
    let asked = Instant::now();
    is_told(&user.get("/clusters/east/api").await.unwrap());
    assert!(asked.elapsed() < QUICKLY, "{:?}", asked.elapsed());
    // The session lives; what is shown comes from the end of the way.
    until("it shows as not connected", async || !server.cluster("east").await.unwrap().status.connected).await;
    let status = server.cluster("east").await.unwrap().status;
    let condition = &status.conditions[0];
    assert_eq!((condition.kind.as_str(), condition.status), ("ManagedClusterConnected", ConditionStatus::False));
    assert_eq!(condition.reason, "KubeAPIServerUnreachable");
    assert!(condition.message.contains("cannot reach its kube-apiserver"), "{}", condition.message);
    assert!(condition.last_transition_time.is_some());
    assert_eq!(status.sessions.len(), 1);
}

#[tokio::test]
async fn f11_a_silent_kube_apiserver_is_given_up_and_what_hung_is_removed() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let link = Link::to(upstream.address()).await.unwrap();
    let created = server.create("east").await.unwrap();
    let url = format!("http://{}", link.address());
    let _agent =
        Agent::start(&created, server.tunnel, &url, |raw| raw.kube_response_timeout = Some("1s".to_owned())).unwrap();
    server.connected("east").await.unwrap();
    link.fall_silent();
    let user = server.admin_client().unwrap();
    let asked = Instant::now();
    is_told(&user.get("/clusters/east/api").await.unwrap());
    assert!(asked.elapsed() < QUICKLY, "{:?}", asked.elapsed());
    // A watch may take as long as it likes; when its user leaves, it goes.
    let request = user.request(Method::GET, "/clusters/east/api/v1/pods?watch=true");
    let left = tokio::time::timeout(Duration::from_millis(200), user.send(request)).await;
    assert!(left.is_err());
    until("nothing is pending", async || server.metric("moorline_gateway_requests_running", &[]).await.unwrap() == 0.0)
        .await;
}

#[tokio::test]
async fn f20_a_cluster_that_hangs_does_not_slow_another() {
    let _logs = Logs::capture();
    const PENDING: usize = 50;
    let (bad, good) = (Upstream::start().await.unwrap(), Upstream::start().await.unwrap());
    let server = Server::start().await.unwrap();
    let link = Link::to(server.tunnel).await.unwrap();
    let created = server.create("bad").await.unwrap();
    let _bad = Agent::start(&created, link.address(), &bad.url(), |_| {}).unwrap();
    let _good = server.agent("good", &good.url()).await.unwrap();
    server.connected("bad").await.unwrap();
    let user = server.admin_client().unwrap();
    // On a busy machine, too, each takes far less than what the bad one waits for.
    let usual = QUICKLY + 5 * hundred(&server).await;
    let mut pending = JoinSet::new();
    for _ in 0..PENDING {
        let user = user.clone();
        pending.spawn(async move { user.get("/clusters/bad/hang").await });
    }
    until("all are pending", async || bad.running() == PENDING).await;
    let good_is_usual = async || {
        let took = hundred(&server).await;
        assert!(took < usual, "{took:?}");
    };
    good_is_usual().await;
    // The same while its agent is gone and nobody knows yet, and while that is found.
    link.fall_silent();
    good_is_usual().await;
    while let Some(answer) = pending.join_next().await {
        is_told(&answer.unwrap().unwrap());
    }
    good_is_usual().await;
}

/// How long a hundred requests on one connection to the good one take.
async fn hundred(server: &Server) -> Duration {
    let user = server.admin_client().unwrap();
    let mut connection = user.connect().await.unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        let response = connection.send(user.request(Method::GET, "/clusters/good/api")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test]
async fn f35_the_agent_dials_its_kube_apiserver_and_nothing_else() {
    let house = super::people::House::new().await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let token = super::people::ALICE;
    let there = format!("127.0.0.1:{port}");
    for head in [
        format!("GET http://{there}/clusters/east/api HTTP/1.1\r\nHost: {there}\r\n"),
        format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n"),
        format!("GET /clusters/east/http://{there}/x HTTP/1.1\r\nHost: {there}\r\n"),
        format!("GET /clusters/east//{there}/x HTTP/1.1\r\nHost: a\r\n"),
        format!("GET /clusters/east/api HTTP/1.1\r\nHost: {there}\r\nX-Forwarded-Host: {there}\r\n"),
        format!("GET /clusters/east/@{there}/ HTTP/1.1\r\nHost: a\r\nForwarded: host={there}\r\n"),
    ] {
        let answer =
            house.raw(format!("{head}Authorization: Bearer {token}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{head}{answer}");
    }
    let nobody = elsewhere.accept().map(|_| ()).unwrap_err().kind();
    assert_eq!(nobody, std::io::ErrorKind::WouldBlock, "somebody dialled elsewhere");
    for seen in house.upstream.seen_of_users() {
        assert_eq!(seen.values("host"), [house.upstream.address().to_string()], "{}", seen.uri);
        assert!(seen.uri.host().is_none(), "{}", seen.uri);
    }
}

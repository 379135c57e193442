//! A management cluster whose kube-apiserver is slow, answers nonsense, or is not there: nobody is let in, nobody waits
//! long, and all is well when it is.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use moorline_process::write_private;
use moorline_server::RawConfig;
use moorline_testkit::client::Client;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::reviewer::{Counts, Mood, Reviewer};
use moorline_testkit::upstream::Upstream;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::people::until;

const ADMIN: &str = "the-token-of-admin-93d1";
const ANN: &str = "good-ann";

/// What the server is told that a question may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A request takes a question about the token and, all together, as long as three about the rights. So much less than
/// ten seconds is that, that a busy machine does not make it ten.
const OVER: Duration = Duration::from_secs(9);

const VERSION: &str = "/clusters/east/version?from=a-user";

struct House {
    server: Server,
    reviewer: Reviewer,
    upstream: Upstream,
    _agent: Agent,
    _logs: Logs,
}

impl House {
    /// Answers are remembered for so long.
    async fn new(lives: &str) -> Self {
        Self::with(lives, TIMEOUT).await
    }

    /// The same, where a question may take this long.
    async fn with(lives: &str, timeout: Duration) -> Self {
        let logs = Logs::capture();
        logs.forbid(ADMIN);
        logs.forbid(ANN);
        let directory = tempfile::tempdir().unwrap();
        let line = format!("{ADMIN},admin,,\n");
        write_private(&directory.path().join("tokens.csv"), line.as_bytes()).unwrap();
        let reviewer = Reviewer::start().await.unwrap();
        let kubeconfig = reviewer.kubeconfig(directory.path()).unwrap();
        let lives = Some(lives.to_owned());
        let change = |raw: &mut RawConfig| {
            (raw.kubernetes_authn, raw.kubernetes_authz) = (true, true);
            raw.kubeconfig = Some(kubeconfig);
            raw.kubernetes_timeout = Some(format!("{}ms", timeout.as_millis()));
            raw.authentication_cache_ttl.clone_from(&lives);
            raw.authentication_cache_unauthenticated_ttl.clone_from(&lives);
            raw.authorization_cache_authorized_ttl.clone_from(&lives);
            raw.authorization_cache_unauthorized_ttl.clone_from(&lives);
        };
        let server = Server::start_in(directory, change).await.unwrap();
        let upstream = Upstream::start_for(1024).await.unwrap();
        let agent = server.agent("east", &upstream.url()).await.unwrap();
        Self { server, reviewer, upstream, _agent: agent, _logs: logs }
    }

    fn user(&self, token: &str) -> Client {
        // The token of the state directory is not in this house's table.
        let directory = self.server.directory();
        let authority = std::fs::read(directory.join("gateway-ca.crt")).unwrap();
        Client::new(self.server.gateway, &authority, token).unwrap()
    }

    fn arrived(&self) -> usize {
        self.upstream.seen("/version").iter().filter(|seen| seen.uri.query() == Some("from=a-user")).count()
    }

    async fn is_well(&self) {
        for token in [ANN, ADMIN] {
            let client = self.user(token);
            until("all is well", async || client.get(VERSION).await.unwrap().code == StatusCode::OK).await;
        }
    }

    /// One who is known only to Kubernetes, one whose rights only it knows, and one whom nobody knows, several times.
    async fn nobody_gets_in(&self, mood: &Mood) {
        let before = self.arrived();
        let mut asking = JoinSet::new();
        for token in [ANN, ADMIN, "made-up", ANN, ADMIN, "good-bob"] {
            let client = self.user(token);
            let mut acting = client.request(Method::GET, VERSION);
            acting.headers_mut().insert("impersonate-user", HeaderValue::from_static("carl"));
            for request in [client.request(Method::GET, VERSION), acting] {
                let client = client.clone();
                asking.spawn(async move {
                    let began = Instant::now();
                    (client.ask(request).await.unwrap(), began.elapsed())
                });
            }
        }
        while let Some(asked) = asking.join_next().await {
            let (answer, took) = asked.unwrap();
            assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{mood:?}: {answer:?}");
            let status: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"ServiceUnavailable".into()));
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            assert!(took < OVER, "{mood:?}: {took:?}");
        }
        assert_eq!(self.arrived(), before, "{mood:?}: somebody got in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_whatever_the_management_cluster_says_instead_of_yes_lets_nobody_in() {
    let mut house = House::new("0").await;
    let yes = r#"{"kind":"Status","status":{"authenticated":true,"allowed":true}}"#;
    for mood in [
        Mood::Slow(Duration::from_secs(10)),
        Mood::Body(200, "<html>please log in</html>"),
        Mood::Body(200, r#"{"status":{"authenticated":"#),
        Mood::Body(200, yes),
        Mood::Body(500, yes),
        Mood::Body(429, ""),
        Mood::WrongKind,
        Mood::Truncated,
        Mood::Cut,
        Mood::Down,
    ] {
        house.is_well().await;
        house.reviewer.feels(mood.clone()).await.unwrap();
        house.nobody_gets_in(&mood).await;
        house.reviewer.feels(Mood::Well).await.unwrap();
    }
    house.is_well().await;
    let nobody = house.user("made-up").get(VERSION).await.unwrap();
    assert_eq!(nobody.code, StatusCode::UNAUTHORIZED, "it can tell again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_equal_questions_of_many_requests_are_one_and_fifty_groups_too() {
    // None is given up and asked again while the machine is busy.
    let mut house = House::with("1h", Duration::from_secs(10)).await;
    house.reviewer.feels(Mood::Slow(Duration::from_millis(300))).await.unwrap();
    let before = house.reviewer.counts();
    for _round in 0..2 {
        let mut asking = JoinSet::new();
        for _ in 0..20 {
            let client = house.user(ANN);
            asking.spawn(async move { client.get(VERSION).await.unwrap().code });
        }
        while let Some(code) = asking.join_next().await {
            assert_eq!(code.unwrap(), StatusCode::OK);
        }
    }
    let after = house.reviewer.counts();
    assert_eq!(after, Counts { tokens: before.tokens + 1, access: before.access + 1 });
    let seen = house.upstream.seen("/version");
    let user = seen.iter().find(|seen| seen.values("impersonate-user") == ["ann"]).unwrap();
    assert_eq!(user.values("impersonate-group").len(), moorline_testkit::reviewer::GROUPS);
}

/// Each value that somebody acts with is a question of its own; slow answers to many of them do not add up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_acting_with_many_values_takes_no_longer_than_three_questions_may() {
    let mut house = House::new("1h").await;
    house.is_well().await;
    house.reviewer.feels(Mood::Slow(TIMEOUT / 2)).await.unwrap();
    let client = house.user(ADMIN);
    let act = |groups: usize| {
        let mut request = client.request(Method::GET, VERSION);
        request.headers_mut().insert("impersonate-user", HeaderValue::from_static("dora"));
        for group in 0..groups {
            request.headers_mut().append("impersonate-group", format!("g{group}").parse().unwrap());
        }
        request
    };
    let began = Instant::now();
    let answer = client.ask(act(100)).await.unwrap();
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(began.elapsed() < OVER, "{:?}", began.elapsed());
    house.reviewer.feels(Mood::Well).await.unwrap();
    // What was answered is remembered, so that each attempt has less to ask.
    until("it gets through", async || client.ask(act(100)).await.unwrap().code == StatusCode::OK).await;
}

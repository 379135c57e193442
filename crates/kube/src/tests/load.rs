//! What many ask at once, and what strangers make up: bounded in time, in questions under way and in memory.
//!
//! Nothing goes over a network here, so a slow kube-apiserver is one that answers after ten seconds of a clock that the
//! test moves.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use moorline_access::{Authenticator as _, Authorizer as _};
use moorline_model::Identity;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{LONG, reach};
use crate::{
    AccessReviews, Connection, TokenReviews,
    cache::{ENTRY, MAX_NO},
    call::MAX_CALLS,
};

/// As the default of the server.
const TIMEOUT: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_secs(10);

/// Knows tokens that begin with `good`, and allows everything.
#[derive(Clone, Default)]
struct Script {
    delay_ms: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// Counts down when it is answered or hung up on.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    fn slow(self, delay: Duration) -> Self {
        self.delay_ms.store(delay.as_millis().try_into().unwrap(), Ordering::SeqCst);
        self
    }

    fn connection(&self) -> Connection {
        let script = self.clone();
        let service = tower::service_fn(move |request| script.clone().answer(request));
        Connection::over(service, TIMEOUT)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running));
        self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let delay = Duration::from_millis(self.delay_ms.load(Ordering::SeqCst) as u64);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let user = token.starts_with("good").then(|| json!({ "username": token }));
        review["status"] = json!({ "authenticated": user.is_some(), "user": user, "allowed": true });
        Ok(Response::new(Body::from(review.to_string().into_bytes())))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn tokens(&self) -> Arc<TokenReviews> {
        Arc::new(TokenReviews::new(self.connection(), Vec::new(), LONG))
    }
}

#[tokio::test(start_paused = true)]
async fn f28_ten_seconds_are_too_long_for_everybody_and_nobody_waits_for_them() {
    let script = Script::default().slow(SLOW);
    let (tokens, began) = (script.tokens(), Instant::now());
    // Far more than are asked at once, and several for each.
    let mut waiting = JoinSet::new();
    for number in 0..5 * MAX_CALLS {
        let tokens = Arc::clone(&tokens);
        waiting.spawn(async move { tokens.authenticate(&format!("good-{}", number % (3 * MAX_CALLS))).await });
    }
    while let Some(answer) = waiting.join_next().await {
        answer.unwrap().expect_err("a user");
        assert!(began.elapsed() <= TIMEOUT + Duration::from_millis(10), "{:?}", began.elapsed());
    }
    assert_eq!(script.most.load(Ordering::SeqCst), MAX_CALLS, "and no more at once");
    assert_eq!(script.running.load(Ordering::SeqCst), 0, "who has gone is not worked for");
    let script = script.slow(Duration::ZERO);
    for number in 0..3 * MAX_CALLS {
        assert!(tokens.authenticate(&format!("good-{number}")).await.unwrap().is_some());
    }
    assert!(script.asked() <= 4 * MAX_CALLS);
}

/// Each hangs up when the next has come to wait for the same: nobody's time begins anew with another's question.
#[tokio::test(start_paused = true)]
async fn f28_who_waits_for_others_that_give_up_has_only_their_own_time() {
    let tokens = Script::default().slow(SLOW).tokens();
    let mut leaving = JoinSet::new();
    for number in 1..20_u32 {
        let tokens = Arc::clone(&tokens);
        leaving.spawn(async move {
            let gives_up = Duration::from_millis(400) * number;
            drop(tokio::time::timeout(gives_up, tokens.authenticate("good")).await);
        });
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    tokens.authenticate("good").await.expect_err("a user");
    assert!(began.elapsed() <= TIMEOUT + Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn f28_made_up_tokens_keep_nobody_who_is_known_waiting() {
    let script = Script::default().slow(SLOW);
    let connection = script.connection();
    let tokens = Arc::new(TokenReviews::new(connection.clone(), Vec::new(), LONG));
    let reviews = AccessReviews::new(connection, LONG);
    let mut strangers = JoinSet::new();
    for number in 0..3 * MAX_CALLS {
        let tokens = Arc::clone(&tokens);
        strangers.spawn(async move { tokens.authenticate(&format!("made-up-{number}")).await });
    }
    while script.running.load(Ordering::SeqCst) < MAX_CALLS {
        tokio::task::yield_now().await;
    }
    let _script = script.slow(Duration::from_secs(1));
    let began = Instant::now();
    reviews.decide(&Identity::new("ann").unwrap(), &reach("east")).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn a_hundred_thousand_made_up_tokens_take_bounded_room_and_nobodys_place() {
    const GOOD: usize = 1_000;
    let script = Script::default();
    let tokens = script.tokens();
    for number in 0..GOOD {
        assert!(tokens.authenticate(&format!("good-{number}")).await.unwrap().is_some());
    }
    for number in 0..100_000 {
        assert_eq!(tokens.authenticate(&format!("garbage-{number}")).await, Ok(None));
    }
    let [(good, _), (garbage, bytes)] = tokens.settled().await;
    assert_eq!(good, GOOD as u64);
    assert!(bytes <= MAX_NO && garbage <= MAX_NO / ENTRY as u64, "{garbage} entries, {bytes} bytes");
    assert!(garbage > 1_000, "{garbage}");
    let asked = script.asked();
    for number in 0..GOOD {
        assert!(tokens.authenticate(&format!("good-{number}")).await.unwrap().is_some());
    }
    assert_eq!(script.asked(), asked, "all who were known still are");
}

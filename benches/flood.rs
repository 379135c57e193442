//! What one user's flood does to another user's requests, without and with a rate for each user.
//!
//! Origin, server and agent are processes of their own; the callers are in this one. Those of the flood do what client-go
//! does: they come again at once after an answer, and after the time that a `429` says. Run it with
//! `cargo bench --package moorline-benches --bench flood`.

mod parts;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use moorline_api::{CreatedUser, paths};
use moorline_testkit::client::{Client, full};

use parts::{Origin, ServerProcess, Wishes, median, middle_and_late, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Callers of the flood, and requests a second that a user may send: none said, and one.
const CALLERS: usize = 64;
const RATES: [Option<u32>; 2] = [None, Some(200)];

/// Small requests beside the flood, one after the other, in each round; and rounds.
const REQUESTS: usize = 300;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let origin = Origin::start()?;
    say("--user-qps   of the flood   p50 µs   p99 µs   (alone, and beside it)");
    for rate in RATES {
        let server = ServerProcess::start_with(Wishes { rate, ..Wishes::default() })?;
        let _agent = server.agent("east", &origin.url()).await?;
        let (ann, bob) = (user(&server, "ann").await?, user(&server, "bob").await?);
        let allowed = rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
        for callers in [0, CALLERS] {
            let (mut middle, mut late) = (Vec::new(), Vec::new());
            let flood = async {
                try_join_all((0..callers).map(|_| flood(&bob))).await?;
                std::future::pending().await
            };
            let measured = async {
                for _ in 0..ROUNDS {
                    let (p50, p99) = beside(&ann).await?;
                    middle.push(p50);
                    late.push(p99);
                }
                anyhow::Ok(())
            };
            let over = tokio::select! {
                failed = flood => failed,
                measured = measured => measured,
            };
            over?;
            say(&format!("{allowed:>10} {callers:>14} {:>8.0} {:>8.0}", median(middle), median(late)));
        }
    }
    Ok(())
}

/// A user who may reach the cluster.
async fn user(server: &ServerProcess, name: &str) -> Result<Client> {
    let admin = server.user()?;
    let body = full(format!("{{\"name\":{name:?},\"groups\":[\"moorline:admins\"]}}"));
    let answer = admin.ask(admin.request_with(Method::POST, paths::USERS, body)).await?;
    ensure!(answer.code == StatusCode::CREATED, "{}", answer.body);
    let created: CreatedUser = serde_json::from_str(&answer.body)?;
    Ok(admin.with_token(created.token.expose()))
}

/// One caller of the flood. Ends only by an error.
async fn flood(user: &Client) -> Result<()> {
    let mut connection = user.connect().await?;
    loop {
        let response = connection.send(user.request(Method::GET, "/clusters/east/bytes/1024")).await?;
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        response.into_body().collect().await?;
        if let Some(wait) = wait {
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }
}

/// The median and the 99th percentile of small requests on one kept connection, in microseconds. Slow
/// enough to stay below the rate that users may have.
async fn beside(user: &Client) -> Result<(f64, f64)> {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut connection = user.connect().await?;
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let response = connection.send(user.request(Method::GET, "/clusters/east/bytes/1024")).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        response.into_body().collect().await?;
        took.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(middle_and_late(took))
}

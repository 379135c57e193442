//! What remembering the answers of the management cluster's Kubernetes saves: requests a second and their latency where
//! nothing is asked of it, where its answers are remembered, and where it is asked about each request.
//!
//! Server, agent, origin, callers and a scripted kube-apiserver that answers reviews after two milliseconds, as a real one
//! does, share this process. Run it with `cargo bench --package moorline-benches --bench reviews`.

mod parts;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::client::Client;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::reviewer::{GOOD, Mood, Reviewer};
use moorline_testkit::upstream::Upstream;
use tokio::task::JoinSet;

use parts::{median, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);

/// What a kube-apiserver takes for a review.
const REVIEW: Duration = Duration::from_millis(2);

/// One way to be known and judged.
struct Way {
    name: &'static str,
    reviewer: Reviewer,
    client: Client,
    _server: Server,
    _agent: Agent,
}

impl Way {
    /// With answers remembered for so long; with nothing asked where there is no time.
    async fn new(name: &'static str, lives: Option<&str>, upstream: &Upstream) -> Result<Self> {
        let (mut reviewer, directory) = (Reviewer::start().await?, tempfile::tempdir()?);
        reviewer.feels(Mood::Slow(REVIEW)).await?;
        let kubeconfig = reviewer.kubeconfig(directory.path())?;
        let server = Server::start_in(directory, |raw| {
            (raw.kubernetes_authn, raw.kubernetes_authz) = (lives.is_some(), lives.is_some());
            raw.kubeconfig = lives.map(|_| kubeconfig);
            let lives = lives.map(str::to_owned);
            raw.authentication_cache_ttl.clone_from(&lives);
            raw.authentication_cache_unauthenticated_ttl.clone_from(&lives);
            raw.authorization_cache_authorized_ttl.clone_from(&lives);
            raw.authorization_cache_unauthorized_ttl.clone_from(&lives);
        });
        let server = server.await?;
        let agent = server.agent("east", &upstream.url()).await?;
        let admin = server.admin_client()?;
        let client = if lives.is_some() { admin.with_token(&format!("{GOOD}ann")) } else { admin };
        Ok(Self { name, reviewer, client, _server: server, _agent: agent })
    }

    /// Requests a second of so many callers on kept connections, the median of their latencies in microseconds, and the
    /// reviews for each request.
    async fn round(&self, callers: usize) -> Result<[f64; 3]> {
        let before = self.reviewer.counts();
        let end = Instant::now() + ROUND;
        let mut calling = JoinSet::new();
        for _ in 0..callers {
            let client = self.client.clone();
            calling.spawn(async move {
                let (mut connection, mut latencies) = (client.connect().await?, Vec::new());
                while Instant::now() < end {
                    let began = Instant::now();
                    let response = connection.send(client.request(Method::GET, "/clusters/east/bytes/1024")).await?;
                    ensure!(response.status() == StatusCode::OK, "{}", response.status());
                    response.into_body().collect().await?;
                    latencies.push(began.elapsed().as_secs_f64() * 1e6);
                }
                Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(called) = calling.join_next().await {
            latencies.extend(called.context("a caller")??);
        }
        let (requests, after) = (latencies.len() as f64, self.reviewer.counts());
        let reviews = (after.tokens + after.access - before.tokens - before.access) as f64;
        Ok([requests / ROUND.as_secs_f64(), median(latencies), reviews / requests])
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let upstream = Upstream::start_for(1024).await?;
    let ways = [
        Way::new("static token, policy file", None, &upstream).await?,
        Way::new("reviews, remembered for 10 s", Some("10s"), &upstream).await?,
        Way::new("reviews, not remembered", Some("0"), &upstream).await?,
    ];
    for callers in [1, 32] {
        let mut figures = vec![[const { Vec::new() }; 3]; ways.len()];
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                for (figure, figures) in way.round(callers).await?.into_iter().zip(figures) {
                    figures.push(figure);
                }
            }
        }
        say(&format!("{callers} on kept connections, 1 KiB, a user in 50 groups"));
        for (way, figures) in ways.iter().zip(figures) {
            let [rate, latency, reviews] = figures.map(median);
            let name = way.name;
            say(&format!("  {name:<30} {rate:>7.0} requests/s  {latency:>6.0} µs  {reviews:.3} reviews each"));
        }
    }
    Ok(())
}

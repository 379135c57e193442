//! What the way through server, tunnel and agent costs, as ratios to the same requests sent straight to the origin.
//!
//! Origin, server and agent are processes of their own, on the cores of this one, which holds the callers. The way
//! through pays for three hops of TLS and HTTP, authentication, authorisation and impersonation; the direct way is plain
//! HTTP. Each figure is the median of interleaved rounds. Run it with
//! `cargo bench --package moorline-benches --bench through_the_house`.
//!
//! Where `MOORLINE_BENCH_RATHOLE` names the program of rathole, a relay of plain TCP connections through TLS, it is a
//! third way in the same rounds. It reads no request: what lies between the two is what knowing the user costs.

mod parts;
mod rathole;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_testkit::client::{Body, Client, empty};
use moorline_testkit::link::Link;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use parts::{MIB, Origin, ServerProcess, median, say};
use rathole::Rathole;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const BULK: u64 = 256 * MIB;

/// The round trip of a long way.
const FAR: Duration = Duration::from_millis(50);

/// Where requests go, and with what.
#[derive(Clone)]
enum Way {
    /// Straight to an origin, or to what stands for one.
    Plain(SocketAddr),
    Through(Client),
}

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let origin = Origin::start()?;
    let server = ServerProcess::start()?;
    let _near = server.agent("near", &origin.url()).await?;
    let through = Way::Through(server.user()?);
    let relay = Rathole::start(origin.address, None).await?;
    let ways = |direct, relay: Option<&Rathole>| {
        let relay = relay.map(|relay| ("rathole", Way::Plain(relay.address)));
        [Some(("direct", Way::Plain(direct))), Some(("moorline", through.clone())), relay]
            .into_iter()
            .flatten()
            .collect()
    };

    let near: Vec<_> = ways(origin.address, relay.as_ref());
    for callers in [1, 32] {
        let what = format!("requests/s, 1 KiB, {callers} on kept connections");
        compare(&what, &near, |way| requests(way, "near", callers)).await?;
    }
    compare("requests/s, 1 KiB, 16 on new connections", &near, |way| connections(way, "near", 16)).await?;
    compare("MiB/s, one answer of 256 MiB", &near, |way| bulk(way, "near")).await?;

    let link = Link::to(server.tunnel).await?;
    link.set_round_trip(FAR);
    let _far = server.agent_at(link.address(), "far", &origin.url()).await?;
    // One TCP connection over a link of the same kind: what the link lets through.
    let plain = Link::to(origin.address).await?;
    plain.set_round_trip(FAR);
    let relay = Rathole::start(origin.address, Some(FAR)).await?;
    let far: Vec<_> = ways(plain.address(), relay.as_ref());
    compare("MiB/s, the same at a round trip of 50 ms", &far, |way| bulk(way, "far")).await
}

/// Says the medians of rounds of all ways, taken in turns so that all see the same machine, and the ratios to the first.
async fn compare<F>(what: &str, ways: &[(&str, Way)], measure: impl Fn(Way) -> F) -> Result<()>
where
    F: Future<Output = Result<f64>>,
{
    let mut figures = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, way), figures) in ways.iter().zip(&mut figures) {
            figures.push(measure(way.clone()).await?);
        }
    }
    let medians: Vec<_> = figures.into_iter().map(median).collect();
    let first = medians.first().copied().unwrap_or(1.0);
    let columns = ways.iter().zip(&medians);
    let columns: Vec<_> =
        columns.map(|((name, _), median)| format!("{name} {median:>8.0} {:>5.2}", median / first)).collect();
    say(&format!("{what:<44} {}", columns.join("   ")));
    Ok(())
}

/// Requests a second on kept connections.
async fn requests(way: Way, cluster: &'static str, callers: usize) -> Result<f64> {
    per_second(way, callers, move |way| async move {
        let mut connection = way.connect().await?;
        let end = Instant::now() + ROUND;
        let mut done = 0_u64;
        while Instant::now() < end {
            let response = connection.send_request(way.request(cluster, "/bytes/1024")).await?;
            response.into_body().collect().await?;
            done += 1;
        }
        Ok(done)
    })
    .await
}

/// Requests a second, each on a connection of its own.
async fn connections(way: Way, cluster: &'static str, callers: usize) -> Result<f64> {
    per_second(way, callers, move |way| async move {
        let end = Instant::now() + ROUND;
        let mut done = 0_u64;
        while Instant::now() < end {
            let mut connection = way.connect().await?;
            let response = connection.send_request(way.request(cluster, "/bytes/1024")).await?;
            response.into_body().collect().await?;
            done += 1;
        }
        Ok(done)
    })
    .await
}

/// MiB a second of one answer.
async fn bulk(way: Way, cluster: &'static str) -> Result<f64> {
    let mut connection = way.connect().await?;
    let begun = Instant::now();
    let response = connection.send_request(way.request(cluster, &format!("/bytes/{BULK}"))).await?;
    let mut body = response.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    anyhow::ensure!(came == BULK, "{came} bytes came");
    Ok((BULK / MIB) as f64 / begun.elapsed().as_secs_f64())
}

async fn per_second<F>(way: Way, callers: usize, call: impl Fn(Way) -> F) -> Result<f64>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..callers {
        all.spawn(call(way.clone()));
    }
    let mut done = 0;
    while let Some(one) = all.join_next().await {
        done += one??;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

impl Way {
    async fn connect(&self) -> Result<http1::SendRequest<Body>> {
        match self {
            Self::Plain(address) => {
                let socket = TcpStream::connect(address).await.context("connecting to the origin")?;
                socket.set_nodelay(true)?;
                handshake(socket).await
            }
            Self::Through(client) => handshake(client.tls(&[b"http/1.1"]).await?).await,
        }
    }

    fn request(&self, cluster: &str, path: &str) -> Request<Body> {
        match self {
            Self::Plain(_) => {
                let mut request = Request::new(empty());
                *request.uri_mut() = path.parse().unwrap_or_default();
                request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("origin"));
                request
            }
            Self::Through(client) => client.request(Method::GET, &format!("/clusters/{cluster}{path}")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "callers are outside of what is measured")]
async fn handshake<IO>(io: IO) -> Result<http1::SendRequest<Body>>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

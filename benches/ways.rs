//! The ways that requests take to the same origin, and what is measured on each of them.
//!
//! Called by `through_the_house` and `services`. Callers are tasks of the bench's own process.
#![allow(dead_code, reason = "each bench uses its ways")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_testkit::client::{Body, Client, empty};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::parts::{MIB, median, say};

/// The round trip of a long way.
pub(crate) const FAR: Duration = Duration::from_millis(50);

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const BULK: u64 = 256 * MIB;

/// Where requests go, and with what.
#[derive(Clone)]
pub(crate) enum Way {
    /// In plain HTTP to an origin, or to what stands for one.
    Plain(SocketAddr),
    /// As a user, to the cluster of that name.
    Through(Client, &'static str),
}

/// Ways by name; the others are compared to the first.
pub(crate) type Ways = Vec<(&'static str, Way)>;

/// Small requests on kept connections, of one caller and of many, and on new ones; and one long answer.
///
/// # Errors
/// When a request fails on any of them.
pub(crate) async fn compare_all(ways: &Ways) -> Result<()> {
    for callers in [1, 32] {
        let what = format!("requests/s, 1 KiB, {callers} on kept connections");
        compare(&what, ways, |way| requests(way, callers)).await?;
    }
    compare("requests/s, 1 KiB, 16 on new connections", ways, connections).await?;
    compare("MiB/s, one answer of 256 MiB", ways, bulk).await
}

/// Says the medians of rounds of all ways, taken in turns so that all see the same machine, and the ratios to the first.
///
/// # Errors
/// When a request fails on any of them.
pub(crate) async fn compare<F>(what: &str, ways: &Ways, measure: impl Fn(Way) -> F) -> Result<()>
where
    F: Future<Output = Result<f64>>,
{
    let mut figures = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((name, way), figures) in ways.iter().zip(&mut figures) {
            figures.push(measure(way.clone()).await.with_context(|| format!("{what}: {name}"))?);
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
async fn requests(way: Way, callers: usize) -> Result<f64> {
    per_second(way, callers, |way| async move {
        let mut connection = way.connect().await?;
        let end = Instant::now() + ROUND;
        let mut done = 0_u64;
        while Instant::now() < end {
            way.small(&mut connection).await?;
            done += 1;
        }
        Ok(done)
    })
    .await
}

/// Requests a second of 16 callers, each request on a connection of its own.
///
/// # Errors
/// When one fails.
pub(crate) async fn connections(way: Way) -> Result<f64> {
    per_second(way, 16, |way| async move {
        let end = Instant::now() + ROUND;
        let mut done = 0_u64;
        while Instant::now() < end {
            let mut connection = way.connect().await?;
            way.small(&mut connection).await?;
            done += 1;
        }
        Ok(done)
    })
    .await
}

/// MiB a second of one answer.
///
/// # Errors
/// When it does not come whole.
pub(crate) async fn bulk(way: Way) -> Result<f64> {
    let mut connection = way.connect().await?;
    let begun = Instant::now();
    let response = connection.send_request(way.request(&format!("/bytes/{BULK}"))).await?;
    let mut body = response.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    ensure!(came == BULK, "{came} bytes came");
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
            Self::Through(client, _) => handshake(client.tls(&[b"http/1.1"]).await?).await,
        }
    }

    /// One small request, read whole.
    async fn small(&self, connection: &mut http1::SendRequest<Body>) -> Result<()> {
        // The end of the last answer may be here before the connection knows of it.
        connection.ready().await?;
        let response = connection.send_request(self.request("/bytes/1024")).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    /// Under a path that every kind of agent passes on.
    fn request(&self, what: &str) -> Request<Body> {
        match self {
            Self::Plain(_) => {
                let mut request = Request::new(empty());
                *request.uri_mut() = format!("/api/v1{what}").parse().unwrap_or_default();
                request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("origin"));
                request
            }
            Self::Through(client, cluster) => client.request(Method::GET, &format!("/clusters/{cluster}/api/v1{what}")),
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

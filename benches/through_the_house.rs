//! What the way through server, tunnel and agent costs, as ratios to the same requests sent straight to the origin.
//!
//! Server, agent, origin and callers share one process and its cores, so the whole cost of the way is paid by the figure.
//! The way through pays for TLS twice, authentication, authorisation and impersonation; the direct way is plain HTTP.
//! Each figure is the median of interleaved rounds. Run it with
//! `cargo bench --package moorline-benches --bench through_the_house`.

mod parts;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_testkit::client::{Body, Client, empty};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::link::Link;
use moorline_testkit::upstream::Upstream;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use parts::{MIB, median, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const BULK: u64 = 256 * MIB;

/// Where requests go, and with what.
#[derive(Clone)]
enum Way {
    Direct(SocketAddr),
    Through(Client),
}

#[tokio::main]
async fn main() -> Result<()> {
    let upstream = Upstream::start().await?;
    let server = Server::start().await?;
    let link = Link::to(server.tunnel).await?;
    let _near = server.agent("near", &upstream.url()).await?;
    let direct = Way::Direct(upstream.address());
    let through = Way::Through(server.admin_client()?);

    say("kept connections, 1 KiB answers              direct/s    through/s   ratio");
    for callers in [1, 32] {
        let (direct, through) = interleaved(|way| requests(way, "near", callers), &direct, &through).await?;
        say(&format!("{callers:>3} callers {direct:>43.0} {through:>12.0} {:>7.2}", through / direct));
    }
    say("new connections, 16 callers");
    let (one, other) = interleaved(|way| connections(way, "near", 16), &direct, &through).await?;
    say(&format!("             {one:>42.0} {other:>12.0} {:>7.2}", other / one));

    say("one stream of 256 MiB                         direct MiB/s  through MiB/s   ratio");
    let (one, other) = interleaved(|way| bulk(way, "near"), &direct, &through).await?;
    say(&format!("round trip 0 ms {one:>39.0} {other:>14.0} {:>7.2}", other / one));

    link.set_round_trip(Duration::from_millis(50));
    let created = server.create("far").await?;
    let _far = Agent::start(&created, link.address(), &upstream.url(), |_| {})?;
    server.connected("far").await?;
    // One TCP connection over a link of the same kind: what the link lets through.
    let plain = Link::to(upstream.address()).await?;
    plain.set_round_trip(Duration::from_millis(50));
    let direct = Way::Direct(plain.address());
    let (one, other) = interleaved(|way| bulk(way, "far"), &direct, &through).await?;
    say(&format!("round trip 50 ms {one:>38.0} {other:>14.0} {:>7.2}", other / one));
    Ok(())
}

/// Medians of rounds of both ways, taken in turns so that both see the same machine.
async fn interleaved<F>(measure: impl Fn(Way) -> F, direct: &Way, through: &Way) -> Result<(f64, f64)>
where
    F: Future<Output = Result<f64>>,
{
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(measure(direct.clone()).await?);
        other.push(measure(through.clone()).await?);
    }
    Ok((median(one), median(other)))
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
            Self::Direct(address) => {
                let socket = TcpStream::connect(address).await.context("connecting to the origin")?;
                socket.set_nodelay(true)?;
                handshake(socket).await
            }
            Self::Through(client) => handshake(client.tls(&[b"http/1.1"]).await?).await,
        }
    }

    fn request(&self, cluster: &str, path: &str) -> Request<Body> {
        match self {
            Self::Direct(_) => {
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

//! What readers that stop cost: memory of server and agent, each a process of its own, and the time of those beside them.
//!
//! Run it with `cargo bench --package moorline-benches --bench stalled_readers`.

mod parts;

use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use http_body_util::BodyExt as _;
use moorline_testkit::client::Client;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use parts::{MIB, ServerProcess, median, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers that begin to be read, and then are not.
const READERS: [usize; 4] = [0, 50, 200, 1000];

/// Small requests, one after the other, in each round; and rounds.
const REQUESTS: usize = 1000;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let (server, upstream) = (ServerProcess::start()?, Upstream::start().await?);
    let agent = server.agent("east", &upstream.url()).await?;
    let user = server.user()?;
    let idle = (server.process.memory("VmRSS:")?, agent.memory("VmRSS:")?);
    say("readers   server MiB   agent MiB   unread MiB   shed   beside them: p50 µs   p99 µs");
    let mut readers = Vec::new();
    for count in READERS {
        while readers.len() < count {
            readers.push(stalled(&user).await?);
        }
        let (mut middle, mut late) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (p50, p99) = beside(&user).await?;
            middle.push(p50);
            late.push(p99);
        }
        let above = |held: u64, idle: u64| held.saturating_sub(idle) / MIB;
        say(&format!(
            "{count:>7} {:>12} {:>11} {:>12.0} {:>6} {:>21.0} {:>8.0}",
            above(server.process.memory("VmRSS:")?, idle.0),
            above(agent.memory("VmRSS:")?, idle.1),
            server.metric("moorline_tunnel_unread_bytes").await? / MIB as f64,
            server.metric("moorline_tunnel_streams_shed_total").await?,
            median(middle),
            median(late),
        ));
    }
    Ok(())
}

/// Asks for a body without end, sees it begin, and reads no more.
async fn stalled(user: &Client) -> Result<impl Sized + use<>> {
    let request = user.request(Method::GET, "/");
    let token = request.headers()[http::header::AUTHORIZATION].to_str()?;
    let mut socket = user.tls(&[b"http/1.1"]).await?;
    let head =
        format!("GET /clusters/east/bytes/100000000000 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    socket.read_exact(&mut [0; 12]).await?;
    Ok(socket)
}

/// The median and the 99th percentile of small requests on one kept connection, in microseconds.
async fn beside(user: &Client) -> Result<(f64, f64)> {
    let mut connection = user.connect().await?;
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let response = connection.send(user.request(Method::GET, "/clusters/east/bytes/1024")).await?;
        response.into_body().collect().await?;
        took.push(begun.elapsed());
    }
    took.sort();
    let at = |part: usize| took.get(REQUESTS * part / 100).map_or(f64::NAN, |took: &Duration| took.as_secs_f64() * 1e6);
    Ok((at(50), at(99)))
}

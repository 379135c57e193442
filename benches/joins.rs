//! What wrong joins do to enrolled clusters: small requests of a user, alone and beside 200 joins a second by tokens that
//! nobody made.
//!
//! Origin, server and agent are processes of their own; the callers are in this one, the strangers all of one address. Run
//! it with `cargo bench --package moorline-benches --bench joins`.

mod parts;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_mtls::JoinConnector;
use moorline_testkit::client::Client;
use moorline_wire::{JOIN_ALPN, JOIN_PATH};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use parts::{Origin, ServerProcess, median, middle_and_late, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Joins a second.
const JOINS: u32 = 200;

/// Small requests in each round, one after the other, and rounds.
const REQUESTS: usize = 500;
const ROUNDS: usize = 5;

/// What a stranger gets for one join.
const LIMIT: Duration = Duration::from_secs(10);

/// A token's shape, and nobody's token.
const BODY: &str =
    r#"{"name":"east","id":"0123456789ab","secret":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","request":"none"}"#;

/// How often each answer came.
type Answers = Arc<Mutex<BTreeMap<String, usize>>>;

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let (origin, server) = (Origin::start()?, ServerProcess::start()?);
    let _agent = server.agent("east", &origin.url()).await?;
    let user = server.user()?;
    let (address, connector) = (server.tunnel, server.join_connector()?);
    say("wrong joins a second   p50 µs   p99 µs");
    let answers = Answers::default();
    let mut figures = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for _ in 0..ROUNDS {
        for (joins, [middle, late]) in [false, true].into_iter().zip(&mut figures) {
            let strangers = strangers(joins, address, &connector, &answers);
            let (p50, p99) = tokio::select! {
                never = strangers => never?,
                measured = beside(&user) => measured?,
            };
            middle.push(p50);
            late.push(p99);
        }
    }
    for (joins, [middle, late]) in [0, JOINS].into_iter().zip(figures) {
        say(&format!("{joins:>20} {:>8.0} {:>8.0}", median(middle), median(late)));
    }
    for (answer, times) in answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        say(&format!("{times:>8} times: {answer}"));
    }
    Ok(())
}

impl ServerProcess {
    /// Dials its tunnel as somebody who has a token.
    fn join_connector(&self) -> Result<JoinConnector> {
        let pem = std::fs::read(self.directory().join("tunnel-ca.crt"))?;
        let certificates = moorline_pki::certificates_from_pem(&pem)?;
        let info = moorline_pki::CertificateInfo::parse(certificates.first().context("no certificate")?)?;
        Ok(JoinConnector::new(vec![moorline_pki::fingerprint(&info.public_key)], JOIN_ALPN))
    }
}

/// Joins at that rate, whatever becomes of each. Ends never.
async fn strangers(
    joins: bool,
    address: SocketAddr,
    connector: &JoinConnector,
    answers: &Answers,
) -> Result<(f64, f64)> {
    if !joins {
        std::future::pending::<()>().await;
    }
    let mut ticks = interval(Duration::from_secs(1) / JOINS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    loop {
        ticks.tick().await;
        let (connector, answers) = (connector.clone(), Arc::clone(answers));
        under_way.spawn(async move {
            let answer =
                join(address, &connector).await.unwrap_or_else(|_closed| "the connection was closed".to_owned());
            *answers.lock().unwrap_or_else(PoisonError::into_inner).entry(answer).or_default() += 1;
        });
        while under_way.try_join_next().is_some() {}
    }
}

/// One wrong join; the first line of the answer.
async fn join(address: SocketAddr, connector: &JoinConnector) -> Result<String> {
    let tcp = TcpStream::connect(address).await?;
    let mut tls = connector.connect(tcp, "moorline-tunnel", LIMIT).await?;
    let head = format!("POST {JOIN_PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", BODY.len());
    tls.write_all(format!("{head}{BODY}").as_bytes()).await?;
    let mut text = String::new();
    tokio::time::timeout(LIMIT, tls.read_to_string(&mut text)).await??;
    ensure!(!text.is_empty(), "no answer");
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The median and the 99th percentile of small requests on one kept connection, in microseconds.
async fn beside(user: &Client) -> Result<(f64, f64)> {
    let mut connection = user.connect().await?;
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let response = connection.send(user.request(Method::GET, "/clusters/east/bytes/1024")).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        response.into_body().collect().await?;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    Ok(middle_and_late(took))
}

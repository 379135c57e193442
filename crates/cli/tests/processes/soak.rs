//! Guardians under full load for a while: one that nobody hurts never loses its session, another is killed, frozen, cut
//! off and restarted all the time beside it, and the server is as before when they have gone.
//!
//! For as many seconds as `MOORLINE_SOAK_SECONDS` says, 20 if it says nothing. Without Go it skips, loudly.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_testkit::{
    client::{Client, LIMIT, full},
    guardian::{Settings, Signal, StandIn, connected, enrol},
    upstream::Upstream,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::house::{RARE, Server, until};

/// How much larger the server may be at the end than after a quarter of the time: what allocators keep.
const GROWTH: usize = 24 << 20;

/// Tasks and descriptors that come and go by themselves: probes, and the question for how many there are.
const SLACK: u8 = 3;

/// Those who ask one cluster at once, of each kind.
const WORKERS: usize = 4;

/// Bytes of a switched connection, and of an upload.
const BYTES: usize = 256 << 10;

#[expect(clippy::disallowed_methods, reason = "how long it takes is for whoever runs it to say")]
fn duration() -> Duration {
    let seconds = std::env::var("MOORLINE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

struct House {
    server: Server,
    upstream: Upstream,
    user: Client,
}

/// What was done to a cluster, and what came of it.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    good: AtomicUsize,
    bad: AtomicUsize,
    /// The first few that were not as they should be.
    complaints: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, took: Duration, outcome: anyhow::Result<()>) {
        match outcome {
            Ok(()) if took < LIMIT => _ = self.good.fetch_add(1, Ordering::Relaxed),
            other => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                let mut complaints = self.complaints.lock().unwrap();
                if complaints.len() < 10 {
                    complaints.push(format!("{took:?} {other:?}"));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Get,
    Upload,
    Watch,
    Switch,
}

/// One request, whole.
async fn once(user: &Client, cluster: &str, kind: Kind) -> anyhow::Result<()> {
    let path = |what: &str| format!("/clusters/{cluster}/api/v1/watch/{what}");
    match kind {
        Kind::Get => {
            let answer = user.get(&path("bytes/100000")).await?;
            anyhow::ensure!(answer.code == StatusCode::OK && answer.body.len() == 100_000, "{}", answer.code);
        }
        Kind::Upload => {
            let request = user.request_with(Method::POST, &path("upload"), full(vec![7; BYTES]));
            let answer = user.ask(request).await?;
            anyhow::ensure!(answer.body == BYTES.to_string(), "{} {}", answer.code, answer.body);
        }
        Kind::Watch => {
            let answer = user.send(user.request(Method::GET, &path("ticks"))).await?;
            anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
            let mut body = answer.into_body();
            for _ in 0..50 {
                let frame = tokio::time::timeout(LIMIT, body.frame()).await?;
                frame.ok_or_else(|| anyhow::anyhow!("a watch ended"))??;
            }
        }
        Kind::Switch => {
            let token = user.request(Method::GET, "/").headers()["authorization"].to_str()?.to_owned();
            let mut socket = user.tls(&[b"http/1.1"]).await?;
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\n\r\n",
                path("echo")
            );
            let sent = vec![9; BYTES];
            let mut first = [0; 12];
            let talk = async {
                socket.write_all(head.as_bytes()).await?;
                socket.flush().await?;
                socket.read_exact(&mut first).await.context("no answer")?;
                anyhow::ensure!(&first == b"HTTP/1.1 101", "{}", String::from_utf8_lossy(&first));
                let (mut read, mut write) = tokio::io::split(socket);
                let sending = async {
                    write.write_all(&sent).await?;
                    write.flush().await
                };
                // The rest of the head comes first.
                let mut came = vec![0; BYTES];
                let (sent, came) = tokio::join!(sending, read.read_exact(&mut came));
                came.context("cut after its head")?;
                sent.context("not taken")?;
                Ok(())
            };
            tokio::time::timeout(LIMIT, talk).await??;
        }
    }
    Ok(())
}

fn load(working: &mut JoinSet<()>, house: &House, cluster: &'static str, tally: &Arc<Tally>) {
    let kinds = [Kind::Get, Kind::Upload, Kind::Watch, Kind::Switch];
    for kind in kinds.into_iter().flat_map(|kind| [kind; WORKERS]) {
        let (user, tally) = (house.user.clone(), Arc::clone(tally));
        working.spawn(async move {
            while !tally.over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let outcome = once(&user, cluster, kind).await;
                if outcome.is_err() {
                    // Nobody asks a cluster that is away as fast as they can.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                tally.count(began.elapsed(), outcome);
            }
        });
    }
}

/// One of the ways in which a Guardian ends, and back.
async fn hurt(house: &House, guardian: &mut StandIn, settings: &Settings, how: usize) {
    let sessions = async || house.server.metric("moorline_tunnel_sessions").await;
    match how % 5 {
        0 => _ = guardian.command("reset").await.unwrap(),
        1 => _ = guardian.command("hang-up").await.unwrap(),
        2 => {
            guardian.signal(Signal::Stop).unwrap();
            until("the frozen one is found", async || sessions().await <= 1.0).await;
            guardian.signal(Signal::Continue).unwrap();
        }
        3 => *guardian = StandIn::start_or_skip(settings).await.unwrap().unwrap(),
        _ => {
            let welcomed = async || house.server.metric("moorline_tunnel_sessions_welcomed_total").await;
            let before = welcomed().await;
            guardian.command("freeze").await.unwrap();
            // Its pings go on to come, so it gets four times as long as one that is silent; it misses the answers to
            // them itself after ten seconds, and dials again.
            until("the deaf one is found", async || sessions().await <= 1.0 || welcomed().await > before).await;
            guardian.command("thaw").await.unwrap();
        }
    }
    connected(&house.user, "west").await.unwrap();
    until("two sessions", async || sessions().await == 2.0).await;
}

impl House {
    async fn start() -> Self {
        let server = Server::start_in(tempfile::tempdir().unwrap(), &RARE).await;
        let (user, upstream) = (server.user(), Upstream::start().await.unwrap());
        Self { server, upstream, user }
    }

    async fn guardian(&self, name: &str, files: &std::path::Path) -> Option<(StandIn, Settings)> {
        enrol(&self.user, name, files).await.unwrap();
        let settings = Settings::new(self.server.tunnel, files, &self.upstream.url());
        let guardian = StandIn::start_or_skip(&settings).await.unwrap()?;
        connected(&self.user, name).await.unwrap();
        Some((guardian, settings))
    }

    /// Resident memory of the server, in bytes.
    fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.server.program.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Tasks and descriptors, when nothing runs and both sessions are new.
    async fn at_rest(&self, guardians: [&mut StandIn; 2]) -> (f64, usize) {
        until("nothing runs upstream", async || self.upstream.running() == 0).await;
        for gauge in ["moorline_gateway_requests_running", "moorline_gateway_upgraded", "moorline_gateway_connections"]
        {
            until(gauge, async || self.server.metric(gauge).await == 0.0).await;
        }
        for guardian in guardians {
            let begun = self.server.metric("moorline_tunnel_sessions_welcomed_total").await;
            guardian.command("hang-up").await.unwrap();
            until("a new session", async || {
                self.server.metric("moorline_tunnel_sessions_welcomed_total").await > begun
                    && self.server.metric("moorline_tunnel_sessions").await == 2.0
            })
            .await;
        }
        for name in ["east", "west"] {
            connected(&self.user, name).await.unwrap();
        }
        for (gauge, task) in [("moorline_gateway_connections", ""), ("moorline_tasks", "tunnel-farewell")] {
            until(gauge, async || self.server.metric_of(gauge, &[task]).await == 0.0).await;
        }
        (self.server.metric("moorline_tasks").await, self.server.program.descriptors())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guardians_under_load_that_are_hurt_and_not() {
    let files = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let house = House::start().await;
    let Some((mut east, _)) = house.guardian("east", files[0].path()).await else { return };
    let Some((mut west, settings)) = house.guardian("west", files[1].path()).await else { return };
    let before = house.at_rest([&mut east, &mut west]).await;
    let (told, lines) = ("ended", east.lines().len());

    let (spared, struck) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    let mut working = JoinSet::new();
    load(&mut working, &house, "east", &spared);
    load(&mut working, &house, "west", &struck);
    let (began, whole) = (Instant::now(), duration());
    let mut sizes = vec![(Duration::ZERO, house.resident())];
    let mut hurts = 0;
    while began.elapsed() < whole {
        // While nobody is hurt: a thousand streams at once in the way that reaches nothing, and pings at full load.
        let ends = east.command("open 200 hello").await.unwrap();
        assert!(!ends.contains("session") && !ends.contains("timeout"), "{ends}");
        east.command("pings 10").await.unwrap();
        hurt(&house, &mut west, &settings, hurts).await;
        hurts += 1;
        sizes.push((began.elapsed(), house.resident()));
    }
    for tally in [&spared, &struck] {
        tally.over.store(true, Ordering::Relaxed);
    }
    let ended = tokio::time::timeout(LIMIT * 2, async { while working.join_next().await.is_some() {} }).await;
    assert!(ended.is_ok(), "requests hang");

    let complaints = spared.complaints.lock().unwrap().clone();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let lost = east.lines().into_iter().skip(lines).find(|line| line.starts_with(told) || line.starts_with("failed"));
    assert_eq!(lost, None, "a session was lost that nobody hurt");
    let warm = sizes.iter().find(|(at, _)| *at > whole / 4).copied().unwrap_or(sizes[0]);
    let last = *sizes.last().unwrap();
    let (good, bad) = (struck.good.load(Ordering::Relaxed), struck.bad.load(Ordering::Relaxed));
    println!(
        "{:?}: {} requests to the spared, {good} to the struck and {bad} that it cost, {hurts} times hurt; \
         resident {} KiB at first, {} KiB at {:?}, {} KiB at {:?}, at most {} KiB; tasks and descriptors {before:?}",
        began.elapsed(),
        spared.good.load(Ordering::Relaxed),
        sizes[0].1 >> 10,
        warm.1 >> 10,
        warm.0,
        last.1 >> 10,
        last.0,
        sizes.iter().map(|(_, size)| *size).max().unwrap_or_default() >> 10,
    );
    assert!(last.1 < warm.1 + GROWTH, "it grows: {sizes:?}");
    assert!(good > 0, "nothing got through beside what hurt");
    let back = |after: (f64, usize)| after.0 <= before.0 + f64::from(SLACK) && after.1 <= before.1 + usize::from(SLACK);
    let (end, mut after) = (Instant::now() + LIMIT, house.at_rest([&mut east, &mut west]).await);
    while !back(after) && Instant::now() < end {
        after = house.at_rest([&mut east, &mut west]).await;
    }
    assert!(back(after), "tasks and descriptors were {before:?} and are {after:?}");
}

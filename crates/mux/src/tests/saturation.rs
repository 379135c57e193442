//! Both directions full for hours of virtual time while pings cross: the session must never stall.
//!
//! The engine alone does (two ends, each waiting to write a pong before it reads on); the last test
//! shows that this harness sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::link::{End, Random, Shape, link};
use super::pinger::{Count, Pinger};
use crate::{Config, Incoming, Role, Stream};

/// A stream half that got no byte for this long, with bytes waiting for it, is stalled.
const STALLED: Duration = Duration::from_secs(300);

struct Plan {
    seed: u64,
    streams: usize,
    every: [Duration; 2],
    shape: Shape,
    engine_answers_pings: bool,
}

impl Plan {
    fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut every = || Duration::from_millis(random.between(2, 400) as u64);
        let every = [every(), every()];
        let shape = Shape {
            latency: Duration::from_millis(random.between(0, 150) as u64),
            rate: random.between(6, 24) as u64 * 1024,
            room: random.between(1, 64) * 1024,
            ragged: random.one_in(2),
        };
        Self { seed, streams: random.between(1, 8), every, shape, engine_answers_pings: false }
    }
}

/// How far a run came before it stalled, if it did.
struct Outcome {
    stalled_after: Option<Duration>,
    carried: [u64; 2],
    pongs: u64,
}

/// Bytes read by each stream half so far. One entry for each, so that a half which lost its wake-up does
/// not hide behind the others.
type Progress = Arc<Mutex<Vec<Arc<AtomicU64>>>>;

/// Writes and reads on a stream for ever, from a task for each half.
fn saturate(tasks: &mut JoinSet<()>, stream: Stream, progress: &Progress) {
    let mine = Arc::new(AtomicU64::new(0));
    progress.lock().unwrap().push(Arc::clone(&mine));
    let (mut read, mut write) = tokio::io::split(stream);
    tasks.spawn(async move {
        let bytes = vec![7; 24 * 1024];
        while write.write_all(&bytes).await.is_ok() {}
    });
    tasks.spawn(async move {
        let mut bytes = vec![0; 10_000];
        while let Ok(read) = read.read(&mut bytes).await {
            mine.fetch_add(read as u64, Ordering::Relaxed);
        }
    });
}

fn accept_all(tasks: &mut JoinSet<()>, mut incoming: Incoming, progress: Progress) {
    tasks.spawn(async move {
        let mut inner = JoinSet::new();
        while let Some(stream) = incoming.accept().await {
            saturate(&mut inner, stream, &progress);
        }
    });
}

async fn run(plan: &Plan, virtual_time: Duration) -> Outcome {
    let (a, b, scissors) = link(plan.shape, plan.seed);
    let count = Arc::new(Count::default());
    let ping = |end: End, every: Duration| Pinger::new(end, every, Arc::clone(&count));
    let config = |role| {
        let mut config = Config::new(role).with_write_stall(Duration::from_secs(1 << 30));
        config.engine_answers_pings = plan.engine_answers_pings;
        // The engine measures the round trip by the real clock, which would make runs differ.
        config.with_receive_window_budget(0)
    };
    let mut tasks = JoinSet::new();
    let progress = Progress::default();
    for (io, role) in [(ping(a, plan.every[0]), Role::Client), (ping(b, plan.every[1]), Role::Server)] {
        let (handle, incoming, driver) = crate::session(io, config(role));
        tasks.spawn(async move { drop(driver.await) });
        accept_all(&mut tasks, incoming, Arc::clone(&progress));
        for _ in 0..plan.streams {
            let (handle, progress) = (handle.clone(), Arc::clone(&progress));
            tasks.spawn(async move {
                let stream = handle.open().await.unwrap();
                let mut halves = JoinSet::new();
                saturate(&mut halves, stream, &progress);
                halves.join_all().await;
            });
        }
    }
    let start = tokio::time::Instant::now();
    let mut seen: Vec<u64> = Vec::new();
    let mut stalled_after = None;
    while start.elapsed() < virtual_time && stalled_after.is_none() {
        tokio::time::sleep(STALLED).await;
        let halves = progress.lock().unwrap();
        let now: Vec<_> = halves.iter().map(|half| half.load(Ordering::Relaxed)).collect();
        let expected = plan.streams * 4;
        if now.len() != expected || now.iter().zip(&seen).any(|(now, seen)| now == seen) {
            stalled_after = Some(start.elapsed());
        }
        seen = now;
    }
    let pongs = count.answered.load(Ordering::Relaxed);
    Outcome { stalled_after, carried: scissors.carried(), pongs }
}

const SEEDS: u32 = 32;

#[test]
fn hours_of_saturation_with_crossing_pings_do_not_stall() {
    let each = Duration::from_secs(3600).mul_f64(super::sim_hours(8.0) / f64::from(SEEDS));
    for seed in 0..u64::from(SEEDS) {
        let plan = Plan::from_seed(super::sim_seed().unwrap_or(seed));
        let outcome = super::paused(run(&plan, each));
        assert_eq!(
            outcome.stalled_after, None,
            "stalled; replay with MOORLINE_SIM_SEED={} ({:?}, carried {:?})",
            plan.seed, plan.shape, outcome.carried
        );
        assert!(outcome.pongs > 0, "no ping was answered; seed {}", plan.seed);
    }
}

/// The same seeds with the engine answering pings itself, as it does without this crate's IO layer.
#[test]
fn the_engine_alone_stalls_and_this_harness_sees_it() {
    let stalled: Vec<_> = (0..u64::from(SEEDS))
        .map(|seed| {
            let plan = Plan { engine_answers_pings: true, ..Plan::from_seed(seed) };
            let outcome = super::paused(run(&plan, Duration::from_secs(600)));
            (seed, outcome.stalled_after)
        })
        .filter(|(_, stalled_after)| stalled_after.is_some())
        .collect();
    assert!(stalled.len() >= SEEDS as usize / 2, "stalled: {stalled:?}");
}

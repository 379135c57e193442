//! Trails without a gateway: what becomes of their events when sinks are slow, stuck, broken, or about to end.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Method, Uri};
use moorline_audit::Policy;
use moorline_process::{Plan, Registry, Shutdown, Tasks};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Audit, Bytes, End, Head, Mode, Notes, QueueConfig, Trail,
    metrics::{Metrics, SinkMetrics},
    queue::{self, PATIENCE, Taker},
    writer::{self, Sink},
};

/// An audit trail whose end is in the hands of the test.
pub(crate) struct Book {
    pub(crate) audit: Arc<Audit>,
    taker: Taker,
}

impl Book {
    /// With the built-in policy, or this one.
    pub(crate) fn new(config: QueueConfig, policy: Option<&str>) -> Self {
        let metrics = Metrics::new(&Registry::new("test", "0"));
        let (queue, taker) = queue::queue(config, metrics.of("test"));
        let policy = policy.map_or_else(Audit::default_policy, |text| Policy::parse(text).unwrap());
        let group = "moorline.io".to_owned();
        let audit =
            Audit { policy: ArcSwap::from_pointee(policy), queues: vec![queue], group, phases: OnceLock::new() };
        Self { audit: Arc::new(audit), taker }
    }

    /// Everything that was handed on since, written down; who waits for an event is told.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Ok(mut queued) = self.taker.entries.try_recv() {
            queued.entry.write(&self.audit.policy.load(), &self.audit.group, &mut lines);
            queued.tell(true);
        }
        let lines = String::from_utf8(lines).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn metrics(&self) -> SinkMetrics {
        self.taker.metrics.clone()
    }
}

pub(crate) fn config(mode: Mode, buffer: usize) -> QueueConfig {
    QueueConfig { mode, buffer, batch: 4, wait: Duration::from_millis(50) }
}

/// A request for `/N`.
fn trail(audit: &Arc<Audit>, number: usize) -> Trail {
    let (id, uri) = (HeaderValue::from(number), format!("/{number}").parse::<Uri>().unwrap());
    let peer = [127, 0, 0, 1].into();
    Trail::open(audit, &Head { id: &id, method: &Method::GET, uri: &uri, headers: &HeaderMap::new(), peer })
}

fn end(trail: Trail) {
    trail.ended(End::Complete, 200, Bytes::default(), Duration::ZERO);
}

/// What a sink of a test does with the next lines.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Takes,
    Fails,
    Hangs,
}

struct Scripted {
    does: watch::Receiver<Does>,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    tries: Option<u32>,
}

impl Sink for Scripted {
    fn tries(&self) -> Option<u32> {
        self.tries
    }

    fn pause(&self, tried: u32) -> Duration {
        Duration::from_secs(u64::from(tried))
    }

    async fn write(&mut self, lines: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        let does = *self.does.wait_for(|does| *does != Does::Hangs).await.unwrap();
        if does == Does::Fails {
            return (lines, Err("told to".to_owned()));
        }
        self.taken.lock().unwrap().push(lines);
        (Vec::new(), Ok(()))
    }
}

/// A writer with a sink that does as it is told.
struct Rig {
    audit: Arc<Audit>,
    metrics: SinkMetrics,
    does: watch::Sender<Does>,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Rig {
    fn new(config: QueueConfig, tries: Option<u32>) -> Self {
        let book = Book::new(config, None);
        let metrics = book.metrics();
        let (does, doing) = watch::channel(Does::Takes);
        let taken = Arc::default();
        let sink = Scripted { does: doing, taken: Arc::clone(&taken), tries };
        let (tasks, shutdown) = (Tasks::new(&Registry::new("test", "0")), Shutdown::new());
        tasks.spawn("writer", writer::run(Arc::clone(&book.audit), book.taker, sink, shutdown.phases()));
        Self { audit: book.audit, metrics, does, taken, tasks, shutdown }
    }

    /// The paths of the events that the sink took, a list for each time that it took some.
    fn batches(&self) -> Vec<Vec<String>> {
        let taken = self.taken.lock().unwrap();
        let uri = |line: &str| serde_json::from_str::<Value>(line).unwrap()["requestURI"].as_str().unwrap().to_owned();
        taken.iter().map(|lines| str::from_utf8(lines).unwrap().lines().map(uri).collect()).collect()
    }

    fn paths(&self) -> Vec<String> {
        self.batches().concat()
    }
}

fn paths(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("/{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_written_together_and_in_order() {
    let rig = Rig::new(config(Mode::Batch, 100), None);
    for number in 0..10 {
        end(trail(&rig.audit, number));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.batches(), [paths(0..4), paths(4..8), paths(8..10)]);
    assert_eq!((rig.metrics.written.get(), rig.metrics.dropped.get()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn in_batch_mode_nobody_waits_and_what_finds_no_room_is_counted() {
    let rig = Rig::new(config(Mode::Batch, 8), None);
    rig.does.send_replace(Does::Hangs);
    for number in 0..100 {
        let mut trail = trail(&rig.audit, number);
        // The first are with the writer before the queue fills up.
        if number == 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        trail.receipt(false).await.unwrap();
        end(trail);
    }
    assert_eq!(rig.metrics.dropped.get(), 100 - 4 - 8);
    rig.does.send_replace(Does::Takes);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.paths(), paths(0..12));
    assert_eq!(rig.metrics.written.get(), 12);
}

#[tokio::test(start_paused = true)]
async fn in_blocking_mode_a_request_waits_until_it_is_written() {
    let rig = Rig::new(config(Mode::Blocking, 8), None);
    let mut first = trail(&rig.audit, 1);
    first.receipt(false).await.unwrap();
    assert_eq!(rig.paths(), paths([1]), "written before it goes on, and without waiting for others");
    rig.does.send_replace(Does::Hangs);
    let began = tokio::time::Instant::now();
    let mut second = trail(&rig.audit, 2);
    assert_eq!(
        second.receipt(false).await.unwrap_err().to_string(),
        "the audit sink \"test\" did not take the event of the request"
    );
    assert_eq!(began.elapsed(), PATIENCE);
    // The one that went on has its place, however long the queue is.
    for number in 3..20 {
        end(trail(&rig.audit, number));
    }
    end(first);
    rig.does.send_replace(Does::Takes);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.paths().ends_with(&paths([1])), "{:?}", rig.paths());
    assert_eq!(rig.metrics.late.get(), 1);
    let mut third = trail(&rig.audit, 30);
    third.receipt(false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_blocking_mode_nobody_waits_with_half_of_what_another_waits_for() {
    let rig = Rig::new(config(Mode::Blocking, 4), None);
    let began = tokio::time::Instant::now();
    let all = (0..8).map(|number| {
        let mut trail = trail(&rig.audit, number);
        async move {
            trail.receipt(false).await.unwrap();
            end(trail);
        }
    });
    futures_util::future::join_all(all).await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(rig.metrics.late.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn in_blocking_mode_a_sink_that_fails_refuses_at_once() {
    let rig = Rig::new(config(Mode::Blocking, 8), None);
    rig.does.send_replace(Does::Fails);
    let began = tokio::time::Instant::now();
    assert!(trail(&rig.audit, 1).receipt(false).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_for_ever_or_so_often() {
    let rig = Rig::new(config(Mode::Batch, 100), None);
    rig.does.send_replace(Does::Fails);
    for number in 0..6 {
        end(trail(&rig.audit, number));
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(rig.metrics.errors.get() > 5 && rig.paths().is_empty());
    rig.does.send_replace(Does::Takes);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((rig.paths(), rig.metrics.dropped.get()), (paths(0..6), 0));

    let rig = Rig::new(config(Mode::Batch, 100), Some(3));
    rig.does.send_replace(Does::Fails);
    for number in 0..6 {
        end(trail(&rig.audit, number));
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((rig.metrics.errors.get(), rig.metrics.dropped.get()), (6, 6));
    rig.does.send_replace(Does::Takes);
    end(trail(&rig.audit, 7));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.paths(), paths([7]));
}

const PLAN: Plan = Plan {
    notice: Duration::ZERO,
    go_away: Duration::ZERO,
    drain: Duration::from_secs(2),
    cancel: Duration::from_secs(5),
};

#[tokio::test(start_paused = true)]
async fn the_last_events_are_written_before_the_end_also_of_requests_that_are_cut() {
    let rig = Rig::new(config(Mode::Batch, 100), None);
    let phases = rig.shutdown.phases();
    for number in 0..9 {
        end(trail(&rig.audit, number));
    }
    let (cut, work) = (trail(&rig.audit, 9), phases.work());
    rig.tasks.spawn("request", async move {
        phases.cancelled().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        end(cut);
        drop(work);
    });
    let Rig { shutdown, tasks, taken, audit, metrics, does } = rig;
    let outcome = shutdown.run(PLAN, &tasks, std::future::pending()).await;
    assert_eq!((outcome.cut, outcome.unfinished), (1, None));
    let rig = Rig { shutdown: Shutdown::new(), tasks, taken, audit, metrics, does };
    assert_eq!((rig.paths(), rig.metrics.dropped.get()), (paths(0..10), 0));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_nothing_delays_the_end_no_longer_than_said() {
    for does in [Does::Hangs, Does::Fails] {
        let Rig { shutdown, tasks, audit, metrics, does: script, .. } = Rig::new(config(Mode::Batch, 100), None);
        script.send_replace(does);
        for number in 0..9 {
            end(trail(&audit, number));
        }
        let began = tokio::time::Instant::now();
        let outcome = shutdown.run(PLAN, &tasks, std::future::pending()).await;
        assert_eq!(outcome.unfinished, None);
        assert!(began.elapsed() < PLAN.cancel, "{:?}", began.elapsed());
        assert_eq!(metrics.dropped.get(), 9);
    }
}

#[test]
fn the_built_in_policy_can_be_read() {
    Audit::default_policy();
}

#[tokio::test]
async fn what_our_own_api_noted_is_known_although_its_caller_hung_up() {
    let mut book = Book::new(config(Mode::Batch, 8), None);
    let (id, uri) = (HeaderValue::from_static("id"), Uri::from_static("/v1/clusters"));
    let peer = [127, 0, 0, 1].into();
    let head = Head { id: &id, method: &Method::POST, uri: &uri, headers: &HeaderMap::new(), peer };
    let mut trail = Trail::open(&book.audit, &head);
    let notes = Notes::default();
    trail.follows(notes.clone());
    // On another thread, after the caller has gone as well as before.
    notes.names("east");
    trail.ended(End::HungUp, 0, Bytes::default(), Duration::ZERO);
    let [event] = &book.events()[..] else { panic!("not one event") };
    assert_eq!((&event["verb"], &event["objectRef"]["name"]), (&"create".into(), &"east".into()));
    assert_eq!(event["annotations"]["moorline.io/end"], "hung-up");
}

#[test]
fn our_own_api_is_read_as_kubernetes_reads_its_own() {
    let mut book = Book::new(config(Mode::Batch, 100), None);
    for (method, uri, verb, resource, name) in [
        ("GET", "/v1/clusters", "list", "managedclusters", None),
        ("GET", "/v1/clusters/east", "get", "managedclusters", Some("east")),
        ("DELETE", "/v1/clusters/east", "delete", "managedclusters", Some("east")),
        ("GET", "/v1/clusters/east/events", "get", "managedclusters/events", Some("east")),
        ("DELETE", "/v1/users/a%2Fb%40c?tokenId=7", "delete", "users", Some("a/b@c")),
        ("POST", "/v1/accessreviews", "create", "accessreviews", None),
        ("GET", "/v1/version", "get", "", None),
        ("GET", "/v1/clustersx", "get", "", None),
    ] {
        let (id, uri) = (HeaderValue::from_static("id"), Uri::from_static(uri));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let peer = [127, 0, 0, 1].into();
        end(Trail::open(&book.audit, &Head { id: &id, method: &method, uri: &uri, headers: &HeaderMap::new(), peer }));
        let [event] = &book.events()[..] else { panic!("not one event") };
        assert_eq!((event["verb"].as_str(), event["objectRef"]["name"].as_str()), (Some(verb), name), "{uri}");
        let part = event["objectRef"]["subresource"].as_str().map(|part| format!("/{part}"));
        let about = format!("{}{}", event["objectRef"]["resource"].as_str().unwrap_or(""), part.unwrap_or_default());
        assert_eq!(about, resource, "{uri}");
        if !resource.is_empty() {
            assert_eq!(
                (&event["objectRef"]["apiGroup"], &event["objectRef"]["apiVersion"]),
                (&"moorline.io".into(), &"v1alpha1".into())
            );
        }
    }
}

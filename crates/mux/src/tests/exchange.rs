//! Whole conversations over bad links, from seeds: what arrives is always the beginning of what was
//! sent, an end that looks clean is the true end, and nothing is left on the books.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::basics::within;
use super::link::{Random, Scissors, Shape, link};
use crate::{CloseReason, Config, Handle, Incoming, MemoryBudget, Role, Stream};

/// What happens to the session in the middle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Nothing,
    Reset,
    Silence,
    Close,
    Drain,
}

/// One conversation. Its key is the first thing sent, and both sides derive the rest from it.
#[derive(Clone, Copy, Debug)]
struct Talk {
    key: u64,
}

impl Talk {
    fn random(self, salt: u64) -> Random {
        Random::new(self.key ^ (salt << 32))
    }

    fn request(self) -> Vec<u8> {
        self.bytes(1)
    }

    fn response(self) -> Vec<u8> {
        self.bytes(2)
    }

    fn bytes(self, salt: u64) -> Vec<u8> {
        let mut random = self.random(salt);
        let most = if random.one_in(4) { 400_000 } else { 3000 };
        let size = random.between(0, most);
        let start = random.next() as usize;
        (0..size).map(|i| ((start + i * 13 + (i >> 8)) & 0xFF) as u8).collect()
    }

    /// Who gives up before the end, if anybody does.
    fn quitter(self) -> u64 {
        self.random(3).next() % 8
    }

    fn opener_quits(self) -> bool {
        self.quitter() == 0
    }

    fn answerer_quits(self) -> bool {
        self.quitter() == 1
    }

    /// Finishes, and is gone without reading to the end.
    fn answerer_answers_and_runs(self) -> bool {
        self.quitter() == 2
    }
}

/// Reads to the end and holds what came against what was to come.
async fn expect(mut read: impl tokio::io::AsyncRead + Unpin, expected: &[u8], talk: Talk) -> bool {
    let (mut got, mut bytes) = (Vec::new(), vec![0; 3000]);
    loop {
        match read.read(&mut bytes).await {
            Ok(0) => {
                assert!(got == expected, "a short end that looks clean: {talk:?}, {}", got.len());
                return true;
            }
            Ok(read) => got.extend_from_slice(&bytes[..read]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                assert!(expected.starts_with(&got), "other bytes: {talk:?}");
                return false;
            }
        }
    }
}

/// True when all went both ways.
async fn opener(handle: Handle, talk: Talk) -> bool {
    let Ok(mut stream) = handle.open().await else { return false };
    if stream.write_u64(talk.key).await.is_err() {
        return false;
    }
    let (request, response) = (talk.request(), talk.response());
    if talk.opener_quits() {
        let part = talk.random(4).between(0, request.len());
        let _cut = stream.write_all(&request[..part]).await;
        return false;
    }
    let (mut read, mut write) = tokio::io::split(stream);
    let mut halves = JoinSet::new();
    halves.spawn(async move { write.write_all(&request).await.is_ok() && write.shutdown().await.is_ok() });
    halves.spawn(async move { expect(&mut read, &response, talk).await });
    halves.join_all().await.iter().all(|whole| *whole)
}

async fn answerer(mut stream: Stream) {
    let Ok(key) = stream.read_u64().await else { return };
    let talk = Talk { key };
    let response = talk.response();
    let part = talk.random(5).between(0, response.len());
    if talk.answerer_quits() {
        let _cut = stream.write_all(&response[..part]).await;
        return;
    }
    let (read, mut write) = tokio::io::split(stream);
    if talk.answerer_answers_and_runs() {
        let _cut = write.write_all(&response).await;
        let _cut = write.shutdown().await;
        return;
    }
    let mut halves = JoinSet::new();
    halves.spawn(async move {
        let _cut = write.write_all(&response).await;
        let _cut = write.shutdown().await;
        true
    });
    halves.spawn(async move {
        let whole = expect(read, &talk.request(), talk).await;
        whole || talk.opener_quits()
    });
    halves.join_all().await;
}

async fn answer_all(mut incoming: Incoming) {
    let mut tasks = JoinSet::new();
    while let Some(stream) = incoming.accept().await {
        tasks.spawn(answerer(stream));
    }
    tasks.join_all().await;
}

async fn happen(event: Event, after: Duration, scissors: Scissors, handle: Handle) {
    tokio::time::sleep(after).await;
    match event {
        Event::Nothing => {}
        Event::Reset => scissors.reset(),
        Event::Silence => scissors.silence(),
        Event::Close => handle.close(CloseReason::Local("the plan")),
        Event::Drain => handle.drain(),
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let shape = Shape {
        latency: Duration::from_millis(random.between(0, 40) as u64),
        rate: random.between(100, 4000) as u64 * 1024,
        room: random.between(1, 100) * 1024,
        ragged: random.one_in(2),
    };
    let events = [Event::Nothing, Event::Reset, Event::Silence, Event::Close, Event::Drain];
    let event = events[random.between(0, events.len() - 1)];
    let budget = MemoryBudget::new(64 << 20);
    let mut config = |role| {
        Config::new(role)
            .with_memory(budget.clone())
            .with_coalesce(random.between(1, 128) * 1024)
            .with_send_queue(random.between(64, 1024) * 1024)
            .with_read_silence(Some(Duration::from_secs(30)))
    };
    let (a, b, scissors) = link(shape, seed);
    let (client, client_incoming, client_driver) = crate::session(a, config(Role::Client));
    let (server, server_incoming, server_driver) = crate::session(b, config(Role::Server));
    let mut drivers = JoinSet::new();
    drivers.spawn(client_driver);
    drivers.spawn(server_driver);
    let mut others = JoinSet::new();
    others.spawn(answer_all(client_incoming));
    others.spawn(answer_all(server_incoming));
    let after = Duration::from_millis(random.between(0, 3000) as u64);
    others.spawn(happen(event, after, scissors, client.clone()));

    let mut talks = JoinSet::new();
    for _ in 0..random.between(1, 20) {
        let handle = if random.one_in(2) { client.clone() } else { server.clone() };
        let talk = Talk { key: random.next() };
        talks.spawn(async move { (talk, opener(handle, talk).await) });
    }
    let stuck = format!("nobody hangs; replay with MOORLINE_SIM_SEED={seed} ({event:?}, {shape:?})");
    let talks = tokio::time::timeout(Duration::from_secs(600), talks.join_all()).await.expect(&stuck);
    if event == Event::Nothing {
        for (talk, whole) in talks {
            let expected = talk.quitter() > 2;
            // Whoever runs may have cut the request off; the response was whole all the same.
            assert!(whole || !expected, "{talk:?} of seed {seed} was cut");
        }
    }
    client.drain();
    let ended = tokio::time::timeout(Duration::from_secs(600), drivers.join_all()).await.expect(&stuck);
    for reason in &ended {
        let broken = matches!(reason, CloseReason::Protocol(_) | CloseReason::MemoryExceeded);
        assert!(!broken, "{reason} in seed {seed}");
    }
    within(others.join_all()).await;
    for session in [client.session(), server.session()] {
        let books = (session.ledger.leftovers(), session.ledger.buffered());
        assert_eq!(books, ((0, 0, 0), 0), "seed {seed}");
    }
    assert_eq!(budget.used(), 0, "seed {seed}");
}

#[test]
fn conversations_over_bad_links() {
    let seeds = match super::sim_seed() {
        Some(seed) => seed..seed + 1,
        None => 0..(super::sim_hours(8.0) * 20.0) as u64,
    };
    for seed in seeds {
        super::paused(run(seed));
    }
}

/// The same on threads and the real clock: whatever the two halves, the driver and the shedder may do to
/// each other between two instructions. Short; the machine's timing is the seed.
#[test]
fn conversations_on_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let budget = MemoryBudget::new(64 << 20);
        let config = |role| Config::new(role).with_memory(budget.clone()).with_send_queue(100_000);
        let (a, b) = tokio::io::duplex(20_000);
        let (client, client_incoming, client_driver) = crate::session(a, config(Role::Client));
        let (server, server_incoming, server_driver) = crate::session(b, config(Role::Server));
        let mut drivers = JoinSet::new();
        drivers.spawn(client_driver);
        drivers.spawn(server_driver);
        let mut others = JoinSet::new();
        others.spawn(answer_all(client_incoming));
        others.spawn(answer_all(server_incoming));
        let mut random = Random::new(1);
        let mut talks = JoinSet::new();
        for round in 0..800 {
            let handle = if round % 2 == 0 { client.clone() } else { server.clone() };
            let talk = Talk { key: random.next() };
            talks.spawn(async move { (talk, opener(handle, talk).await) });
            if talks.len() >= 60 {
                let (talk, whole) = within(talks.join_next()).await.unwrap().unwrap();
                assert!(whole || talk.quitter() <= 2, "{talk:?}");
            }
        }
        for (talk, whole) in within(talks.join_all()).await {
            assert!(whole || talk.quitter() <= 2, "{talk:?}");
        }
        client.drain();
        within(drivers.join_all()).await;
        within(others.join_all()).await;
        assert_eq!(budget.used(), 0);
    });
}

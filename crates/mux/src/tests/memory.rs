//! Readers that do not read: they hold up nobody, and what they hold is bounded.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::basics::{Pair, pair, pair_with, within};
use super::raw::{against_raw, data};
use crate::frame::SYN;
use crate::{CloseReason, Config, MemoryBudget, Role, Stream};

const MIB: usize = 1 << 20;

/// Answers each byte with itself.
async fn echo(mut stream: Stream) {
    while let Ok(byte) = stream.read_u8().await {
        if stream.write_u8(byte).await.is_err() {
            return;
        }
    }
}

/// Writes until the window is full and the peer does not read.
async fn fill(mut stream: Stream) {
    while stream.write_all(&[0; 16 * 1024]).await.is_ok() {}
}

/// F1: one reader stops; another stream of the same session does not feel it.
#[tokio::test(start_paused = true)]
async fn f1_a_stopped_reader_delays_no_other_stream() {
    let mut pair = pair();
    let mut tasks = JoinSet::new();
    let (_stopped, theirs) = pair.stream().await;
    tasks.spawn(fill(theirs));
    let (mut asking, answering) = pair.stream().await;
    tasks.spawn(echo(answering));
    let start = Instant::now();
    for _ in 0..1000 {
        asking.write_u8(7).await.unwrap();
        assert_eq!(within(asking.read_u8()).await.unwrap(), 7);
    }
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
    assert!(pair.client.stats().buffered >= 256 * 1024);
    assert_eq!(pair.client.stats().shed_total, 0);
}

/// F2: a thousand readers stop. What they hold stays within the budget, those that hold most lose
/// their stream, and a stream that is read goes on.
#[tokio::test(start_paused = true)]
async fn f2_a_thousand_stopped_readers_stay_within_the_budget() {
    let budget = MemoryBudget::new(16 * MIB);
    let client = Config::new(Role::Client).with_memory(budget.clone());
    let mut pair = pair_with(1 << 16, client, Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    let (mut asking, answering) = pair.stream().await;
    tasks.spawn(echo(answering));
    let mut stopped = Vec::new();
    for _ in 0..1000 {
        let (ours, theirs) = pair.stream().await;
        tasks.spawn(fill(theirs));
        stopped.push(ours);
        asking.write_u8(7).await.unwrap();
        assert_eq!(within(asking.read_u8()).await.unwrap(), 7);
        assert!(budget.used() <= 17 * MIB, "{}", budget.used());
    }
    let stats = pair.client.stats();
    assert!(stats.shed_total >= 1000 - 16 * 4 - 1, "{stats:?}");
    assert_eq!(budget.sheds(), stats.shed_total);
    assert!(pair.client.is_open() && pair.server.is_open());
    // Who was shed is told so; nothing looks like a complete body.
    let mut told = 0;
    for stream in &mut stopped {
        match within(stream.read(&mut [0; 10])).await {
            Ok(read) => assert_eq!(read, 10),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                told += 1;
            }
        }
    }
    assert_eq!(told, stats.shed_total);
    drop(stopped);
    assert_eq!((pair.client.stats().buffered, budget.used()), (0, 0), "all is given back");
}

/// Readers that stopped a moment ago go before one that has just begun and holds more than each of them.
#[tokio::test(start_paused = true)]
async fn f02_a_busy_reader_outlives_those_that_stopped() {
    // Round trips are measured by the real clock: on a slow machine the busy one's window would grow past the limit.
    let client = Config::new(Role::Client).with_session_memory(MIB).with_receive_window_budget(0);
    let mut pair = pair_with(1 << 16, client, Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    let mut stopped = Vec::new();
    for _ in 0..4 {
        let (ours, mut theirs) = pair.stream().await;
        theirs.write_all(&[0; 200 * 1024]).await.unwrap();
        stopped.push((ours, theirs));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (mut busy, theirs) = pair.stream().await;
    tasks.spawn(fill(theirs));
    within(async {
        while pair.client.stats().shed_total == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(busy.read_exact(&mut vec![0; 8 * MIB])).await.unwrap();
}

/// Whoever holds more for a stuck reader can let go of it.
#[tokio::test(start_paused = true)]
async fn whoever_watches_a_stream_hears_that_it_was_shed() {
    let client = Config::new(Role::Client).with_session_memory(MIB);
    let mut pair = pair_with(1 << 16, client, Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    let (watched, theirs) = pair.stream().await;
    tasks.spawn(fill(theirs));
    let watch = watched.watch();
    let mut hearing = std::pin::pin!(poll_fn(|cx| watch.poll_shed(cx)));
    assert!(tokio::time::timeout(Duration::from_secs(2), hearing.as_mut()).await.is_err());
    let mut held = Vec::new();
    for _ in 0..8 {
        let (ours, theirs) = pair.stream().await;
        tasks.spawn(fill(theirs));
        held.push(ours);
    }
    within(hearing).await;
    drop(watched);
    within(poll_fn(|cx| watch.poll_shed(cx))).await;
}

/// The process's budget is relieved where most is held, not where the next byte happens to arrive.
#[tokio::test(start_paused = true)]
async fn the_session_that_holds_most_pays() {
    let budget = MemoryBudget::new(4 * MIB);
    let config = || Config::new(Role::Client).with_memory(budget.clone());
    let mut greedy = pair_with(1 << 16, config(), Config::new(Role::Server));
    let mut modest = pair_with(1 << 16, config(), Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..15 {
        let (ours, theirs) = greedy.stream().await;
        tasks.spawn(fill(theirs));
        held.push(ours);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..6 {
        let (ours, theirs) = modest.stream().await;
        tasks.spawn(fill(theirs));
        held.push(ours);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(modest.client.stats().shed_total, 0);
    assert!(greedy.client.stats().shed_total >= 5);
    assert!(budget.used() <= 5 * MIB);
}

/// Writes so much and waits.
async fn fill_with(mut stream: Stream, bytes: usize) {
    stream.write_all(&vec![0; bytes]).await.unwrap();
    let _end = stream.read_u8().await;
}

/// A session's own limit, with plenty left in the process's. A reader that reads is not the one to go.
#[tokio::test(start_paused = true)]
async fn a_session_sheds_the_stalled_not_the_busy() {
    // The engine measures round trips by the real clock: on a slow machine the busy one's window would grow past the limit.
    let client = Config::new(Role::Client).with_session_memory(MIB).with_receive_window_budget(0);
    let mut pair = pair_with(1 << 16, client, Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    let (mut busy, source) = pair.stream().await;
    tasks.spawn(fill(source));
    let mut stopped = Vec::new();
    for _ in 0..20 {
        let (ours, theirs) = pair.stream().await;
        // Each holds less than the busy one has in its window at any time.
        tasks.spawn(fill_with(theirs, 100_000));
        stopped.push(ours);
        for _ in 0..4 {
            within(busy.read_exact(&mut [0; 100_000])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
    assert!(pair.client.stats().shed_total >= 10);
    assert!(pair.client.stats().buffered <= MIB + 64 * 1024);
}

/// The owner of a stream that is shed waits to write, and the transport is so stuck that the engine cannot
/// even forget the stream. The owner must hear of it all the same.
#[tokio::test(start_paused = true)]
async fn a_shed_stream_tells_its_waiting_writer() {
    let config = Config::new(Role::Server)
        .with_session_memory(256 * 1024)
        .with_coalesce(1024)
        .with_write_stall(Duration::from_secs(3600));
    let (mut ours, mut raw) = against_raw(config, 1024);
    raw.send(&data(SYN, 1, b"")).await;
    let stream = within(ours.incoming.accept()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let error = write.write_all(&[0; 250 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    raw.send(&data(0, 1, &[0; 256 * 1024])).await;
    raw.send(&data(SYN, 3, b"one too many")).await;
    within(tasks.join_all()).await;
    assert_eq!(ours.handle.stats().shed_total, 1);
    assert!(read.read_u8().await.is_err());
}

/// The other direction: a peer that takes nothing, and a thousand writers.
#[tokio::test(start_paused = true)]
async fn a_thousand_writers_to_a_deaf_peer_queue_little() {
    let client = Config::new(Role::Client).with_send_queue(2 * MIB).with_write_stall(Duration::from_secs(3600));
    let (io, peer) = tokio::io::duplex(1024);
    let (handle, _incoming, driver) = crate::session(io, client);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(driver.await) });
    for _ in 0..250 {
        let stream = handle.open().await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        tasks.spawn(async move { while write.write_all(&[0; 50_000]).await.is_ok() {} });
        tasks.spawn(async move { drop(read.read_u8().await) });
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let unsent = handle.stats().unsent;
    assert!((2 * MIB..2 * MIB + 64 * 1024).contains(&unsent), "{unsent}");
    // And all of them hear of the end.
    handle.close(CloseReason::Local("deaf"));
    within(tasks.join_all()).await;
    drop(peer);
}

/// A gate that closes must open again: many writers through a small queue, everything arrives.
#[tokio::test(start_paused = true)]
async fn writers_that_were_held_back_go_on() {
    let client = Config::new(Role::Client).with_send_queue(64 * 1024);
    let Pair { client, mut server_incoming, drivers: _drivers, .. } =
        pair_with(3000, client, Config::new(Role::Server));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        tasks.spawn(async move {
            let mut stream = client.open().await.unwrap();
            stream.write_all(&[1; 200_000]).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 1);
        });
    }
    for _ in 0..100 {
        let mut stream = within(server_incoming.accept()).await.unwrap();
        tasks.spawn(async move {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), 200_000);
            stream.write_u8(1).await.unwrap();
            stream.shutdown().await.unwrap();
            let _end = stream.read(&mut [0]).await;
        });
    }
    within(tasks.join_all()).await;
}

/// F12: ten thousand streams opened and ended in every way there is; nothing stays behind.
#[tokio::test(start_paused = true)]
async fn f12_churn_returns_to_the_baseline() {
    let budget = MemoryBudget::new(64 * MIB);
    let client = Config::new(Role::Client).with_memory(budget.clone());
    let server = Config::new(Role::Server).with_memory(budget.clone());
    let mut pair = pair_with(1 << 16, client, server);
    for round in 0..10_000 {
        let (mut ours, mut theirs) = pair.stream().await;
        match round % 6 {
            0 => {
                ours.shutdown().await.unwrap();
                theirs.shutdown().await.unwrap();
                assert_eq!(ours.read(&mut [0; 4]).await.unwrap(), 0);
                assert_eq!(theirs.read(&mut [0; 4]).await.unwrap(), 0);
            }
            1 => ours.reset(),
            2 => theirs.reset(),
            3 => {
                theirs.write_all(&[0; 1000]).await.unwrap();
                theirs.shutdown().await.unwrap();
            }
            4 => {
                ours.write_all(&[0; 1000]).await.unwrap();
                drop((ours, theirs));
            }
            _ => {
                ours.shutdown().await.unwrap();
                assert_eq!(theirs.read(&mut [0; 4]).await.unwrap(), 0);
                drop(theirs);
                assert!(ours.read(&mut [0; 4]).await.is_err());
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for handle in [&pair.client, &pair.server] {
        let stats = handle.stats();
        let left = (stats.streams_open_outbound, stats.streams_open_inbound, stats.buffered);
        assert_eq!((left, stats.unsent, stats.refused_total), ((0, 0, 0), 0, 0));
        assert!(handle.is_open());
    }
    assert_eq!(budget.used(), 0);
    for session in [pair.client.session(), pair.server.session()] {
        assert_eq!(session.ledger.leftovers(), (0, 0, 0));
        assert_eq!((session.outbound.used(), session.inbound.used()), (0, 0));
    }
}

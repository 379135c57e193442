//! Bytes, in all the ways in which they can go.

use std::time::{Duration, Instant};

use moorline_mux::{Config, Stream};
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::peer::{Session, both_roles, connect, pattern, within};

/// Sends, finishes, and reads the echo to its end, writing and reading at the same time.
async fn echoed(stream: Stream, bytes: Vec<u8>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        write.write_all(&bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = within(async { tokio::join!(sending, read.read_to_end(&mut got)) }).await;
    read.unwrap();
    assert!(got == bytes, "{} of {} bytes came back, or others", got.len(), bytes.len());
}

#[test]
fn many_streams_echo() {
    both_roles(async |config| {
        let session = connect(config).await;
        let mut tasks = JoinSet::new();
        for size in [0, 1, 100, 16 * 1024, 300_000, 1 << 20] {
            for _ in 0..20 {
                tasks.spawn(echoed(session.command("echo").await, pattern(size)));
            }
        }
        let theirs = session.ask("open 100 200000");
        assert_eq!(within(theirs).await, "all echoed");
        within(tasks.join_all()).await;
        assert!(session.handle.is_open());
    });
}

#[test]
fn a_thousand_streams_at_once_in_each_direction() {
    both_roles(async |config| {
        let session = connect(config).await;
        let ours = async {
            let mut held = Vec::new();
            for _ in 0..1000 {
                held.push(session.command("echo").await);
            }
            assert_eq!(session.handle.stats().streams_open_outbound, 1000);
            let mut tasks = JoinSet::new();
            for stream in held {
                tasks.spawn(echoed(stream, pattern(2000)));
            }
            within(tasks.join_all()).await;
        };
        ours.await;
        assert_eq!(session.ask("open 1000 2000").await, "all echoed");
        assert_eq!(session.handle.stats().refused_total, 0);
    });
}

#[test]
fn half_close_goes_both_ways() {
    both_roles(async |config| {
        let session = connect(config).await;
        // Go reads to our FIN and answers after it.
        let mut stream = session.command("sink").await;
        stream.write_all(&pattern(700_000)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("700000 "), "{answer}");
        // And the other way round: Go's FIN comes first, and what we send after it arrives.
        let mut stream = session.command("source 10").await;
        let mut got = Vec::new();
        within(stream.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, pattern(10));
        stream.shutdown().await.unwrap();
    });
}

#[test]
fn a_dropped_stream_fails_gos_reader() {
    both_roles(async |config| {
        let session = connect(config).await;
        let mut stream = session.command("sink").await;
        // More than a window, so that Go is known to be reading: a reset discards what it has not read.
        stream.write_all(&pattern(600_000)).await.unwrap();
        drop(stream);
        let outcome = session.ask("outcome").await;
        assert!(outcome.starts_with("sink ") && outcome.ends_with("connection reset"), "{outcome}");
    });
}

/// Go writes for ever; we finish our side and drop, which the engine alone would not tell it.
#[test]
fn fin_then_drop_fails_gos_writer() {
    both_roles(async |config| {
        let session = connect(config).await;
        let mut stream = session.command("flood").await;
        stream.read_exact(&mut vec![0; 600_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        assert_eq!(session.ask("outcome").await, "flood connection reset");
        assert!(session.handle.is_open());
    });
}

/// Go fills its whole window with one frame. With windows that grow past 1 MiB this ends the session.
#[test]
fn large_raw_writes_of_go() {
    both_roles(async |config| {
        let session = connect(config.with_raw_go_peer()).await;
        let expected = pattern(8 << 20);
        for _ in 0..10 {
            let mut stream = session.command("source 8388608").await;
            let mut got = Vec::new();
            within(stream.read_to_end(&mut got)).await.unwrap();
            assert!(got == expected, "{} bytes", got.len());
        }
        assert!(session.handle.is_open());
    });
}

/// Both directions full for a while, with Go's pings every 100 ms and ours among them.
#[test]
fn pings_are_answered_under_full_load() {
    both_roles(async |config: Config| {
        let session = connect(config.with_raw_go_peer()).await;
        let until = Instant::now() + Duration::from_secs(2);
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (up, mut down) = (session.command("echo").await, session.command("flood").await);
            tasks.spawn(async move {
                while Instant::now() < until {
                    within(down.read_exact(&mut [0; 64 * 1024])).await.unwrap();
                }
            });
            tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(up);
                let sending = async {
                    let bytes = pattern(64 * 1024);
                    while Instant::now() < until {
                        within(write.write_all(&bytes)).await.unwrap();
                    }
                    write.shutdown().await.unwrap();
                };
                let receiving = async {
                    let mut sink = vec![0; 64 * 1024];
                    while within(read.read(&mut sink)).await.unwrap() > 0 {}
                };
                tokio::join!(sending, receiving);
            });
        }
        while Instant::now() < until {
            within(session.handle.ping()).await.unwrap();
            assert_eq!(session.ask("ping").await, "ping <nil>");
        }
        within(tasks.join_all()).await;
        assert_healthy(&session).await;
    });
}

async fn assert_healthy(session: &Session) {
    assert!(session.handle.is_open());
    let stats = session.handle.stats();
    assert_eq!((stats.shed_total, stats.refused_total), (0, 0));
    let heard = async || (session.handle.last_read_age() < Duration::from_secs(1)).then_some(());
    eventually(LIMIT, heard).await.expect("Go pings ten times a second");
}

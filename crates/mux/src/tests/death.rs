//! Sessions that die: found fast, ended in bounded time, and every stream hears of it.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::basics::within;
use super::link::{Scissors, Shape, link};
use super::raw::against_raw;
use crate::frame::Header;
use crate::{CloseReason, Config, Handle, Incoming, Role, Stream};

struct Linked {
    client: Handle,
    server: Handle,
    server_incoming: Incoming,
    _client_incoming: Incoming,
    scissors: Scissors,
    drivers: JoinSet<CloseReason>,
}

fn linked(shape: Shape, client: Config, server: Config) -> Linked {
    let (a, b, scissors) = link(shape, 1);
    let (client, client_incoming, client_driver) = crate::session(a, client);
    let (server, server_incoming, server_driver) = crate::session(b, server);
    let mut drivers = JoinSet::new();
    drivers.spawn(client_driver);
    drivers.spawn(server_driver);
    let _client_incoming = client_incoming;
    Linked { client, server, server_incoming, _client_incoming, scissors, drivers }
}

fn config(role: Role) -> Config {
    Config::new(role).with_read_silence(Some(Duration::from_secs(15))).with_write_stall(Duration::from_secs(10))
}

impl Linked {
    async fn stream(&mut self) -> (Stream, Stream) {
        let mut ours = self.client.open().await.unwrap();
        ours.write_all(b"!").await.unwrap();
        let mut theirs = within(self.server_incoming.accept()).await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'!');
        (ours, theirs)
    }

    /// Sends bytes to and fro every five seconds, as heartbeats do.
    fn heartbeats(&self, (ours, theirs): (Stream, Stream)) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for mut stream in [ours, theirs] {
            tasks.spawn(async move {
                let mut every = tokio::time::interval(Duration::from_secs(5));
                loop {
                    every.tick().await;
                    if stream.write_u8(1).await.is_err() || stream.read_u8().await.is_err() {
                        return;
                    }
                }
            });
        }
        tasks
    }
}

async fn lost(stream: &mut Stream) {
    let mut sink = Vec::new();
    let error = within(stream.read_to_end(&mut sink)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// F3: the peer is frozen or gone, or a firewall drops everything, and nobody says so.
#[tokio::test(start_paused = true)]
async fn f3_silence_is_found_within_its_bound_on_both_ends() {
    let mut pair = linked(Shape::default(), config(Role::Client), config(Role::Server));
    let beating = pair.stream().await;
    let mut beats = pair.heartbeats(beating);
    let (mut ours, mut theirs) = pair.stream().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(pair.client.is_open() && pair.server.is_open(), "heartbeats keep it alive");
    assert!(pair.client.last_read_age() <= Duration::from_secs(5));

    pair.scissors.silence();
    let cut = Instant::now();
    lost(&mut ours).await;
    lost(&mut theirs).await;
    assert!(cut.elapsed() <= Duration::from_secs(15), "{:?}", cut.elapsed());
    for handle in [&pair.client, &pair.server] {
        assert_eq!(handle.closed().await, CloseReason::Silent);
    }
    while beats.join_next().await.is_some() {}
}

/// F40: this process was stopped, or its machine slept, while the peer went on sending. What waited in the
/// transport counts before the deadline does.
#[tokio::test(start_paused = true)]
async fn f40_a_session_survives_a_stop_of_this_process() {
    let (ours, mut raw) = against_raw(config(Role::Server), 1 << 16);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..10 {
        // The bytes are in the transport, then the clock jumps, and only then anybody is polled.
        raw.io.write_all(&Header::ping(1).encode()).await.unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::task::yield_now().await;
        assert!(ours.handle.is_open());
    }
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(within(ours.driver).await.unwrap(), CloseReason::Silent);
}

/// F17: a write that is taken in part and then no further ends the session, and never leaves half a
/// frame behind which another stream's bytes would follow.
#[tokio::test(start_paused = true)]
async fn f17_a_stalled_write_ends_the_session() {
    let shape = Shape { room: 10_000, ..Shape::default() };
    let mut pair = linked(shape, config(Role::Client), config(Role::Server));
    let (mut ours, _theirs) = pair.stream().await;
    pair.scissors.stick();
    let stuck = Instant::now();
    let error = within(ours.write_all(&[0; 1 << 20])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(stuck.elapsed() <= Duration::from_secs(11), "{:?}", stuck.elapsed());
    assert_eq!(pair.client.closed().await, CloseReason::WriteStalled);
}

/// A slow link that goes on taking bytes is not a dead one.
#[tokio::test(start_paused = true)]
async fn a_slow_write_is_no_stall() {
    let shape = Shape { room: 4096, rate: 2048, ..Shape::default() };
    // The receiver has little to say meanwhile.
    let client = config(Role::Client).with_read_silence(None);
    let mut pair = linked(shape, client, config(Role::Server));
    let (mut ours, mut theirs) = pair.stream().await;
    let sending = async {
        ours.write_all(&[1; 400_000]).await.unwrap();
        ours.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let receiving = theirs.read_to_end(&mut got);
    let ((), read) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(read.unwrap(), 400_000);
    assert!(pair.client.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_reset_transport_fails_all_streams_at_once() {
    let mut pair = linked(Shape::default(), config(Role::Client), config(Role::Server));
    let mut streams = Vec::new();
    for _ in 0..50 {
        let (ours, theirs) = pair.stream().await;
        streams.extend([ours, theirs]);
    }
    pair.scissors.reset();
    let cut = Instant::now();
    for stream in &mut streams {
        lost(stream).await;
    }
    assert!(cut.elapsed() < Duration::from_millis(10));
    let reason = pair.client.closed().await;
    assert!(matches!(reason, CloseReason::Io(ErrorKind::ConnectionReset, _)), "{reason}");
}

/// F18: closing a session whose both directions are full, with writers and readers waiting in it.
#[tokio::test(start_paused = true)]
async fn f18_a_saturated_session_closes_at_once_and_everybody_hears_of_it() {
    // A rate, because on the virtual clock an unlimited link leaves no time to sleep.
    let shape = Shape { room: 2048, rate: 1 << 20, ..Shape::default() };
    for seed in 0..20 {
        let mut pair = linked(shape, config(Role::Client), config(Role::Server));
        let mut tasks = JoinSet::new();
        for _ in 0..20 {
            let (ours, theirs) = pair.stream().await;
            for stream in [ours, theirs] {
                let (mut read, mut write) = tokio::io::split(stream);
                tasks.spawn(async move { while write.write_all(&[0; 30_000]).await.is_ok() {} });
                // Nobody reads half of them, so that writers wait for credit as well.
                if tasks.len() % 4 < 2 {
                    tasks.spawn(async move {
                        let mut sink = vec![0; 9000];
                        while let Ok(1..) = read.read(&mut sink).await {}
                    });
                } else {
                    tasks.spawn(async move {
                        std::future::pending::<()>().await;
                        drop(read)
                    });
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(seed * 3)).await;
        pair.scissors.stick();
        pair.server.close(CloseReason::Local("enough"));
        let closing = Instant::now();
        while let Some(ended) = pair.drivers.join_next().await {
            let reason = ended.unwrap();
            // The other end sees the transport closed or reset, as TCP has it.
            let seen = matches!(reason, CloseReason::Local(_) | CloseReason::PeerClosed | CloseReason::Io(..));
            assert!(seen, "{reason}");
        }
        assert!(closing.elapsed() < Duration::from_secs(1), "{:?}", closing.elapsed());
        let waiting = 20; // those that never read
        within(async {
            while tasks.len() > waiting {
                tasks.join_next().await;
            }
        })
        .await;
    }
}

/// A transport that is dropped while bytes for it are on their way is reset, and the peer loses what it
/// has not read. So the farewell waits until the peer has closed.
#[tokio::test(start_paused = true)]
async fn the_last_bytes_of_a_drained_session_arrive() {
    let shape = Shape { latency: Duration::from_millis(50), rate: 1 << 20, ..Shape::default() };
    let mut pair = linked(shape, Config::new(Role::Client), Config::new(Role::Server));
    let (mut ours, mut theirs) = pair.stream().await;
    let answering = async {
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        theirs.write_all(&[3; 250_000]).await.unwrap();
        theirs.shutdown().await.unwrap();
        drop(theirs);
        pair.server.drain();
    };
    let mut got = Vec::new();
    let asking = async {
        ours.shutdown().await.unwrap();
        ours.read_to_end(&mut got).await
    };
    let ((), read) = within(async { tokio::join!(answering, asking) }).await;
    assert_eq!(read.unwrap(), 250_000);
    drop(ours);
    assert_eq!(within(pair.client.closed()).await, CloseReason::PeerGoAway(0));
    assert_eq!(within(pair.server.closed()).await, CloseReason::Drained);
}

/// A peer that takes nothing cannot hold up a drained session for long.
#[tokio::test(start_paused = true)]
async fn a_farewell_to_a_dead_peer_is_bounded() {
    let pair = linked(Shape::default(), Config::new(Role::Client), Config::new(Role::Server));
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.scissors.silence();
    pair.client.drain();
    let drained = Instant::now();
    assert_eq!(within(pair.client.closed()).await, CloseReason::Drained);
    assert!(drained.elapsed() <= Duration::from_secs(5), "{:?}", drained.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_ends_everything() {
    let mut pair = linked(Shape::default(), config(Role::Client), config(Role::Server));
    let (mut ours, mut theirs) = pair.stream().await;
    let opening = pair.client.open();
    pair.drivers.abort_all();
    lost(&mut ours).await;
    lost(&mut theirs).await;
    assert_eq!(within(pair.client.closed()).await, CloseReason::DriverDropped);
    let _ended = within(opening).await;
    assert!(pair.server_incoming.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_can_use_drains() {
    let Linked { client, server, server_incoming, _client_incoming, mut drivers, .. } =
        linked(Shape::default(), config(Role::Client), config(Role::Server));
    let another = client.clone();
    drop((client, _client_incoming));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.is_open(), "one handle is left");
    drop(another);
    assert_eq!(within(server.closed()).await, CloseReason::PeerGoAway(0));
    drop(server_incoming);
    while drivers.join_next().await.is_some() {}
}

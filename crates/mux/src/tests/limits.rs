//! Limits hold, cost the stream that meets them, and never the session.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::basics::{Pair, pair_with, within};
use super::raw::{against_raw, data, frame};
use crate::frame::{ACK, Header, Kind, RST, SYN};
use crate::{CloseReason, Config, OpenError, Role};

fn client() -> Config {
    Config::new(Role::Client)
}

fn server() -> Config {
    Config::new(Role::Server)
}

#[tokio::test(start_paused = true)]
async fn opening_over_the_limit_is_refused_here_and_costs_nothing() {
    let mut pair = pair_with(1 << 16, client().with_max_outbound_streams(3), server());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pair.stream().await);
    }
    for _ in 0..2000 {
        assert_eq!(pair.client.open().await.unwrap_err(), OpenError::Limit);
    }
    assert_eq!(pair.client.stats().refused_total, 2000);
    held.pop();
    within(async {
        while pair.client.stats().streams_open_outbound == 3 || pair.client.open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(pair.client.is_open() && pair.server.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_open_gives_its_place_back() {
    let pair = pair_with(1 << 16, client().with_max_outbound_streams(1), server());
    for _ in 0..100 {
        // Cancelled before the driver has had a turn.
        let opening = pair.client.open();
        drop(tokio::time::timeout(Duration::ZERO, opening).await);
    }
    within(async {
        while pair.client.open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// F33: a flood of streams. Those over the limit are reset one by one, the session and the streams
/// within the limit go on.
#[tokio::test(start_paused = true)]
async fn f33_a_flood_of_streams_is_reset_and_the_session_lives() {
    let config = server().with_max_inbound_streams(10);
    let (mut ours, mut raw) = against_raw(config, 1 << 20);
    for id in 0..5000 {
        raw.send(&data(SYN, id * 2 + 1, b"flood")).await;
    }
    let frames = raw.rest().await;
    let resets = frames.iter().filter(|header| header.has(RST)).count();
    let acks = frames.iter().filter(|header| header.has(ACK)).count();
    assert_eq!((acks, resets), (10, 4990));
    let stats = ours.handle.stats();
    assert_eq!((stats.streams_open_inbound, stats.refused_total), (10, 4990));
    let mut first = ours.incoming.accept().await.unwrap();
    let mut got = [0; 5];
    first.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"flood");
    assert!(ours.handle.is_open());
}

/// While the transport takes nothing, the engine cannot forget streams that were dropped, and a peer that
/// reads nothing could pile them up. They keep their places.
#[tokio::test(start_paused = true)]
async fn dropped_streams_keep_their_places_while_the_engine_has_them() {
    let (mut ours, mut raw) = against_raw(server().with_max_inbound_streams(10).with_coalesce(1024), 512);
    let mut stuck = ours.handle.open().await.unwrap();
    let filling = tokio::time::timeout(Duration::from_secs(1), stuck.write_all(&[0; 1 << 20])).await;
    assert!(filling.is_err(), "the transport is full");
    for id in 0..100 {
        raw.send(&data(SYN, id * 2 + 1, b"")).await;
        let accepting = tokio::time::timeout(Duration::from_millis(10), ours.incoming.accept());
        drop(accepting.await);
    }
    let stats = ours.handle.stats();
    assert_eq!((stats.accepted_total, stats.refused_total), (10, 90));
    // The peer reads again, and all places are free again.
    within(async {
        while ours.handle.session().inbound.used() > 0 {
            raw.rest().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn f33_a_full_backlog_resets_the_newcomer() {
    let (ours, mut raw) = against_raw(server().with_accept_backlog(4), 1 << 20);
    for id in 0..6 {
        raw.send(&data(SYN, id * 2 + 1, b"")).await;
    }
    let reset: Vec<_> = raw.rest().await.into_iter().filter(|header| header.has(RST)).collect();
    assert_eq!(reset.iter().map(|header| header.stream).collect::<Vec<_>>(), [9, 11]);
    assert_eq!(ours.handle.stats().refused_total, 2);
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_will_accept_are_reset() {
    let Pair { client, server_incoming, drivers: _drivers, server: _server, .. } =
        pair_with(1 << 16, client(), server());
    drop(server_incoming);
    let mut ours = client.open().await.unwrap();
    ours.write_all(b"anybody?").await.unwrap();
    let error = within(ours.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Both ends far beyond the engine's own default of 512 streams for both directions together.
#[tokio::test(start_paused = true)]
async fn two_thousand_streams_at_once() {
    let mut pair = pair_with(1 << 16, client(), server());
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(pair.stream().await);
        let mut back = pair.server.open().await.unwrap();
        back.write_all(b"?").await.unwrap();
        held.push((back, pair.client_incoming.accept().await.unwrap()));
    }
    assert_eq!(pair.client.stats().streams_open_outbound, 1000);
    assert_eq!(pair.client.stats().streams_open_inbound, 1000);
}

/// The engine holds opens back at 256 that the peer has not acknowledged. Those whose owners do nothing
/// with them cannot be acknowledged, and must not hold up the others.
#[tokio::test(start_paused = true)]
async fn idle_opens_do_not_hold_up_others() {
    let Pair { client, mut server_incoming, drivers: _drivers, server: _server, .. } =
        pair_with(1 << 16, client(), server());
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(within(client.open()).await.unwrap());
    }
    assert!(within(server_incoming.accept()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn opens_wait_for_a_peer_that_does_not_acknowledge() {
    let (ours, mut raw) = against_raw(client(), 1 << 20);
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(within(ours.handle.open()).await.unwrap());
    }
    let late = tokio::time::timeout(Duration::from_secs(60), ours.handle.open()).await;
    assert!(late.is_err(), "the 257th waits");
    raw.send_frame(frame(Kind::WindowUpdate, ACK, 1, 0)).await;
    within(ours.handle.open()).await.unwrap();
}

/// As above, and the peer refuses instead: the engine wakes nobody for that.
#[tokio::test(start_paused = true)]
async fn opens_go_on_when_the_peer_refuses_earlier_ones() {
    let (ours, mut raw) = against_raw(client(), 1 << 20);
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(within(ours.handle.open()).await.unwrap());
    }
    let opening = ours.handle.open();
    let refusing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        raw.send_frame(Header::reset(1)).await;
    };
    let (opened, ()) = within(async { tokio::join!(opening, refusing) }).await;
    opened.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_the_ids_run_out_the_session_drains_and_says_so() {
    let mut pair = pair_with(1 << 16, client().with_max_stream_ids(2), server());
    let streams = [pair.stream().await, pair.stream().await];
    assert_eq!(pair.client.open().await.unwrap_err(), OpenError::Draining);
    within(pair.client.not_open()).await;
    drop(streams);
    assert_eq!(within(pair.client.closed()).await, CloseReason::StreamIdsExhausted);
}

/// A peer that causes answers for ever and never reads one.
#[tokio::test(start_paused = true)]
async fn unread_answers_end_the_session() {
    for (what, frame) in [("pings", Header::ping(7)), ("opens", frame(Kind::Data, SYN, 1, 0))] {
        let (ours, mut raw) = against_raw(server().with_max_inbound_streams(0), 64);
        let flooding = async {
            // The write fails when the session has had enough.
            while raw.io.write_all(&frame.encode()).await.is_ok() {}
        };
        within(flooding).await;
        let reason = within(ours.handle.closed()).await;
        assert!(matches!(reason, CloseReason::Protocol(_)), "{what}: {reason}");
    }
}

//! What a stream promises: bytes, half-close, resets, ends.

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

use crate::{CloseReason, Config, Handle, Incoming, OpenError, Role, Stream};

/// Fails the test when something does not come to an end. On the virtual clock this costs nothing.
pub(super) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("no end within 10 minutes")
}

/// Two ends over a pipe that holds `room` bytes, their drivers on tasks of their own.
pub(super) struct Pair {
    pub(super) client: Handle,
    pub(super) client_incoming: Incoming,
    pub(super) server: Handle,
    pub(super) server_incoming: Incoming,
    pub(super) drivers: JoinSet<CloseReason>,
}

pub(super) fn pair_with(room: usize, client: Config, server: Config) -> Pair {
    let (a, b): (DuplexStream, DuplexStream) = tokio::io::duplex(room);
    let (client, client_incoming, client_driver) = crate::session(a, client);
    let (server, server_incoming, server_driver) = crate::session(b, server);
    let mut drivers = JoinSet::new();
    drivers.spawn(client_driver);
    drivers.spawn(server_driver);
    Pair { client, client_incoming, server, server_incoming, drivers }
}

pub(super) fn pair() -> Pair {
    pair_with(64 * 1024, Config::new(Role::Client), Config::new(Role::Server))
}

impl Pair {
    /// A stream and its other end, with one byte sent so that both know of it.
    pub(super) async fn stream(&mut self) -> (Stream, Stream) {
        let mut ours = self.client.open().await.unwrap();
        ours.write_all(b"!").await.unwrap();
        let mut theirs = self.server_incoming.accept().await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'!');
        (ours, theirs)
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_each_side_ends_alone() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    ours.write_all(b"question").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"question");
    theirs.write_all(b"answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    got.clear();
    ours.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");
}

#[tokio::test(start_paused = true)]
async fn a_reset_reads_as_connection_reset() {
    let mut pair = pair();
    let (mut ours, theirs) = pair.stream().await;
    theirs.reset();
    let error = ours.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = ours.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_reads_as_connection_reset() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    pair.server.close(CloseReason::Local("test"));
    for end in [&mut ours, &mut theirs] {
        assert_eq!(end.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(pair.server.closed().await, CloseReason::Local("test"));
    assert_eq!(pair.client.closed().await, CloseReason::PeerClosed);
    let refused = pair.client.open().await.unwrap_err();
    assert_eq!(refused, OpenError::Closed(CloseReason::PeerClosed));
    assert!(pair.server_incoming.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drained_session_ends_with_its_last_stream() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    pair.client.drain();
    assert_eq!(pair.client.open().await.unwrap_err(), OpenError::Draining);
    ours.write_all(b"still").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"still");
    theirs.shutdown().await.unwrap();
    drop((ours, theirs));
    assert_eq!(pair.client.closed().await, CloseReason::Drained);
    assert_eq!(pair.server.closed().await, CloseReason::PeerGoAway(0));
    assert_eq!(pair.drivers.join_all().await.len(), 2);
    assert!(pair.client_incoming.accept().await.is_none());
}

//! How streams end, as their owner, their peer and the wire see it.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::basics::{Pair, pair, within};
use super::raw::{Raw, against_raw, data, frame};
use crate::frame::{ACK, FIN, Kind, RST, SYN};
use crate::{Config, Role, Stream};

async fn fails_with_reset(stream: &mut Stream) {
    let mut sink = Vec::new();
    let read = within(stream.read_to_end(&mut sink)).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Writes until it fails. A peer that is hung up on its credit never fails, and runs into the deadline.
async fn writer_fails(stream: &mut Stream) {
    let bytes = vec![0; 64 * 1024];
    let writing = async {
        loop {
            if let Err(error) = stream.write_all(&bytes).await {
                return error.kind();
            }
        }
    };
    assert_eq!(within(writing).await, ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn fin_then_drop_fails_the_peers_writer() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    // The FIN is on the wire, and seen, before the drop.
    theirs.shutdown().await.unwrap();
    assert_eq!(within(ours.read(&mut [0; 8])).await.unwrap(), 0);
    drop(theirs);
    writer_fails(&mut ours).await;
}

#[tokio::test(start_paused = true)]
async fn fin_and_drop_at_once_fails_the_peers_writer() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    theirs.write_all(b"last words").await.unwrap();
    theirs.shutdown().await.unwrap();
    drop(theirs);
    writer_fails(&mut ours).await;
    // What was sent before the FIN is not lost, and the end was a true one.
    let mut got = Vec::new();
    within(ours.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"last words");
}

#[tokio::test(start_paused = true)]
async fn a_drop_after_the_peers_fin_is_no_clean_end() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    ours.shutdown().await.unwrap();
    assert_eq!(within(theirs.read(&mut [0; 8])).await.unwrap(), 0);
    theirs.write_all(b"half an ans").await.unwrap();
    drop(theirs);
    fails_with_reset(&mut ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_after_our_own_fin_is_no_clean_end() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    ours.shutdown().await.unwrap();
    theirs.write_all(b"half an ans").await.unwrap();
    pair.server.close(crate::CloseReason::Local("cut"));
    fails_with_reset(&mut ours).await;
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_a_reset_can_be_read() {
    let mut pair = pair();
    let (mut ours, mut theirs) = pair.stream().await;
    theirs.write_all(&[5; 100_000]).await.unwrap();
    drop(theirs);
    let mut got = Vec::new();
    let error = within(ours.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!((got.len(), error.kind()), (100_000, ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn writing_after_shutdown_is_a_broken_pipe() {
    let mut pair = pair();
    let (mut ours, _theirs) = pair.stream().await;
    ours.shutdown().await.unwrap();
    ours.shutdown().await.unwrap();
    let error = ours.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_announced_before_it_waits() {
    let Pair { client, mut server_incoming, drivers: _drivers, .. } = pair();
    let mut ours = client.open().await.unwrap();
    let asking = async { ours.read_u8().await.unwrap() };
    let answering = async {
        let mut theirs = server_incoming.accept().await.unwrap();
        theirs.write_u8(9).await.unwrap();
        theirs
    };
    let (got, _theirs) = within(async { tokio::join!(asking, answering) }).await;
    assert_eq!(got, 9);
}

#[tokio::test(start_paused = true)]
async fn an_unused_stream_that_is_shut_down_arrives_as_an_empty_one() {
    let Pair { client, mut server_incoming, drivers: _drivers, .. } = pair();
    let mut ours = client.open().await.unwrap();
    ours.shutdown().await.unwrap();
    let mut theirs = within(server_incoming.accept()).await.unwrap();
    assert_eq!(within(theirs.read(&mut [0; 8])).await.unwrap(), 0);
}

async fn syn(raw: &mut Raw, id: u32, flags: u16) {
    raw.send(&data(SYN | flags, id, b"hi")).await;
}

#[tokio::test(start_paused = true)]
async fn the_open_travels_with_the_first_bytes() {
    let (ours, mut raw) = against_raw(Config::new(Role::Client), 1 << 16);
    let mut stream = ours.handle.open().await.unwrap();
    assert!(raw.next().await.is_none(), "nothing is sent for an open alone");
    stream.write_all(b"GET").await.unwrap();
    let (header, body) = raw.next().await.unwrap();
    assert_eq!((header.flags, header.stream, body), (SYN, 1, b"GET".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_acknowledged_before_anybody_accepts_it() {
    let (_ours, mut raw) = against_raw(Config::new(Role::Server), 1 << 16);
    syn(&mut raw, 1, 0).await;
    let (header, body) = raw.next().await.unwrap();
    assert_eq!((header.kind, header.flags, header.stream), (Kind::Data, ACK, 1));
    assert!(body.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_wire_says_reset_where_the_engine_says_fin_or_nothing() {
    let (mut ours, mut raw) = against_raw(Config::new(Role::Server), 1 << 16);

    // The peer has finished, we drop: the engine would send FIN.
    syn(&mut raw, 1, FIN).await;
    drop(ours.incoming.accept().await.unwrap());
    let ends: Vec<_> = raw.rest().await.iter().map(|header| header.flags).collect();
    assert_eq!(ends, [ACK, RST]);

    // We have finished, the peer has not, we drop: the engine would send no more.
    syn(&mut raw, 3, 0).await;
    let mut stream = ours.incoming.accept().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(raw.rest().await.iter().map(|header| header.flags).collect::<Vec<_>>(), [ACK, FIN]);
    drop(stream);
    assert_eq!(raw.rest().await.iter().map(|header| header.flags).collect::<Vec<_>>(), [RST]);

    // Both have finished: nothing to add.
    syn(&mut raw, 5, FIN).await;
    let mut stream = ours.incoming.accept().await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    assert_eq!(raw.rest().await.iter().map(|header| header.flags).collect::<Vec<_>>(), [ACK, FIN]);

    // The peer has reset: nothing to add either, and the session is fine.
    syn(&mut raw, 7, 0).await;
    let stream = ours.incoming.accept().await.unwrap();
    raw.send_frame(frame(Kind::WindowUpdate, RST, 7, 0)).await;
    assert_eq!(raw.rest().await.iter().map(|header| header.flags).collect::<Vec<_>>(), [ACK]);
    drop(stream);
    assert!(raw.rest().await.is_empty());
    assert!(ours.handle.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_fin_counts_only_with_its_whole_frame() {
    let (mut ours, mut raw) = against_raw(Config::new(Role::Server), 1 << 16);
    let last = data(SYN | FIN, 1, b"whole");
    let more = data(FIN, 3, b"torn apart");
    raw.send(&last).await;
    raw.send(&data(SYN, 3, b"")).await;
    raw.send(&more[..more.len() - 4]).await;
    let mut whole = ours.incoming.accept().await.unwrap();
    let mut torn = ours.incoming.accept().await.unwrap();
    drop(raw);
    let mut got = Vec::new();
    within(whole.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"whole");
    fails_with_reset(&mut torn).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_hears_of_an_end_without_reading() {
    let mut pair = pair();
    let (ours, mut theirs) = pair.stream().await;
    theirs.write_all(b"unread").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut watch = ours.watch();
    let day = std::time::Duration::from_secs(24 * 3600);
    assert!(tokio::time::timeout(day, &mut watch).await.is_err(), "finishing is not leaving");
    drop(theirs);
    within(watch).await;

    let (ours, theirs) = pair.stream().await;
    let watch = ours.watch();
    drop(ours);
    within(watch).await;
    drop(theirs);

    let (ours, _theirs) = pair.stream().await;
    let watch = ours.watch();
    drop(pair);
    within(watch).await;
    drop(ours);
}

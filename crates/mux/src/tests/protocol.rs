//! What the peer says about the session, and what no peer may say.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::basics::within;
use super::raw::{against_raw, data, frame};
use crate::frame::{ACK, FIN, Header, Kind, SYN};
use crate::{CloseReason, Config, OpenError, Role};

fn server() -> Config {
    Config::new(Role::Server)
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_with_their_value_also_in_the_middle_of_bulk() {
    let (mut ours, mut raw) = against_raw(server(), 4096);
    raw.send(&data(SYN, 1, b"")).await;
    let mut stream = ours.incoming.accept().await.unwrap();
    let writing = async {
        let bytes = vec![1; 1 << 20];
        while stream.write_all(&bytes).await.is_ok() {}
    };
    let pinging = async {
        for value in 100..200 {
            raw.send_frame(Header::ping(value)).await;
            loop {
                let (header, _) = raw.next().await.unwrap();
                if header.kind == Kind::Ping {
                    assert_eq!(header, Header::pong(value));
                    break;
                }
                if header.value > 0 {
                    raw.send_frame(frame(Kind::WindowUpdate, 0, 1, header.value)).await;
                }
            }
        }
    };
    tokio::select! {
        () = writing => panic!("bulk ended before the pings"),
        () = within(pinging) => {}
    }
}

/// A transport that always has the next ping and always takes bytes.
struct NeverPauses {
    pings: usize,
    at: usize,
    answered: usize,
}

impl AsyncRead for NeverPauses {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pings > 0 {
            let rest = &Header::ping(5).encode()[this.at..];
            let some = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..some]);
            this.at = (this.at + some) % crate::frame::HEADER;
            this.pings -= usize::from(this.at == 0);
        } else {
            assert!(this.answered > 1_000_000, "{}", this.answered);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NeverPauses {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().answered += buf.len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Reading that never pauses must not keep answers from leaving, nor take them for a flood.
#[tokio::test(start_paused = true)]
async fn answers_leave_while_the_peer_never_pauses() {
    let io = NeverPauses { pings: 100_000, at: 0, answered: 0 };
    let (_handle, _incoming, driver) = crate::session(io, server());
    assert_eq!(within(driver).await, CloseReason::PeerClosed);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_ours_measures_the_round_trip_and_leaves_the_engine_alone() {
    let (ours, mut raw) = against_raw(server(), 1 << 16);
    // One that its caller gave up on, whose answer comes all the same.
    let forgotten = tokio::time::timeout(Duration::from_millis(1), ours.handle.ping()).await;
    assert!(forgotten.is_err());
    let answering = async {
        tokio::time::sleep(Duration::from_millis(70)).await;
        assert!(raw.next().await.is_none(), "the pings were answered on the way");
    };
    let (round_trip, ()) = within(async { tokio::join!(ours.handle.ping(), answering) }).await;
    assert_eq!(round_trip, Ok(Duration::from_millis(70)));
    let cutting = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ours.handle.close(CloseReason::Local("cut"));
    };
    let (lost, ()) = within(async { tokio::join!(ours.handle.ping(), cutting) }).await;
    assert_eq!(lost, Err(CloseReason::Local("cut")));
    assert_eq!(within(ours.handle.ping()).await, Err(CloseReason::Local("cut")));
}

/// As the protocol has it, and Go's implementation: streams that are open may finish. The engine alone
/// cuts them.
#[tokio::test(start_paused = true)]
async fn after_a_friendly_go_away_streams_finish() {
    let (mut ours, mut raw) = against_raw(server(), 1 << 16);
    raw.send(&data(SYN, 1, b"request")).await;
    let mut stream = ours.incoming.accept().await.unwrap();
    raw.send_frame(frame(Kind::GoAway, 0, 0, 0)).await;
    within(ours.handle.not_open()).await;
    assert_eq!(ours.handle.open().await.unwrap_err(), OpenError::Draining);
    raw.send(&data(FIN, 1, b"")).await;
    let mut got = Vec::new();
    within(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"request");
    stream.write_all(b"response").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let (_ack, _) = raw.next().await.unwrap();
    assert_eq!(raw.next().await.unwrap().1, b"response");
    let farewell = raw.rest().await;
    assert_eq!(farewell.last().map(|header| (header.kind, header.value)), Some((Kind::GoAway, 0)));
    drop(raw);
    assert_eq!(within(ours.driver).await.unwrap(), CloseReason::PeerGoAway(0));
}

#[tokio::test(start_paused = true)]
async fn an_unfriendly_go_away_ends_the_session_with_its_code() {
    for code in [1, 2, 77] {
        let (ours, mut raw) = against_raw(server(), 1 << 16);
        raw.send_frame(frame(Kind::GoAway, 0, 0, code)).await;
        assert_eq!(within(ours.driver).await.unwrap(), CloseReason::PeerGoAway(code));
    }
}

#[tokio::test(start_paused = true)]
async fn violations_end_the_session_and_say_so() {
    let large = data(SYN, 1, &vec![0; 256 * 1024 + 1]);
    let twice = [data(SYN, 1, b""), data(SYN, 1, b"")].concat();
    let beyond_window = [data(SYN, 1, &vec![0; 256 * 1024]), data(0, 1, b"!")].concat();
    let huge = frame(Kind::Data, SYN, 1, (1 << 20) + 1).encode().to_vec();
    for (what, bytes) in [
        ("an unexpected pong", frame(Kind::Ping, ACK, 0, 12345).encode().to_vec()),
        ("a stream id of ours", data(SYN, 2, b"")),
        ("the same stream twice", twice),
        ("a first frame over the window", large),
        ("more than the window", beyond_window),
        ("a frame over 1 MiB", huge),
        ("an unknown frame", frame(Kind::Unknown(9), 0, 0, 0).encode().to_vec()),
        ("an unknown version", Header { version: 3, ..Header::ping(1) }.encode().to_vec()),
    ] {
        let (ours, mut raw) = against_raw(server(), 1 << 16);
        // The end may come before the last byte.
        let _cut = raw.io.write_all(&bytes).await;
        let reason = within(ours.driver).await.unwrap();
        assert!(matches!(reason, CloseReason::Protocol(_)), "{what}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_at_any_byte_is_a_peer_that_closed() {
    let whole = [data(SYN, 1, b"some bytes"), Header::ping(1).encode().to_vec()].concat();
    for cut in 0..whole.len() {
        let (ours, mut raw) = against_raw(server(), 1 << 16);
        raw.send(&whole[..cut]).await;
        drop(raw);
        let reason = within(ours.driver).await.unwrap();
        // Our answers may find the transport closed before its end is read.
        let broken = matches!(reason, CloseReason::Io(io::ErrorKind::BrokenPipe, _));
        assert!(reason == CloseReason::PeerClosed || broken, "{cut}: {reason}");
    }
}

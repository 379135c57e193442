//! One byte that is given up, so that an upgrade through Guardian survives.
//!
//! Called by `channels` around the stream of an upgrade. Go's HTTP server keeps a read of one byte pending while a
//! handler runs, and stops it by a deadline in the past when the handler takes the connection over. On a stream of
//! Go's yamux that failed read makes Go's TLS give the connection up for ever, right after its `101`. A byte that
//! arrives before is what that read takes, so that nothing is left to be stopped; and what it took never reaches the
//! handler of Go's `ReverseProxy`, which reads from the connection itself.
//!
//! The byte must come in a TLS record of its own, behind the one that ends the head: with the head, it would be read
//! with the head. The TLS library makes a record of each write.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server that does read it, between two requests, passes over it.
const BYTE: &[u8] = b"\n";

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// A byte stream that writes [`BYTE`] by itself behind the first head that is written to it.
#[derive(Debug)]
pub(super) struct Sacrifice<IO> {
    io: IO,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So much of [`END`] was written last.
    Head(usize),
    /// The head is written; the byte is not.
    Owed,
    Paid,
}

impl<IO> Sacrifice<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, state: State::Head(0) }
    }
}

impl<IO: AsyncWrite + Unpin> Sacrifice<IO> {
    fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Owed {
            if ready!(Pin::new(&mut self.io).poll_write(cx, BYTE))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.state = State::Paid;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let State::Head(mut matched) = self.state else { return };
        for byte in bytes {
            matched = match END.get(matched) {
                Some(expected) if expected == byte => matched + 1,
                _ if *byte == b'\r' => 1,
                _ => 0,
            };
            if matched == END.len() {
                self.state = State::Owed;
                return;
            }
        }
        self.state = State::Head(matched);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Sacrifice<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Sacrifice<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pay(cx))?;
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.wrote(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
        self.poll_write(cx, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Keeps the pieces that are written to it apart.
    #[derive(Clone, Default)]
    struct Records {
        written: Arc<Mutex<Vec<Vec<u8>>>>,
        most: usize,
    }

    impl AsyncWrite for Records {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.most);
            self.written.lock().unwrap().push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_byte_goes_alone_and_once_behind_the_head() {
        for most in [1, 3, 1024] {
            let records = Records { most, ..Records::default() };
            let mut io = Sacrifice::new(records.clone());
            io.write_all(b"POST / HTTP/1.1\r\na: b\r\n").await.unwrap();
            io.flush().await.unwrap();
            assert!(!records.written.lock().unwrap().iter().any(|record| record == BYTE && most > 1));
            io.write_all(b"\r\n").await.unwrap();
            io.flush().await.unwrap();
            io.write_all(b"later\r\n\r\n").await.unwrap();
            io.flush().await.unwrap();
            let written = records.written.lock().unwrap();
            let all = written.concat();
            assert_eq!(all, b"POST / HTTP/1.1\r\na: b\r\n\r\n\nlater\r\n\r\n");
            if most > 3 {
                assert_eq!(written.iter().filter(|record| *record == BYTE).count(), 1, "{written:?}");
            }
        }
    }
}

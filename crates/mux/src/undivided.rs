//! A stream to a peer that never ends one side alone: when it has finished, it has left, and reads no more.
//!
//! Put around a stream by whoever talks to such a peer: Calico's Guardian closes its streams as a whole, and Go's yamux
//! tells of that by the end of its writing side. What is written to it from then on fills the window and stays there until
//! Go gives the stream up, five minutes later. So a write that has to wait looks for the end as well, and fails then.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read ahead while a write waits. A peer that has more to say than this has not left.
const AHEAD: usize = 4 * 1024;

/// A byte stream on which a write that waits fails when the peer has finished its side.
#[derive(Debug)]
pub struct Undivided<IO> {
    io: IO,
    /// Read while a write waited, and not given to the reader yet.
    ahead: Vec<u8>,
    ended: bool,
}

impl<IO> Undivided<IO> {
    /// Around a stream of which nothing was read yet, or something.
    pub fn new(io: IO) -> Self {
        Self { io, ahead: Vec::new(), ended: false }
    }

    /// What is below.
    pub fn inner(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> Undivided<IO> {
    /// Ready when the peer has finished. A failure shows to whoever reads or writes next.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [0; AHEAD];
        while !self.ended && self.ahead.len() < AHEAD {
            let mut piece = ReadBuf::new(&mut room);
            if ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece)).is_err() || piece.filled().is_empty() {
                self.ended = true;
            }
            self.ahead.extend_from_slice(piece.filled());
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Undivided<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..taken).unwrap_or_default());
        self.ahead.drain(..taken);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Undivided<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.io).poll_write(cx, buf) {
            return Poll::Ready(written);
        }
        ready!(self.poll_left(cx));
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_that_waits_fails_when_the_peer_has_finished_and_what_it_said_is_read() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = Undivided::new(ours);
        theirs.write_all(b"last words").await.unwrap();
        let (wrote, ()) = tokio::join!(stream.write_all(&[0; 100]), async { theirs.shutdown().await.unwrap() });
        assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last words");
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_goes_on_is_waited_for_and_nothing_is_lost() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = Undivided::new(ours);
        let said: Vec<u8> = (0..5_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let us = async {
            let writing = tokio::time::timeout(std::time::Duration::from_millis(50), stream.write_all(&[0; 100]));
            assert!(writing.await.is_err(), "there was no room for it");
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, said);
        };
        tokio::join!(us, async { theirs.write_all(&said).await.unwrap() });
    }
}

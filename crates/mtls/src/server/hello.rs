//! Which server somebody wants to reach by TLS that is not ours: the first message is read, understood and kept, and
//! nothing is answered.
//!
//! Called by the server for what programs in managed clusters send to services of the management cluster. What was read
//! goes on as it came ([`Replayed`]), to whoever does the handshake.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustls::server::Acceptor;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The most that a first message may have, in bytes. Those with keys for post-quantum exchange have some 2,000.
pub const MAX_HELLO: usize = 16 * 1024;

/// Read at once, in bytes.
const PIECE: usize = 2 * 1024;

/// What the first byte of TLS is: a handshake record.
const HANDSHAKE: u8 = 22;

/// Says to a program in TLS, before there is a handshake, that there is no such server (`unrecognized_name`).
pub const NO_SUCH_SERVER: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Says to a program in TLS, before there is a handshake, that the server cannot be reached (`internal_error`).
pub const UNREACHABLE: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What a first message says.
#[derive(Debug)]
pub struct Heard<IO> {
    /// The server that is asked for: one DNS name in lower case. None where none is, or an address, which TLS does not
    /// carry. With an encrypted hello it is the outer name, the only one that anybody on the way may see.
    pub server_name: Option<String>,
    /// The stream, as if nothing had been read of it.
    pub io: Replayed<IO>,
}

/// Why a first message says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// It is not TLS.
    #[error("it is not TLS")]
    NotTls,
    /// It is TLS, and no first message that makes sense: no, or several, or impossible names; odd extensions.
    #[error("it is no hello of TLS that makes sense")]
    Malformed,
    /// It has more than [`MAX_HELLO`] bytes.
    #[error("the hello has more than {MAX_HELLO} bytes")]
    TooLarge,
    /// It was not there in time.
    #[error("no complete hello in time")]
    Timeout,
    /// The peer hung up before it was complete.
    #[error("it hung up before it said hello")]
    Ended,
}

/// Reads the first message within `limit`.
///
/// # Errors
/// [`HelloError`], with the stream, of which some was read.
pub async fn hear_hello<IO>(mut io: IO, limit: Duration) -> Result<Heard<IO>, (HelloError, IO)>
where
    IO: AsyncRead + Unpin,
{
    let mut read = Vec::new();
    let reading = tokio::time::timeout(limit, understand(&mut io, &mut read));
    match reading.await.unwrap_or(Err(HelloError::Timeout)) {
        Ok(server_name) => Ok(Heard { server_name, io: Replayed::new(read, io) }),
        Err(error) => Err((error, io)),
    }
}

async fn understand<IO>(io: &mut IO, read: &mut Vec<u8>) -> Result<Option<String>, HelloError>
where
    IO: AsyncRead + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut piece = [0; PIECE];
    loop {
        let room = PIECE.min(MAX_HELLO.saturating_sub(read.len()));
        if room == 0 {
            return Err(HelloError::TooLarge);
        }
        let room = piece.get_mut(..room).unwrap_or_default();
        let count = io.read(room).await.map_err(|_broken| HelloError::Ended)?;
        let Some(new) = piece.get(..count).filter(|new| !new.is_empty()) else { return Err(HelloError::Ended) };
        read.extend_from_slice(new);
        if read.first() != Some(&HANDSHAKE) {
            return Err(HelloError::NotTls);
        }
        let mut rest = new;
        while !rest.is_empty() {
            // Takes all of it, or says that it has too much already.
            acceptor.read_tls(&mut rest).map_err(|_full| HelloError::TooLarge)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(str::to_ascii_lowercase)),
                Err(_alert) => return Err(HelloError::Malformed),
            }
        }
    }
}

/// A stream of which something was read that is to be read again.
#[derive(Debug)]
pub struct Replayed<IO> {
    head: io::Cursor<Vec<u8>>,
    io: IO,
}

impl<IO> Replayed<IO> {
    /// `head` comes before everything else that is read from `io`.
    pub fn new(head: Vec<u8>, io: IO) -> Self {
        Self { head: io::Cursor::new(head), io }
    }

    /// The stream below.
    pub fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Replayed<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.head.get_ref().is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let at = usize::try_from(this.head.position()).unwrap_or(usize::MAX);
        let rest = this.head.get_ref().get(at..).unwrap_or_default();
        let count = rest.len().min(buf.remaining());
        let (now, later) = rest.split_at(count);
        buf.put_slice(now);
        if later.is_empty() {
            // Not kept for as long as the connection lasts.
            this.head = io::Cursor::default();
        } else {
            this.head.set_position(this.head.position().saturating_add(count as u64));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Replayed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

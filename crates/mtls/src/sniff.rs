//! Remembers the first bytes of a connection, to say "this is plain HTTP" instead of "corrupt message".

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Enough to tell protocols apart.
const KEPT: usize = 8;

/// A byte stream that passes everything through and keeps a copy of the first few bytes read.
#[derive(Debug)]
pub(crate) struct Sniff<IO> {
    io: IO,
    first: [u8; KEPT],
    len: u8,
}

impl<IO> Sniff<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, first: [0; KEPT], len: 0 }
    }

    pub(crate) fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The first bytes that were read, as far as any were.
    pub(crate) fn first(&self) -> &[u8] {
        self.first.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// What the peer speaks, when its first bytes are not those of TLS.
    pub(crate) fn not_tls(&self) -> Option<&'static str> {
        match self.first() {
            [] | [20..=23, 3, ..] | [20..=23] => None,
            [b'H', b'T', b'T', b'P', b'/', ..] => Some("an answer in plain HTTP"),
            [b'G', b'E', b'T', b' ', ..]
            | [b'P', b'O', b'S', b'T', ..]
            | [b'P', b'U', b'T', b' ', ..]
            | [b'P', b'R', b'I', b' ', ..]
            | [b'H', b'E', b'A', b'D', ..]
            | [b'P', b'A', b'T', b'C', b'H', ..]
            | [b'D', b'E', b'L', b'E', ..]
            | [b'O', b'P', b'T', b'I', ..]
            | [b'C', b'O', b'N', b'N', ..] => Some("a request in plain HTTP"),
            [b'S', b'S', b'H', b'-', ..] => Some("SSH"),
            [b'P', b'R', b'O', b'X', b'Y', ..] | [0x0d, 0x0a, 0x0d, 0x0a, ..] => Some("a PROXY protocol header"),
            _ => Some("something else"),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Sniff<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let kept = usize::from(self.len);
        if kept < KEPT
            && let Some(new) = buf.filled().get(before..)
        {
            let count = new.len().min(KEPT - kept);
            self.first[kept..kept + count].copy_from_slice(&new[..count]);
            self.len += u8::try_from(count).unwrap_or(0);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Sniff<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
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
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn sniffed(bytes: &[u8]) -> Sniff<&[u8]> {
        let mut sniff = Sniff::new(bytes);
        let mut through = Vec::new();
        // Byte by byte, as a slow peer would send them.
        while let Ok(byte) = sniff.read_u8().await {
            through.push(byte);
        }
        assert_eq!(through, bytes, "everything passes through");
        sniff
    }

    #[tokio::test]
    async fn tells_what_is_not_tls() {
        for (bytes, expected) in [
            (&b""[..], None),
            (&[22], None),
            (&[22, 3, 1, 0, 5, 1], None),
            (&[21, 3, 3, 0, 2, 2, 40], None),
            (b"GET / HTTP/1.1\r\n", Some("a request in plain HTTP")),
            (b"PRI * HTTP/2.0", Some("a request in plain HTTP")),
            (b"HTTP/1.0 200 OK", Some("an answer in plain HTTP")),
            (b"SSH-2.0-x", Some("SSH")),
            (b"PROXY TCP4 ", Some("a PROXY protocol header")),
            (&[22, 9], Some("something else")),
            (&[0; 20], Some("something else")),
        ] {
            assert_eq!(sniffed(bytes).await.not_tls(), expected, "{bytes:?}");
        }
    }
}

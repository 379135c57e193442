//! Keeps what one stream holds in memory small while an HTTP library reads from it and writes to it.
//!
//! Called by both ends of the tunnel, around the streams and connections that they hand to such a library. It touches
//! what it is given and nothing else.
//!
//! The library has one limit for the largest head, for how much it reads at once and for how much it gathers before the
//! other side takes it. The first must be large, up to megabytes for identities with thousands of groups; the other two
//! must not, with a thousand streams whose users read slowly. So a [`Paced`] stream hands out little at once, and whoever
//! feeds it can wait, by its [`Pace`], while much of what it gave is unwritten.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read at once, in bytes. hyper grows its buffer to the next power of two over the pieces that come, and
/// keeps one buffer for each piece that is still to be written: pieces of this size fill three quarters of 16 KiB, pieces
/// of 16 KiB would fill half of 32.
const READ: usize = 12 * 1024;

/// A body waits while this much of it is unwritten, in bytes.
const UNWRITTEN: usize = 32 * 1024;

/// What a body and the stream that it is written to share.
#[derive(Debug, Default)]
pub struct Pace {
    unwritten: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Pace {
    /// Whether the body may go on; if not, the task is woken when it may.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unwritten.load(Ordering::Acquire) < UNWRITTEN {
            return Poll::Ready(());
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // Looked at again, in case it was written between the look and the note.
        if self.unwritten.load(Ordering::Acquire) < UNWRITTEN { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The body gave so many bytes.
    pub fn gave(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The stream took so many bytes. Heads and chunk lengths count along, so this is an upper bound and never holds a
    /// body back for ever.
    fn wrote(&self, bytes: usize) {
        let less = |unwritten: usize| Some(unwritten.saturating_sub(bytes));
        let before = self.unwritten.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if before.unwrap_or_default() >= UNWRITTEN
            && let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waiting.wake();
        }
    }
}

/// A stream that reads in small pieces and tells how much it has written.
#[derive(Debug)]
pub struct Paced<IO> {
    io: IO,
    pace: Option<Arc<Pace>>,
}

impl<IO> Paced<IO> {
    /// Reads in small pieces, and tells `pace` what it writes.
    pub fn new(io: IO, pace: Arc<Pace>) -> Self {
        Self { io, pace: Some(pace) }
    }

    /// Reads in small pieces; what is written is somebody else's care.
    pub fn reading(io: IO) -> Self {
        Self { io, pace: None }
    }

    /// What is below.
    pub fn inner(&self) -> &IO {
        &self.io
    }

    fn wrote(&self, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.wrote(bytes);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() <= READ {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(READ));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
        let read = piece.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, pieces))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
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
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_body_waits_for_the_stream_and_is_woken_by_it() {
        let pace = Arc::new(Pace::default());
        let (ours, mut theirs) = duplex(UNWRITTEN * 4);
        let mut paced = Paced::new(ours, Arc::clone(&pace));
        pace.gave(UNWRITTEN - 1);
        poll_fn(|cx| pace.poll_ready(cx)).await;
        pace.gave(1000);
        let waiting = poll_fn(|cx| pace.poll_ready(cx));
        let writing = async {
            paced.write_all(&[0; 999]).await.unwrap();
            assert_eq!(pace.unwritten.load(Ordering::Acquire), UNWRITTEN);
            paced.write_all(&[0; 1]).await.unwrap();
        };
        tokio::join!(waiting, writing);
        paced.write_all(&vec![0; UNWRITTEN * 2]).await.unwrap();
        assert_eq!(pace.unwritten.load(Ordering::Acquire), 0, "framing never counts below nothing");
        theirs.write_all(&vec![1; READ * 3]).await.unwrap();
        let mut sink = Vec::with_capacity(READ * 4);
        assert_eq!(paced.read_buf(&mut sink).await.unwrap(), READ);
        let mut small = [0; 100];
        assert_eq!(paced.read(&mut small).await.unwrap(), 100);
        assert!(sink.iter().chain(&small).all(|byte| *byte == 1));
    }
}

//! Ends connections the way Guardian survives.
//!
//! Wraps the TLS stream of a session. Guardian 3.30 and 3.31 dial again only when their session ended with a clean end of
//! file, and stop for ever on any other error. A connection that is closed over bytes that were not read is reset by the
//! kernel, and with Guardian's ping every 100 ms there are nearly always some. So whoever drops this sends the end of TLS
//! and of TCP, and what still comes is read for a while.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use moorline_process::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// For all of it: a slow round trip, and Guardian's own closing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that are read meanwhile, at most: what streams may have had on their way.
const MOST: u64 = 16 * 1024 * 1024;

/// The same for somebody who was never let in, and holds no place any more.
const STRANGERS_PATIENCE: Duration = Duration::from_millis(500);
const STRANGERS_MOST: u64 = 64 * 1024;

/// A byte stream that is ended politely when it is dropped.
pub(super) struct Farewell<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    io: Option<IO>,
    tasks: Tasks,
    limits: (Duration, u64),
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Farewell<IO> {
    /// Of somebody who is not let in yet.
    pub(super) fn new(io: IO, tasks: Tasks) -> Self {
        Self { io: Some(io), tasks, limits: (STRANGERS_PATIENCE, STRANGERS_MOST) }
    }

    /// The same, let in.
    pub(super) fn let_in(self) -> Self {
        let mut this = self;
        this.limits = (PATIENCE, MOST);
        this
    }

    fn with<T>(&mut self, poll: impl FnOnce(Pin<&mut IO>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.io {
            Some(io) => poll(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Farewell<IO> {
    fn drop(&mut self) {
        let Some(mut io) = self.io.take() else { return };
        // Dropped with the process there is nobody left to do it.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (patience, most) = self.limits;
        self.tasks.spawn("tunnel-farewell", async move {
            let parting = async {
                io.shutdown().await?;
                tokio::io::copy(&mut (&mut io).take(most), &mut tokio::io::sink()).await
            };
            // However it ends, it has ended.
            drop(tokio::time::timeout(patience, parting).await);
        });
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Farewell<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_read(cx, buf))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Farewell<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use moorline_process::Registry;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_says_goodbye_and_reads_on() {
        let tasks = Tasks::new(&Registry::new("test", "0"));
        let (ours, mut theirs) = tokio::io::duplex(64);
        drop(Farewell::new(ours, tasks.clone()));
        let mut rest = Vec::new();
        theirs.write_all(&[7; 1000]).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(theirs.read_to_end(&mut rest).await.unwrap(), 0);
        tasks.finished(PATIENCE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_hangs_up_is_not_waited_for() {
        let tasks = Tasks::new(&Registry::new("test", "0"));
        let (ours, _theirs) = tokio::io::duplex(64);
        drop(Farewell::new(ours, tasks.clone()));
        assert_eq!(tasks.len(), 1, "it is listened to");
        tasks.finished(PATIENCE * 2).await.unwrap();
    }
}

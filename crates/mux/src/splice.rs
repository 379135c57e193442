//! Carries bytes between two ends until both directions have ended, for connections that were switched to something
//! that is not HTTP.
//!
//! Called by both ends of the tunnel, with a stream of the tunnel on the one side and a user or a kube-apiserver on the
//! other. It touches the two ends that it is given and nothing else.
//!
//! What differs from a plain copy in both directions: an end that no longer *reads* may still have something to say. A
//! command that exits without reading its input ends like that, and its exit status comes last. So a failed write stops
//! its own direction only: what still arrives for it is read and thrown away, and the other direction goes on to its end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// How to carry.
#[derive(Clone, Copy, Debug)]
pub struct Splicing {
    /// Bytes of the buffer of each direction.
    pub buffer: usize,
    /// How long the near end's input is read and thrown away after the far end has failed or stopped reading, so that
    /// what was written to the near end arrives: a TCP connection that is closed over unread input is reset, and a
    /// reset destroys what is on its way. Zero for an end on which data and reset stay in order.
    pub linger: Duration,
}

/// Bytes carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spliced {
    /// From the near end to the far one.
    pub up: u64,
    /// From the far end to the near one.
    pub down: u64,
}

/// Carries bytes both ways. The end of one direction is passed on as such while the other goes on.
///
/// # Errors
/// When an end failed. Whatever had arrived from it was written to the other end and flushed; the caller ends the other
/// one abruptly, so that nobody takes a part for the whole.
pub async fn splice<N, F>(near: &mut N, far: &mut F, splicing: Splicing) -> io::Result<Spliced>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::new(splicing.buffer), Direction::new(splicing.buffer));
    let end = poll_fn(|cx| carry(cx, near, far, &mut up, &mut down)).await;
    let spliced = Spliced { up: up.carried, down: down.carried };
    let outcome = match end {
        End::Whole => return Ok(spliced),
        End::FarStoppedReading => Ok(spliced),
        End::FarFailed(error) => Err(error),
        End::NearFailed(error) => return Err(error),
    };
    if !splicing.linger.is_zero() {
        // Whichever comes first, the near end hanging up or the limit: there is nothing more to do for it.
        drop(tokio::time::timeout(splicing.linger, discard(near, &mut up.buffer)).await);
    }
    outcome
}

enum End {
    Whole,
    FarStoppedReading,
    FarFailed(io::Error),
    NearFailed(io::Error),
}

fn carry<N, F>(cx: &mut Context<'_>, near: &mut N, far: &mut F, up: &mut Direction, down: &mut Direction) -> Poll<End>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    if let Poll::Ready(Err(Failed::Read(error))) = up.poll(cx, near, far) {
        return Poll::Ready(End::NearFailed(error));
    }
    match down.poll(cx, far, near) {
        Poll::Ready(Ok(())) if up.state == State::Ended => Poll::Ready(End::Whole),
        Poll::Ready(Ok(())) if up.state == State::Discarding => Poll::Ready(End::FarStoppedReading),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        Poll::Ready(Err(Failed::Read(error))) => Poll::Ready(End::FarFailed(error)),
        Poll::Ready(Err(Failed::Write(error))) => Poll::Ready(End::NearFailed(error)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Copying,
    /// The reader has failed; what came before is being flushed.
    Failing,
    /// The reader has ended; the writer is being told.
    Ending,
    Ended,
    /// The writer has failed; what the reader sends is thrown away.
    Discarding,
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

struct Direction {
    buffer: Box<[u8]>,
    /// The part of the buffer that is still to be written.
    unwritten: std::ops::Range<usize>,
    unflushed: bool,
    carried: u64,
    state: State,
    failure: Option<io::Error>,
}

impl Direction {
    fn new(size: usize) -> Self {
        Self {
            buffer: vec![0; size.max(1)].into_boxed_slice(),
            unwritten: 0..0,
            unflushed: false,
            carried: 0,
            state: State::Copying,
            failure: None,
        }
    }

    /// Goes on as far as it can. A failed write is reported once; after it, what arrives is thrown away.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Err(error) = ready!(self.poll_write(cx, writer)) {
                self.state = State::Discarding;
                self.unwritten = 0..0;
                self.unflushed = false;
                // The direction goes on, as a drain; so its task must come back to it.
                cx.waker().wake_by_ref();
                return Poll::Ready(Err(Failed::Write(error)));
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Failing => {
                    let failure = self.failure.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                    return Poll::Ready(Err(Failed::Read(failure)));
                }
                State::Ending => self.state = State::Ended,
                State::Copying | State::Discarding => {
                    let mut buffer = ReadBuf::new(&mut self.buffer);
                    let read = Pin::new(&mut *reader).poll_read(cx, &mut buffer);
                    let length = buffer.filled().len();
                    match read {
                        Poll::Ready(Ok(())) => self.arrived(length),
                        Poll::Ready(Err(error)) => {
                            self.failure = Some(error);
                            self.state = State::Failing;
                        }
                        Poll::Pending if self.unflushed => match ready!(Pin::new(&mut *writer).poll_flush(cx)) {
                            Ok(()) => {
                                self.unflushed = false;
                                return Poll::Pending;
                            }
                            // The next write fails too, and says so.
                            Err(_broken) => self.unflushed = false,
                        },
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }

    fn arrived(&mut self, length: usize) {
        match (self.state, length) {
            (State::Discarding, 0) => self.state = State::Ended,
            (State::Discarding, _thrown_away) => {}
            (_copying, 0) => self.state = State::Ending,
            (_copying, length) => self.unwritten = 0..length,
        }
    }

    /// Writes what is left, and in the end flushes and passes the end on.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        while let Some(rest) = self.buffer.get(self.unwritten.clone()).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.start += written;
            self.carried += written as u64;
            self.unflushed = true;
        }
        match self.state {
            State::Failing => {
                // The failure that is about to be told says more than one of the flush.
                drop(ready!(Pin::new(writer).poll_flush(cx)));
            }
            State::Ending => ready!(Pin::new(writer).poll_shutdown(cx))?,
            State::Copying | State::Ended | State::Discarding => {}
        }
        Poll::Ready(Ok(()))
    }
}

async fn discard<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut [u8]) {
    while reader.read(buffer).await.is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const SPLICING: Splicing = Splicing { buffer: 1024, linger: Duration::from_secs(1) };

    /// Reads from a script, fails every write.
    struct Deaf<R>(R);

    impl<R: AsyncRead + Unpin> AsyncRead for Deaf<R> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl<R: Unpin> AsyncWrite for Deaf<R> {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_close_is_kept_in_both_directions() {
        let (mut user, mut near) = duplex(64);
        let (mut far, mut cluster) = duplex(64);
        let talk = async {
            user.write_all(&[1; 10_000]).await.unwrap();
            user.shutdown().await.unwrap();
            let mut answer = Vec::new();
            user.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let serve = async {
            let mut asked = Vec::new();
            cluster.read_to_end(&mut asked).await.unwrap();
            cluster.write_all(&[2; 20_000]).await.unwrap();
            cluster.shutdown().await.unwrap();
            asked
        };
        let (spliced, answer, asked) = tokio::join!(splice(&mut near, &mut far, SPLICING), talk, serve);
        assert_eq!(spliced.unwrap(), Spliced { up: 10_000, down: 20_000 });
        assert_eq!((answer.len(), asked.len()), (20_000, 10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_stops_reading_is_heard_to_the_end() {
        let (mut user, mut near) = duplex(64);
        let (far, mut cluster) = duplex(64);
        let mut far = Deaf(far);
        let talk = async {
            // More than any buffer on the way: it must be thrown away, or this would hang.
            let mut answer = [0; 9];
            let (sent, heard) = tokio::join!(async { user.write_all(&[1; 100_000]).await }, async {
                cluster.write_all(b"exit code").await
            });
            sent.unwrap();
            heard.unwrap();
            user.read_exact(&mut answer).await.unwrap();
            cluster.shutdown().await.unwrap();
            assert_eq!(user.read(&mut [0; 1]).await.unwrap(), 0);
            drop(user);
            answer
        };
        let (spliced, answer) = tokio::join!(splice(&mut near, &mut far, SPLICING), talk);
        assert_eq!(&answer, b"exit code");
        assert_eq!(spliced.unwrap().down, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_far_end_is_told_after_what_came_before() {
        let (mut user, mut near) = duplex(64);
        let mut far = Deaf(b"last words".chain(Reset));
        let hear = async {
            let mut heard = [0; 10];
            user.read_exact(&mut heard).await.unwrap();
            heard
        };
        let (spliced, heard) = tokio::join!(splice(&mut near, &mut far, SPLICING), hear);
        assert_eq!(&heard, b"last words");
        assert_eq!(spliced.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_hangs_up_ends_it_at_once() {
        let (user, mut near) = duplex(64);
        let (mut far, mut cluster) = duplex(64);
        drop(user);
        cluster.write_all(b"nobody listens").await.unwrap();
        assert!(splice(&mut near, &mut far, SPLICING).await.is_err());
    }
}

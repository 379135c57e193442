//! An in-memory link with a rate, a latency, little room, and ways to fail, all on the virtual clock
//! and from a seed: the same seed gives the same short reads and writes again.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A small generator of numbers, good enough to vary a test (splitmix64).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() as usize) % (high - low + 1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// What a link is like, each direction alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) latency: Duration,
    /// Bytes a second; 0 is unlimited.
    pub(super) rate: u64,
    /// Bytes that may be on the way before the writer is held back.
    pub(super) room: usize,
    /// Short and spurious reads and writes.
    pub(super) ragged: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { latency: Duration::ZERO, rate: 0, room: 64 * 1024, ragged: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Bytes vanish; the writer notices only when there is no room left.
    Silent,
    /// The far end takes nothing any more, though it still sends.
    Stuck,
    Reset,
}

struct Way {
    shape: Shape,
    fate: Fate,
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the wire has sent all that it was given.
    free_at: Instant,
    finished: bool,
    /// The reading end is gone.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    carried: u64,
}

type Shared = Arc<Mutex<Way>>;

/// One end of a link.
pub(super) struct End {
    from: Shared,
    to: Shared,
    random: Random,
    timer: Pin<Box<Sleep>>,
}

/// Control over a link that both ends are using.
#[derive(Clone)]
pub(super) struct Scissors {
    ways: [Shared; 2],
}

pub(super) fn link(shape: Shape, seed: u64) -> (End, End, Scissors) {
    let way = || {
        Arc::new(Mutex::new(Way {
            shape,
            fate: Fate::Alive,
            on_the_way: VecDeque::new(),
            bytes: 0,
            free_at: Instant::now(),
            finished: false,
            deaf: false,
            reader: None,
            writer: None,
            carried: 0,
        }))
    };
    let (there, back) = (way(), way());
    let end = |from: &Shared, to: &Shared, salt: u64| End {
        from: Arc::clone(from),
        to: Arc::clone(to),
        random: Random::new(seed ^ salt),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
    };
    let scissors = Scissors { ways: [Arc::clone(&there), Arc::clone(&back)] };
    (end(&back, &there, 1), end(&there, &back, 2), scissors)
}

impl Scissors {
    fn set(&self, ways: &[usize], fate: Fate) {
        for way in ways {
            let mut way = self.ways[*way].lock().unwrap();
            way.fate = fate;
            for waker in [way.reader.take(), way.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// A firewall that drops everything from now on, without a word to anybody.
    pub(super) fn silence(&self) {
        self.set(&[0, 1], Fate::Silent);
    }

    /// The second end stops taking bytes but goes on sending.
    pub(super) fn stick(&self) {
        self.set(&[0], Fate::Stuck);
    }

    pub(super) fn reset(&self) {
        self.set(&[0, 1], Fate::Reset);
    }

    /// Bytes carried from the first end to the second, and back.
    pub(super) fn carried(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.ways[way].lock().unwrap().carried)
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut way = this.from.lock().unwrap();
        if way.fate == Fate::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if way.shape.ragged && this.random.one_in(13) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        way.reader = Some(cx.waker().clone());
        if way.fate == Fate::Silent || way.fate == Fate::Stuck {
            return Poll::Pending;
        }
        let Some((due, chunk)) = way.on_the_way.front_mut() else {
            return if way.finished { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if *due > Instant::now() {
            this.timer.as_mut().reset(*due);
            let due_at_once = this.timer.as_mut().poll(cx).is_ready();
            assert!(!due_at_once, "the timer is in the future");
            return Poll::Pending;
        }
        let mut most = chunk.len().min(buf.remaining());
        if way.shape.ragged && this.random.one_in(3) {
            most = this.random.between(1, most);
        }
        let (_, chunk) = way.on_the_way.front_mut().unwrap();
        buf.put_slice(&chunk[..most]);
        chunk.drain(..most);
        if chunk.is_empty() {
            way.on_the_way.pop_front();
        }
        way.bytes -= most;
        way.carried += most as u64;
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut way = this.to.lock().unwrap();
        if way.deaf && way.fate == Fate::Alive {
            // As TCP does it: bytes for an end that is gone are answered with a reset, and what was on
            // its way from there is lost. The write itself succeeds.
            way.fate = Fate::Reset;
            drop(way);
            reset(&this.from);
            return Poll::Ready(Ok(buf.len()));
        }
        if way.fate == Fate::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if way.shape.ragged && this.random.one_in(13) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = way.shape.room.saturating_sub(way.bytes);
        // As a socket does: a full one takes nothing until a good part of it is free.
        if room == 0 || room < way.shape.room / 4 || way.finished || way.fate == Fate::Stuck {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut most = room.min(buf.len());
        if way.shape.ragged && this.random.one_in(3) {
            most = this.random.between(1, most);
        }
        let now = Instant::now();
        let sending = match way.shape.rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(most as u64 * 1_000_000_000 / rate),
        };
        way.free_at = way.free_at.max(now) + sending;
        let due = way.free_at + way.shape.latency;
        way.on_the_way.push_back((due, buf[..most].to_vec()));
        way.bytes += most;
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(most))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.to.lock().unwrap();
        way.finished = true;
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let unread = {
            let mut from = self.from.lock().unwrap();
            from.deaf = true;
            if let Some(writer) = from.writer.take() {
                writer.wake();
            }
            from.bytes > 0 && from.fate == Fate::Alive
        };
        if unread {
            // As TCP does it: an end that goes without having read all resets the connection.
            reset(&self.to);
            return;
        }
        let mut to = self.to.lock().unwrap();
        to.finished = true;
        if let Some(reader) = to.reader.take() {
            reader.wake();
        }
    }
}

fn reset(way: &Shared) {
    let mut way = way.lock().unwrap();
    way.fate = Fate::Reset;
    way.on_the_way.clear();
    for waker in [way.reader.take(), way.writer.take()].into_iter().flatten() {
        waker.wake();
    }
}

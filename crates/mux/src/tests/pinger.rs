//! A transport that mixes pings of its own into the frames that pass, as a peer would that measures the
//! round trip every few milliseconds, and keeps the answers to itself.
//!
//! The engine's own pings go by the real clock, once in ten seconds, which is of no use to a test on
//! the virtual one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::frame::{ACK, HEADER, Header, Kind};

/// Pings with this in their value are ours; the engine counts from 0.
const MARK: u32 = 0xABCD_0000;

#[derive(Default)]
pub(super) struct Count {
    pub(super) asked: AtomicU64,
    pub(super) answered: AtomicU64,
}

pub(super) struct Pinger<T> {
    io: T,
    every: Duration,
    next: Instant,
    count: Arc<Count>,
    // Outgoing.
    header: Vec<u8>,
    body_out: usize,
    ping: Vec<u8>,
    // Incoming.
    pending: Vec<u8>,
    passed: usize,
    body_in: usize,
}

impl<T> Pinger<T> {
    pub(super) fn new(io: T, every: Duration, count: Arc<Count>) -> Self {
        Self {
            io,
            every,
            next: Instant::now() + every,
            count,
            header: Vec::new(),
            body_out: 0,
            ping: Vec::new(),
            pending: Vec::new(),
            passed: 0,
            body_in: 0,
        }
    }
}

fn decode(bytes: &[u8]) -> Header {
    Header::decode(bytes[..HEADER].try_into().unwrap())
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Pinger<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let on_border = this.body_out == 0 && this.header.is_empty();
        if on_border && this.ping.is_empty() && Instant::now() >= this.next {
            this.next = Instant::now() + this.every;
            let asked = this.count.asked.fetch_add(1, Ordering::Relaxed) as u32;
            this.ping.extend(Header::ping(MARK | (asked & 0xFFFF)).encode());
        }
        while on_border && !this.ping.is_empty() {
            let sent = ready!(Pin::new(&mut this.io).poll_write(cx, &this.ping))?;
            this.ping.drain(..sent);
        }
        let most = if this.body_out > 0 { this.body_out } else { HEADER - this.header.len() };
        let part = &buf[..most.min(buf.len())];
        let sent = ready!(Pin::new(&mut this.io).poll_write(cx, part))?;
        if this.body_out > 0 {
            this.body_out -= sent;
        } else {
            this.header.extend_from_slice(&part[..sent]);
            if this.header.len() == HEADER {
                this.body_out = decode(&this.header).body() as usize;
                this.header.clear();
            }
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Pinger<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed > 0 {
                let some = this.passed.min(buf.remaining());
                buf.put_slice(&this.pending[..some]);
                this.pending.drain(..some);
                this.passed -= some;
                return Poll::Ready(Ok(()));
            }
            if this.body_in > 0 {
                let mut part = buf.take(this.body_in);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
                let read = part.filled().len();
                this.body_in -= read;
                buf.advance(read);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; HEADER];
            let mut into = ReadBuf::new(&mut bytes[this.pending.len()..]);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.pending.extend_from_slice(into.filled());
            if this.pending.len() < HEADER {
                continue;
            }
            let header = decode(&this.pending);
            let ours = header.value & 0xFFFF_0000 == MARK;
            if header.kind == Kind::Ping && header.has(ACK) && ours {
                this.count.answered.fetch_add(1, Ordering::Relaxed);
                this.pending.clear();
                continue;
            }
            this.body_in = header.body() as usize;
            this.passed = HEADER;
        }
    }
}

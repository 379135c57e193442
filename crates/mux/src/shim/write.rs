//! The engine's bytes on their way to the peer: gathered, followed frame by frame, and flushed when the
//! engine rests. Called by the engine and by `shim::read`; touches the transport, the ledger, the gate.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::AsyncWrite as EngineWrite;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shim;
use crate::close::CloseReason;
use crate::frame::{FIN, HEADER, Header, Kind, RST};
use crate::ledger::Farewell;
use crate::session::Wire;

impl<T: AsyncRead + AsyncWrite + Unpin> EngineWrite for Shim<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outgoing.body > 0 {
            // A frame that was begun is taken whole, so that the box always ends on a border between
            // frames when the engine rests, and frames of our own find a place.
            return Poll::Ready(Ok(this.take_body(buf)));
        }
        if this.outgoing.have == 0 && this.outgoing.outbox.len() >= this.outgoing.coalesce {
            this.drain(cx)?;
            if this.outgoing.outbox.len() >= this.outgoing.coalesce {
                this.set_blocked(true);
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(this.take_header(buf)))
    }

    /// Deferred: see `flush`.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends what waits, closes our direction, and waits until the peer has closed its own. Without the
    /// wait the peer could lose our last bytes: a transport that is dropped while bytes for it arrive
    /// is reset. The driver bounds the time.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.outgoing.shut {
            this.flush(cx)?;
            if !this.outgoing.outbox.is_empty() || this.outgoing.dirty {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.outgoing.shut = true;
        }
        let mut waste = [0; 4096];
        while !this.incoming.ended {
            let mut into = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                Ok(()) | Err(_) => this.incoming.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Shim<T> {
    fn take_body(&mut self, buf: &[u8]) -> usize {
        let left = usize::try_from(self.outgoing.body).unwrap_or(usize::MAX);
        let part = buf.get(..left.min(buf.len())).unwrap_or_default();
        self.outgoing.outbox.push(part);
        let taken = u32::try_from(part.len()).unwrap_or(u32::MAX);
        self.outgoing.body = self.outgoing.body.saturating_sub(taken);
        if self.outgoing.body == 0
            && let Some(id) = self.outgoing.reset_after_body.take()
        {
            self.queue_own(Header::reset(id));
        }
        part.len()
    }

    /// Collects a header, which the engine writes in one piece but need not, and books it.
    fn take_header(&mut self, buf: &[u8]) -> usize {
        let have = self.outgoing.have;
        let taken = HEADER.saturating_sub(have).min(buf.len());
        for (to, from) in self.outgoing.header.iter_mut().skip(have).zip(buf) {
            *to = *from;
        }
        self.outgoing.have = have.saturating_add(taken);
        if self.outgoing.have >= HEADER {
            self.outgoing.have = 0;
            let header = Header::decode(self.outgoing.header);
            self.header_leaves(header);
        }
        taken
    }

    fn header_leaves(&mut self, mut header: Header) {
        self.outgoing.body = header.body();
        let mut reset_after = None;
        match header.kind {
            Kind::Data => {
                if header.value > 0 {
                    let body = usize::try_from(header.value).unwrap_or(usize::MAX);
                    self.session.gate.left(body);
                }
                if header.has(FIN) || header.has(RST) {
                    match self.session.ledger.end_leaves(header.stream) {
                        Some(Farewell::ResetInsteadOfFin) => header.flags = RST,
                        Some(Farewell::ResetAfterFin) => reset_after = Some(header.stream),
                        None => {}
                    }
                }
            }
            // The engine sends code 0 as its farewell, and others when the peer broke the protocol;
            // then it would go on as if nothing had happened.
            Kind::GoAway if header.value != 0 => {
                let what = "the peer sent a frame that its state does not allow";
                self.session.condemn(CloseReason::Protocol(what.to_owned()));
            }
            Kind::WindowUpdate | Kind::Ping | Kind::GoAway | Kind::Unknown(_) => {}
        }
        self.outgoing.outbox.push(&header.encode());
        match reset_after {
            Some(id) if self.outgoing.body == 0 => self.queue_own(Header::reset(id)),
            later => self.outgoing.reset_after_body = later,
        }
    }

    /// Puts a frame that the engine knows nothing of between two of its frames.
    pub(super) fn queue_own(&mut self, frame: Header) {
        debug_assert_eq!((self.outgoing.body, self.outgoing.have), (0, 0), "on a border");
        self.outgoing.outbox.push(&frame.encode());
    }

    /// Hands the transport all that waits, as far as it takes it now.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.outgoing.body == 0 && self.outgoing.have == 0 {
            for id in self.session.ledger.take_resets() {
                self.queue_own(Header::reset(id));
            }
            for value in self.session.pings.take_unsent() {
                self.queue_own(Header::ping(value));
            }
        }
        self.drain(cx)?;
        if self.outgoing.outbox.is_empty() {
            if self.outgoing.dirty && Pin::new(&mut self.io).poll_flush(cx)?.is_ready() {
                self.outgoing.dirty = false;
            }
            self.outgoing.outbox.rest();
        }
        self.set_blocked(self.outgoing.dirty || !self.outgoing.outbox.is_empty());
        Ok(())
    }

    /// Writes without flushing the transport.
    fn drain(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.outbox.is_empty() {
            let waiting = self.outgoing.outbox.unsent();
            match Pin::new(&mut self.io).poll_write(cx, waiting)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(taken) => {
                    self.outgoing.outbox.advance(taken);
                    self.outgoing.dirty = true;
                    Wire::add(&self.session.wire.bytes_written, taken);
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

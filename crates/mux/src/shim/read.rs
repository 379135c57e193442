//! The peer's bytes on their way to the engine: headers are judged, bodies pass through. Called by the
//! engine; touches the transport and the ledger.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::io::AsyncRead as EngineRead;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shim;
use crate::cell::{Cell, Direction};
use crate::close::CloseReason;
use crate::frame::{ACK, FIN, HEADER, Header, Kind, RST, SYN};
use crate::session::Wire;

/// While the peer keeps the session busy with reading, the outbox is flushed after so many bytes.
const FLUSH_EVERY: usize = 64 * 1024;

/// How far answers (pongs and resets of refused streams) may fill the outbox beyond its usual limit
/// while the transport takes nothing: 256 KiB are 21,000 frames. A peer that causes more and reads none
/// is not a peer to talk to.
const ANSWERS: usize = 256 * 1024;

/// The most that a peer may send on a new stream, in bytes (protocol constant).
const FIRST_BODY: u32 = 256 * 1024;

/// Larger data frames are refused by the engine, in bytes.
const LARGEST_BODY: u32 = 1 << 20;

/// What becomes of a frame.
enum Judgement {
    Pass,
    Swallow,
}

impl<T: AsyncRead + AsyncWrite + Unpin> EngineRead for Shim<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.incoming.passing {
                return Poll::Ready(Ok(this.give_header(buf)));
            }
            if this.incoming.body > 0 {
                if this.incoming.discard {
                    ready!(this.poll_discard(cx))?;
                    continue;
                }
                return this.poll_body(cx, buf);
            }
            match ready!(this.poll_header(cx))? {
                None => return Poll::Ready(Ok(0)),
                Some(header) => match this.judge(header)? {
                    Judgement::Pass => this.incoming.passing = true,
                    Judgement::Swallow => {}
                },
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Shim<T> {
    /// Passes the judged header on. The engine asks for exactly what is missing.
    fn give_header(&mut self, buf: &mut [u8]) -> usize {
        let incoming = &mut self.incoming;
        let rest = incoming.header.get(incoming.given..).unwrap_or_default();
        let given = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        incoming.given = incoming.given.saturating_add(given);
        if incoming.given >= HEADER {
            incoming.given = 0;
            incoming.passing = false;
        }
        given
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let left = usize::try_from(self.incoming.body).unwrap_or(usize::MAX);
        let most = left.min(buf.len());
        let read = ready!(self.poll_transport(cx, buf.get_mut(..most).unwrap_or_default()))?;
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.body_arrived(read);
        Poll::Ready(Ok(read))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waste = [0; 4096];
        let left = usize::try_from(self.incoming.body).unwrap_or(usize::MAX);
        let most = left.min(waste.len());
        let read = ready!(self.poll_transport(cx, waste.get_mut(..most).unwrap_or_default()))?;
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.body_arrived(read);
        Poll::Ready(Ok(()))
    }

    fn body_arrived(&mut self, read: usize) {
        let read = u32::try_from(read).unwrap_or(u32::MAX);
        self.incoming.body = self.incoming.body.saturating_sub(read);
        if self.incoming.body == 0
            && let Some(id) = self.incoming.fin_after_body.take()
        {
            self.session.ledger.fin_arrived(id);
        }
    }

    /// Reads a whole header; `None` at the end of the transport.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Header>>> {
        loop {
            let have = self.incoming.have;
            if have >= HEADER {
                self.incoming.have = 0;
                return Poll::Ready(Ok(Some(Header::decode(self.incoming.header))));
            }
            let mut bytes = [0; HEADER];
            let room = bytes.get_mut(have..).unwrap_or_default();
            let read = ready!(self.poll_transport(cx, room))?;
            if read == 0 && have == 0 {
                return Poll::Ready(Ok(None));
            }
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let end = have.saturating_add(read);
            for (to, from) in self.incoming.header.iter_mut().zip(bytes).take(end).skip(have) {
                *to = from;
            }
            self.incoming.have = end;
        }
    }

    /// Reads from the transport. When there is nothing, the engine is about to rest: everything that
    /// it wrote goes out now.
    fn poll_transport(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.incoming.ended {
            return Poll::Ready(Ok(0));
        }
        if self.incoming.since_flush >= FLUSH_EVERY {
            self.incoming.since_flush = 0;
            self.flush(cx)?;
        }
        let mut into = ReadBuf::new(buf);
        match Pin::new(&mut self.io).poll_read(cx, &mut into)? {
            Poll::Ready(()) => {
                let read = into.filled().len();
                if read == 0 {
                    self.incoming.ended = true;
                }
                self.incoming.since_flush = self.incoming.since_flush.saturating_add(read);
                Wire::add(&self.session.wire.bytes_read, read);
                Poll::Ready(Ok(read))
            }
            Poll::Pending => {
                self.incoming.since_flush = 0;
                self.flush(cx)?;
                Poll::Pending
            }
        }
    }

    /// Looks at a complete header and does what is ours to do.
    fn judge(&mut self, header: Header) -> io::Result<Judgement> {
        self.incoming.body = header.body();
        self.incoming.discard = false;
        if header.version != 0 {
            // The engine refuses it in its own words.
            return Ok(Judgement::Pass);
        }
        match header.kind {
            Kind::Data | Kind::WindowUpdate => self.judge_stream(header),
            Kind::Ping if header.has(SYN) && !self.engine_answers_pings => {
                self.answer(Header::pong(header.value))?;
                Ok(Judgement::Swallow)
            }
            Kind::Ping if header.has(ACK) && self.session.pings.answered(header.value) => Ok(Judgement::Swallow),
            Kind::GoAway => {
                let reason = CloseReason::PeerGoAway(header.value);
                if header.value == 0 {
                    self.session.drain(reason);
                    Ok(Judgement::Swallow)
                } else {
                    self.session.condemn(reason);
                    Err(io::ErrorKind::ConnectionAborted.into())
                }
            }
            Kind::Ping | Kind::Unknown(_) => Ok(Judgement::Pass),
        }
    }

    fn judge_stream(&mut self, header: Header) -> io::Result<Judgement> {
        let id = header.stream;
        let session = &self.session;
        if header.body() > LARGEST_BODY {
            // No such bytes will ever be read: the engine ends the session over this header.
            return Ok(Judgement::Pass);
        }
        if header.has(RST) {
            session.ledger.reset_arrived(id);
            return Ok(Judgement::Pass);
        }
        if header.has(SYN) {
            // A first frame over the window is for the engine to condemn, not for us to sit through.
            let fits = header.body() <= FIRST_BODY;
            if fits && session.inbound.is_full() {
                session.count_refused();
                self.incoming.discard = true;
                self.answer(Header::reset(id))?;
                return Ok(Judgement::Swallow);
            }
            let now = session.ledger.now_ms();
            if !session.ledger.enter(Arc::new(Cell::new(id, Direction::Inbound, now))) {
                // The engine says the same, but only if it has not forgotten the stream by the time that
                // the body is complete.
                session.condemn(CloseReason::Protocol("a stream was opened twice".to_owned()));
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        let body = usize::try_from(header.body()).unwrap_or(usize::MAX);
        if body > 0 {
            session.ledger.arrive(id, body);
            if session.ledger.is_hopeless() {
                session.condemn(CloseReason::MemoryExceeded);
            }
        }
        if header.has(FIN) {
            if body > 0 {
                self.incoming.fin_after_body = Some(id);
            } else {
                session.ledger.fin_arrived(id);
            }
        }
        Ok(Judgement::Pass)
    }

    /// Queues a frame that the peer has caused.
    fn answer(&mut self, frame: Header) -> io::Result<()> {
        let most = self.outgoing.coalesce.saturating_add(ANSWERS);
        if self.outgoing.outbox.len() > most {
            let what = "frames that need an answer arrive faster than answers can leave";
            self.session.condemn(CloseReason::Protocol(what.to_owned()));
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.queue_own(frame);
        Ok(())
    }
}

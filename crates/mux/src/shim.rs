//! The layer between the protocol engine and the transport. Owned by the engine, which calls it as its
//! byte stream; touches the transport and the session's accounts.
//!
//! It follows the frames in both directions and does what the engine cannot:
//!
//! - it gathers frames and hands them to the transport in large pieces, but never lets them wait: the
//!   engine reads last in each of its turns, so a read that finds nothing is the moment to flush
//!   ([`read`], [`write`], [`outbox`]);
//! - it answers pings itself. The engine stops reading while a pong of its own cannot be written; two
//!   ends whose pings cross while both directions are full then wait for each other for ever. With no
//!   ping ever reaching it, the engine always reads, and no read-ahead has to be kept in memory;
//! - it keeps go-away frames back. The engine would cut all streams at once, while the protocol lets
//!   them finish;
//! - it refuses streams over the limit before the engine makes anything of them;
//! - it books arriving bytes and ends of streams in the ledger, and turns the engine's FIN for a
//!   dropped stream into the reset that it must be.

mod outbox;
mod read;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Config;
use crate::frame::HEADER;
use crate::session::Session;

use outbox::Outbox;

pub(crate) struct Shim<T> {
    io: T,
    session: Arc<Session>,
    engine_answers_pings: bool,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Where in the peer's frames the reading stands.
struct Incoming {
    header: [u8; HEADER],
    /// Header bytes read from the transport.
    have: usize,
    /// Header bytes passed on to the engine. Nothing is passed on before the header is complete.
    given: usize,
    passing: bool,
    /// Body bytes still to come.
    body: u32,
    /// The body belongs to a stream that was refused.
    discard: bool,
    /// This stream's FIN counts once the body is complete.
    fin_after_body: Option<u32>,
    /// Bytes read since the outbox was last flushed.
    since_flush: usize,
    ended: bool,
}

/// Where in the engine's frames the writing stands, and what waits for the transport.
struct Outgoing {
    header: [u8; HEADER],
    have: usize,
    body: u32,
    reset_after_body: Option<u32>,
    outbox: Outbox,
    /// Frames are gathered up to this size.
    coalesce: usize,
    /// The transport has bytes that it was not asked to flush yet.
    dirty: bool,
    shut: bool,
}

impl<T> Shim<T> {
    pub(crate) fn new(io: T, config: &Config, session: Arc<Session>) -> Self {
        Self {
            io,
            session,
            engine_answers_pings: config.engine_answers_pings,
            incoming: Incoming {
                header: [0; HEADER],
                have: 0,
                given: 0,
                passing: false,
                body: 0,
                discard: false,
                fin_after_body: None,
                since_flush: 0,
                ended: false,
            },
            outgoing: Outgoing {
                header: [0; HEADER],
                have: 0,
                body: 0,
                reset_after_body: None,
                outbox: Outbox::default(),
                coalesce: config.coalesce,
                dirty: false,
                shut: false,
            },
        }
    }

    fn set_blocked(&self, blocked: bool) {
        self.session.wire.blocked.store(blocked, Ordering::Relaxed);
    }
}

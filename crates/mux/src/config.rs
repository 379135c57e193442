//! What a session may use. Made by the callers of [`crate::session`]; touches nothing.
//!
//! Setters never fail and never panic; [`Config::build`] checks all values together. A configuration
//! that skipped `build` still works: [`crate::session`] moves each value to the nearest legal one.

use std::time::Duration;

use crate::budget::MemoryBudget;
use crate::stream::FRAME_BODY;

/// Which end of the session this is. It decides the parity of stream ids and nothing else: both ends
/// open and accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that dialled (the agent): odd stream ids.
    Client,
    /// The end that was dialled (the server): even stream ids.
    Server,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What yamux gives every stream before any window update, in bytes (protocol constant).
pub(crate) const INITIAL_WINDOW: usize = 256 * KIB;

/// The largest number of streams in one direction. Far below what the engine is configured for
/// ([`ENGINE_STREAMS`]), because the engine kills the session when its own limit is met.
pub(crate) const MAX_STREAMS: usize = ENGINE_STREAMS / 8;

/// The engine's own stream limit, which must never be met. It is a number only: nothing is allocated.
pub(crate) const ENGINE_STREAMS: usize = if usize::BITS >= 64 { 1 << 20 } else { 1 << 12 };

/// A raw Go writer puts as much into one frame as its window allows, and frames over 1 MiB are refused
/// by the engine; with this much growth no window passes 1 MiB.
const RAW_GO_GROWTH: usize = 768 * KIB;

/// Limits and timeouts of one session.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) role: Role,
    pub(crate) max_outbound_streams: usize,
    pub(crate) max_inbound_streams: usize,
    pub(crate) accept_backlog: usize,
    pub(crate) read_silence: Option<Duration>,
    pub(crate) write_stall: Duration,
    pub(crate) receive_window_budget: usize,
    pub(crate) session_memory: usize,
    pub(crate) send_queue: usize,
    pub(crate) coalesce: usize,
    pub(crate) max_stream_ids: u32,
    pub(crate) raw_go_peer: bool,
    pub(crate) memory: MemoryBudget,
    /// Tests only: hand pings to the engine instead of answering them in the IO layer, which brings
    /// the engine's two-ended deadlock back.
    pub(crate) engine_answers_pings: bool,
}

/// One value that [`Config::build`] does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// Every problem found, each with field, value and remedy.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl Config {
    /// The defaults: 1,024 streams in each direction, 32 MiB of window growth, 64 MiB of unread bytes
    /// a session, a memory budget of its own of 256 MiB, no limit on silence, 20 s on a stalled write.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            max_outbound_streams: 1024,
            max_inbound_streams: 1024,
            accept_backlog: 1024,
            read_silence: None,
            write_stall: Duration::from_secs(20),
            receive_window_budget: 32 * MIB,
            session_memory: 64 * MIB,
            send_queue: 8 * MIB,
            coalesce: 64 * KIB,
            max_stream_ids: 1 << 30,
            raw_go_peer: false,
            memory: MemoryBudget::new(256 * MIB),
            engine_answers_pings: false,
        }
    }

    /// How many streams this side may have open at once; [`crate::OpenError::Limit`] beyond.
    #[must_use]
    pub fn with_max_outbound_streams(mut self, streams: usize) -> Self {
        self.max_outbound_streams = streams;
        self
    }

    /// How many streams the peer may have open at once. One more is reset and counted; the session
    /// goes on.
    #[must_use]
    pub fn with_max_inbound_streams(mut self, streams: usize) -> Self {
        self.max_inbound_streams = streams;
        self
    }

    /// How many streams of the peer may wait for [`crate::Incoming::accept`]. One more is reset and
    /// counted.
    #[must_use]
    pub fn with_accept_backlog(mut self, streams: usize) -> Self {
        self.accept_backlog = streams;
        self
    }

    /// The session ends with [`crate::CloseReason::Silent`] when no byte arrives for this long.
    ///
    /// The session itself sends nothing when idle, so set this only where the peer is known to send
    /// heartbeats or pings, and to three of their intervals. `None`, the default, waits for ever.
    #[must_use]
    pub fn with_read_silence(mut self, silence: Option<Duration>) -> Self {
        self.read_silence = silence;
        self
    }

    /// The session ends with [`crate::CloseReason::WriteStalled`] when bytes wait and the transport
    /// accepts none for this long. Also bounds the farewell after a drain.
    ///
    /// A TLS transport takes up to 64 KiB at once and shows no progress until they are sent, so a link
    /// slower than 64 KiB in this time is taken for dead.
    #[must_use]
    pub fn with_write_stall(mut self, stall: Duration) -> Self {
        self.write_stall = stall;
        self
    }

    /// By how many bytes, over all streams, receive windows may grow beyond the 256 KiB that each
    /// stream starts with. One stream over a link with round trip time `t` reaches about half of this
    /// number divided by `t`. 0 turns growth off.
    #[must_use]
    pub fn with_receive_window_budget(mut self, bytes: usize) -> Self {
        self.receive_window_budget = bytes;
        self
    }

    /// How many unread bytes the streams of this session may hold before the worst one is reset.
    #[must_use]
    pub fn with_session_memory(mut self, bytes: usize) -> Self {
        self.session_memory = bytes;
        self
    }

    /// How many bytes written to streams may wait for the transport before writers are held back.
    #[must_use]
    pub fn with_send_queue(mut self, bytes: usize) -> Self {
        self.send_queue = bytes;
        self
    }

    /// How many bytes of frames are gathered before they are handed to the transport in one piece.
    /// They never wait for more to come: what is there when the session has nothing else to do goes out.
    #[must_use]
    pub fn with_coalesce(mut self, bytes: usize) -> Self {
        self.coalesce = bytes;
        self
    }

    /// How many streams this side opens in the session's life. Ids are never used twice and the
    /// protocol has 2^31 for each side; at this number the session drains and then ends with
    /// [`crate::CloseReason::StreamIdsExhausted`].
    #[must_use]
    pub fn with_max_stream_ids(mut self, streams: u32) -> Self {
        self.max_stream_ids = streams;
        self
    }

    /// Says that the peer is hashicorp/yamux in Go and that its programs write to streams without TLS
    /// inside. Such a writer sends frames as large as its window, and frames over 1 MiB end the session,
    /// so the growth of windows is held at 768 KiB. Costs throughput on long links.
    #[must_use]
    pub fn with_raw_go_peer(mut self) -> Self {
        self.raw_go_peer = true;
        self
    }

    /// The process-wide budget that this session shares. Without it the session has one of its own.
    #[must_use]
    pub fn with_memory(mut self, memory: MemoryBudget) -> Self {
        self.memory = memory;
        self
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Checks all values together.
    ///
    /// # Errors
    /// All problems at once, each naming the field, its value and what is allowed.
    pub fn build(self) -> Result<Self, ConfigError> {
        let legal = self.clone().legal();
        let mut problems = Vec::new();
        let mut check = |field: &str, given: usize, nearest: usize| {
            if given != nearest {
                problems.push(format!("{field} is {given}; the nearest allowed value is {nearest}"));
            }
        };
        check("max_outbound_streams", self.max_outbound_streams, legal.max_outbound_streams);
        check("max_inbound_streams", self.max_inbound_streams, legal.max_inbound_streams);
        check("accept_backlog", self.accept_backlog, legal.accept_backlog);
        check("session_memory", self.session_memory, legal.session_memory);
        check("send_queue", self.send_queue, legal.send_queue);
        check("coalesce", self.coalesce, legal.coalesce);
        check("receive_window_budget", self.receive_window_budget, legal.receive_window_budget);
        if self.max_stream_ids != legal.max_stream_ids {
            problems.push(format!(
                "max_stream_ids is {}; the nearest allowed value is {}",
                self.max_stream_ids, legal.max_stream_ids
            ));
        }
        if self.write_stall != legal.write_stall {
            problems.push("write_stall is 0; give it at least 1 ms".to_owned());
        }
        if self.read_silence != legal.read_silence {
            problems.push("read_silence is 0; give it at least 1 ms, or none".to_owned());
        }
        if problems.is_empty() { Ok(self) } else { Err(ConfigError { problems }) }
    }

    /// The nearest configuration that can work.
    pub(crate) fn legal(mut self) -> Self {
        let shortest = Duration::from_millis(1);
        self.max_outbound_streams = self.max_outbound_streams.min(MAX_STREAMS);
        self.max_inbound_streams = self.max_inbound_streams.min(MAX_STREAMS);
        self.accept_backlog = self.accept_backlog.clamp(1, MAX_STREAMS);
        self.session_memory = self.session_memory.max(INITIAL_WINDOW);
        self.send_queue = self.send_queue.max(64 * KIB);
        self.coalesce = self.coalesce.clamp(KIB, 4 * MIB);
        // Windows are 32-bit numbers in the protocol.
        self.receive_window_budget = self.receive_window_budget.min(1 << 30);
        self.max_stream_ids = self.max_stream_ids.clamp(1, (1 << 31) - 2);
        self.write_stall = self.write_stall.max(shortest);
        self.read_silence = self.read_silence.map(|silence| silence.max(shortest));
        self
    }

    /// The engine's configuration. The stream limit is set out of reach, and the window limit is what
    /// that many streams start with plus the allowed growth, which is how the engine wants it said.
    pub(crate) fn engine(&self) -> yamux::Config {
        let growth =
            if self.raw_go_peer { self.receive_window_budget.min(RAW_GO_GROWTH) } else { self.receive_window_budget };
        let windows = ENGINE_STREAMS.saturating_mul(INITIAL_WINDOW).saturating_add(growth);
        let mut engine = yamux::Config::default();
        // In this order: each setter asserts against the other's value.
        engine.set_max_connection_receive_window(Some(windows));
        engine.set_max_num_streams(ENGINE_STREAMS);
        engine.set_read_after_close(true);
        engine.set_split_send_size(FRAME_BODY);
        engine
    }
}

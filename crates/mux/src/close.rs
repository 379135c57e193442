//! Why a session ended. Made by the driver and by callers of `Handle::close`; touches nothing.

use std::io;

/// Why a session ended. The first reason wins and is what [`crate::Driver`] returns, what
/// [`crate::Handle::closed`] reports, and what later calls to [`crate::Handle::open`] fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side cut the session; the text says why and comes from the caller.
    #[error("closed here: {0}")]
    Local(&'static str),
    /// This side was told to drain and the last stream has ended.
    #[error("drained")]
    Drained,
    /// This side ran out of stream ids, stopped opening, and the last stream has ended.
    #[error("stream ids used up")]
    StreamIdsExhausted,
    /// The peer closed the transport.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The peer announced that it goes away. Code 0 is a friendly one: the streams that were open have
    /// been allowed to finish. 1 is a protocol error, 2 an internal error, both as the peer sees it.
    #[error("the peer went away with code {0}")]
    PeerGoAway(u32),
    /// No byte arrived from the peer for longer than [`crate::Config::with_read_silence`] allows.
    #[error("no byte from the peer within the allowed silence")]
    Silent,
    /// Bytes were waiting and the transport took none for [`crate::Config::with_write_stall`].
    #[error("the transport accepted no byte for too long")]
    WriteStalled,
    /// The peer broke the protocol, or flooded this side with frames that need an answer.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The transport failed.
    #[error("transport failed: {1}")]
    Io(io::ErrorKind, String),
    /// The memory budget is exceeded by far and resetting streams did not help.
    #[error("memory budget exceeded")]
    MemoryExceeded,
    /// The [`crate::Driver`] was dropped before it had finished.
    #[error("the session's driver was dropped")]
    DriverDropped,
}

impl CloseReason {
    /// A short, constant name for metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Drained => "drained",
            Self::StreamIdsExhausted => "stream_ids_exhausted",
            Self::PeerClosed => "peer_closed",
            Self::PeerGoAway(_) => "peer_go_away",
            Self::Silent => "silent",
            Self::WriteStalled => "write_stalled",
            Self::Protocol(_) => "protocol",
            Self::Io(..) => "io",
            Self::MemoryExceeded => "memory_exceeded",
            Self::DriverDropped => "driver_dropped",
        }
    }

    /// Whether the session ended in good order: nothing that ran was cut.
    #[must_use]
    pub fn is_graceful(&self) -> bool {
        matches!(self, Self::Drained | Self::StreamIdsExhausted | Self::PeerGoAway(0))
    }

    /// The reason behind a failure of the transport. An end in the middle of a frame, or of a TLS
    /// session without its closing alert, is a peer that closed, not a fault of ours.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::PeerClosed
        } else {
            Self::Io(error.kind(), error.to_string())
        }
    }

    /// The reason behind an error of the protocol engine. `Closed` is the end of the transport: go-away
    /// frames never reach the engine (see `shim`).
    pub(crate) fn from_engine(error: &yamux::ConnectionError) -> Self {
        use yamux::{ConnectionError as E, FrameDecodeError as D};
        match error {
            E::Io(cause) | E::Decode(D::Io(cause)) => Self::from_io(cause),
            E::Closed => Self::PeerClosed,
            E::NoMoreStreamIds => Self::StreamIdsExhausted,
            E::Decode(_) | E::TooManyStreams | E::InvalidWindowUpdate | _ => Self::Protocol(error.to_string()),
        }
    }
}

//! What a session has done so far. Read by callers through `Handle::stats`; written by nobody else.

/// A snapshot of a session. The numbers are read one after another while the session goes on, so sums
/// across fields may be off by what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams opened by this side that still exist.
    pub streams_open_outbound: usize,
    /// Streams opened by the peer that still exist, accepted or waiting to be.
    pub streams_open_inbound: usize,
    /// Streams that this side has opened since the session began.
    pub opened_total: u64,
    /// Streams of the peer that were queued for [`crate::Incoming`] since the session began.
    pub accepted_total: u64,
    /// Streams refused for want of room, in either direction: [`crate::OpenError::Limit`] here, or a
    /// reset of the peer's stream.
    pub refused_total: u64,
    /// Streams reset because this session's or the process's memory budget was exceeded.
    pub shed_total: u64,
    /// Bytes read from the transport, frame headers included.
    pub bytes_read: u64,
    /// Bytes that the transport accepted, frame headers included.
    pub bytes_written: u64,
    /// Bytes that arrived on streams and were not read yet.
    pub buffered: usize,
    /// Bytes written to streams that the transport has not accepted yet.
    pub unsent: usize,
}

//! Passes bytes between a caller and the tunnel until both directions have ended, or one has broken.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use moorline_mux::{Splicing, Watch};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{caller::Caller, connect::Connected};

/// The buffer of each direction. What a caller does not read waits in the stream's window, within the budget of all of
/// them; so a caller who is slow holds no more than this and the window, and delays nobody.
const SPLICING: Splicing = Splicing { buffer: 32 * 1024, linger: Duration::ZERO };

/// How long a caller may read nothing of what had arrived before the stream was lost.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides had said all.
    Whole,
    /// One of the two broke off.
    Broken,
    /// The stream was lost while the caller read nothing.
    Stuck,
}

/// Bytes so far, however it ends.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// From the caller to the service.
    pub(super) up: AtomicU64,
    /// From the service to the caller.
    pub(super) down: AtomicU64,
}

/// Carries both directions. An abrupt end of one side is passed on as abrupt.
pub(super) async fn carry(mut caller: Caller, connected: Connected) -> (Ended, Bytes) {
    let Connected { mut io, lost, counted: _counted } = connected;
    let bytes = Bytes::default();
    let spliced = {
        let read = InspectReader::new(caller.stream(), |read: &[u8]| add(&bytes.up, read));
        let mut near = InspectWriter::new(read, |written: &[u8]| add(&bytes.down, written));
        tokio::select! {
            spliced = moorline_mux::splice(&mut near, &mut io, SPLICING) => Some(spliced),
            () = stuck(lost, &bytes.down) => None,
        }
    };
    // Before the caller gets time to hang up: nobody waits for that at the other end.
    drop(io);
    let ended = match spliced {
        Some(Ok(_both)) => {
            caller.hang_up().await;
            Ended::Whole
        }
        Some(Err(error)) => {
            tracing::debug!(%error, "a connection to a service broke");
            Ended::Broken
        }
        None => Ended::Stuck,
    };
    (ended, bytes)
}

/// Waits until the stream is lost and the caller does not read what had arrived before.
async fn stuck(lost: Watch, down: &AtomicU64) {
    lost.await;
    let mut before = None;
    while before != Some(down.load(Ordering::Relaxed)) {
        before = Some(down.load(Ordering::Relaxed));
        tokio::time::sleep(AFTERMATH).await;
    }
}

fn add(counter: &AtomicU64, bytes: &[u8]) {
    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

impl Ended {
    /// As a label of metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Whole => "ok",
            Self::Broken => "broken",
            Self::Stuck => "stuck",
        }
    }
}

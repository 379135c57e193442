//! A connection that was switched to SPDY or WebSocket: bytes both ways until both sides have finished.
//!
//! Made by `forward`, spawned by `serve`. The bytes are passed as they are. The end of one direction is passed on as
//! such while the other goes on; anything worse than an end drops both sides, which resets the stream on the one and
//! cuts the connection on the other.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use moorline_mux::Splicing;
use moorline_process::Phases;
use tokio_util::io::{InspectReader, InspectWriter};

use super::{
    account::{Account, End},
    line::Lease,
    vigil::Vigil,
};

/// Bytes copied at once, in each direction; and how long a user who still sends is read from after the cluster has
/// ended, so that its last bytes, an exit status among them, are not destroyed by a reset.
const SPLICING: Splicing = Splicing { buffer: 64 * 1024, linger: Duration::from_secs(2) };

/// Both sides of a connection that is being switched.
pub(super) struct Switch {
    user: OnUpgrade,
    agent: OnUpgrade,
    held: Option<(Lease, Account)>,
    vigil: Option<Vigil>,
}

impl Switch {
    pub(super) fn new(user: OnUpgrade, agent: OnUpgrade) -> Self {
        Self { user, agent, held: None, vigil: None }
    }

    /// Keeps what must last as long as the connection, and what ends it when its user may not go on.
    pub(super) fn keep(&mut self, lease: Lease, account: Account, vigil: Option<Vigil>) {
        self.held = Some((lease, account));
        self.vigil = vigil;
    }

    /// Passes bytes until the end, or until the process ends.
    pub(super) async fn run(self, phases: Phases) {
        let Self { user, agent, held, vigil } = self;
        let forbidden = async {
            match vigil {
                Some(vigil) => vigil.await,
                None => std::future::pending().await,
            }
        };
        let carried = Carried::default();
        let ended = tokio::select! {
            ended = splice(user, agent, &carried) => Ended::Itself(ended),
            _cause = forbidden => Ended::Forbidden,
            () = phases.cancelled() => Ended::Process,
        };
        let Some((_lease, mut account)) = held else { return };
        account.sent(usize::try_from(carried.down.load(Ordering::Relaxed)).unwrap_or(usize::MAX));
        account.received(carried.up.load(Ordering::Relaxed));
        match ended {
            Ended::Itself(Ok(())) => account.ends(End::Complete),
            Ended::Itself(Err(error)) => {
                tracing::debug!(%error, "an upgraded connection was cut");
                account.ends(End::Lost);
            }
            Ended::Forbidden => account.ends(End::Forbidden),
            Ended::Process => account.ends(End::Lost),
        }
    }
}

/// What ended an upgraded connection.
enum Ended {
    Itself(Result<(), SpliceError>),
    Forbidden,
    Process,
}

/// Bytes so far, however it ends.
#[derive(Default)]
struct Carried {
    up: AtomicU64,
    down: AtomicU64,
}

async fn splice(user: OnUpgrade, agent: OnUpgrade, carried: &Carried) -> Result<(), SpliceError> {
    let (user, agent) = tokio::try_join!(user, agent).map_err(SpliceError::Switch)?;
    let count = |of: &AtomicU64, bytes: &[u8]| {
        of.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    };
    let read = InspectReader::new(TokioIo::new(user), |bytes: &[u8]| count(&carried.up, bytes));
    let mut user = InspectWriter::new(read, |bytes: &[u8]| count(&carried.down, bytes));
    let mut agent = TokioIo::new(agent);
    moorline_mux::splice(&mut user, &mut agent, SPLICING).await.map_err(SpliceError::Io).map(drop)
}

#[derive(Debug, thiserror::Error)]
enum SpliceError {
    #[error("the connection was not switched: {0}")]
    Switch(hyper::Error),
    #[error("{0}")]
    Io(std::io::Error),
}

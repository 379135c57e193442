//! After `101 Switching Protocols`: bytes both ways between the tunnel's stream and the kube-apiserver's connection.
//!
//! Left by a request, run by its stream's task. Nothing is parsed. An end of one direction is passed on as such while the
//! other goes on; anything abrupt is passed on as abrupt, so that nobody takes half a file for a whole one.

use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use moorline_mux::{Paced, Spliced, Splicing};

use super::{Running, upstream::Io};
use crate::socket;

/// The buffer of each direction. On the tunnel's stream data and reset stay in order, so there is nothing to wait for.
const SPLICING: Splicing = Splicing { buffer: 64 * 1024, linger: Duration::ZERO };

/// How long our `101` may take to reach the stream; it waits for the window of a stream that is otherwise empty.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The two ends of a switched connection.
pub(super) struct Splice {
    ours: OnUpgrade,
    theirs: Upgraded,
    running: Running,
}

impl Splice {
    pub(super) fn new(ours: OnUpgrade, theirs: Upgraded, running: Running) -> Self {
        Self { ours, theirs, running }
    }

    /// Carries bytes until both directions have ended, or one has broken.
    pub(super) async fn run(self) {
        let Self { ours, theirs, running } = self;
        let _running = running;
        let Ok(Ok(ours)) = tokio::time::timeout(SWITCH_TIMEOUT, ours).await else {
            return abort(theirs);
        };
        let mut ours = TokioIo::new(ours);
        let mut theirs = TokioIo::new(theirs);
        match moorline_mux::splice(&mut ours, &mut theirs, SPLICING).await {
            Ok(Spliced { up, down }) => tracing::debug!(up, down, "a switched connection has ended"),
            Err(error) => {
                tracing::debug!(%error, "a switched connection broke");
                // Our side needs no such care: a stream that is dropped before its end is reset.
                abort(theirs.into_inner());
            }
        }
    }
}

/// Ends a connection so that the other side sees a failure, not an end of input.
fn abort(upgraded: Upgraded) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Paced<Io>>>() else { return };
    let tcp = match parts.io.inner().inner() {
        Io::Left(tcp) => tcp,
        Io::Right(tls) => tls.io(),
    };
    socket::reset_on_close(tcp);
}

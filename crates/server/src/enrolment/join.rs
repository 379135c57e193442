//! The door of those who join: agents that have a join token, or what their Kubernetes attests, and no certificate yet.
//!
//! Called by the tunnel's listener, in the task of the connection, once a peer's first message says that it wants to
//! join. From there on it has places and rates of its own, so that no number of wrong tries takes the place of an agent
//! that has a certificate. Within TLS there is one request: HTTP/1.1 `POST /v1/join`, bounded in size and time.
//!
//! | file | what |
//! | --- | --- |
//! | `pace` | how many at once and how often |
//! | `request` | one request, its answer, and the event that it leaves in the audit trail |
//! | `attested` | who gets one because their Kubernetes says who they are |
//! | `decide` | who gets a certificate, and the one change that this takes |

pub(crate) mod attested;
mod decide;
mod pace;
mod request;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_mtls::{Arrived, Arriving};
use tokio::net::TcpStream;

use crate::state::State;

pub(crate) use pace::Pace;

/// Bytes of a request's head. Ours have about 150.
const MAX_HEAD: usize = 8 * 1024;

/// From the end of the handshake to the last byte of the answer: the store writes to a disk, or asks Kubernetes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lets somebody ask for a certificate, once.
pub(crate) async fn serve(state: &Arc<State>, pace: &Pace, arriving: Arriving<TcpStream>, remote: SocketAddr) {
    let place = match pace.enter(remote.ip()) {
        Ok(place) => place,
        Err(why) => {
            state.metrics.join(why.as_str());
            tracing::debug!(%remote, reason = why.as_str(), "somebody who wants to join was hung up on");
            return;
        }
    };
    tokio::select! {
        () = exchange(state, pace, arriving, remote) => {}
        () = place.must_leave() => {
            state.metrics.join("crowded-out");
            tracing::debug!(%remote, reason = "crowded-out", "somebody who wants to join took long, and others wait");
        }
    }
}

/// The handshake, one request and its answer.
async fn exchange(state: &Arc<State>, pace: &Pace, arriving: Arriving<TcpStream>, remote: SocketAddr) {
    let tls = match arriving.finish().await {
        Ok(Arrived::Stranger(tls)) => tls,
        // The door gives whoever wants to join no other standing.
        Ok(Arrived::Agent(..) | Arrived::Guardian(..)) => return,
        Err(error) => {
            state.metrics.join(error.reason());
            tracing::debug!(%remote, reason = error.reason(), "somebody who wants to join was refused: {error}");
            return;
        }
    };
    let answering = service_fn(async |asked| Ok::<_, Infallible>(request::answer(state, pace, remote, asked).await));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(tls), answering);
    match tokio::time::timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%remote, %error, "a connection of somebody who wants to join ended early"),
        Err(_elapsed) => {
            state.metrics.join("timeout");
            tracing::debug!(%remote, "a connection of somebody who wants to join took too long");
        }
    }
}

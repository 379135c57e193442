//! The connections to a service that one connection of a program uses, one request at a time on each.
//!
//! No connection is shared by two programs, let alone two clusters: whatever one of them makes of it is its own loss.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{BUFFER, H2_STREAMS};
use crate::{
    front::body::RequestBody,
    services::{
        catalog::Offered,
        dial::{DialError, dial},
        origin::{Origin, Room},
        refused::Refused,
    },
};

/// Idle connections, at most as many as requests run at once.
#[derive(Default)]
pub(super) struct Upstream(Mutex<Vec<Connection>>);

struct Connection {
    sender: SendRequest<RequestBody>,
    /// To what it leads: another table may say another thing under the same name.
    offered: Arc<Offered>,
    _room: Room,
}

/// A connection with a request on it.
pub(super) struct Lease {
    of: Arc<Upstream>,
    connection: Connection,
}

impl Upstream {
    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// No connection, or no answer on it.
    pub(super) async fn send(
        self: &Arc<Self>,
        origin: &Arc<Origin>,
        offered: &Arc<Offered>,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), Refused> {
        while let Some(mut connection) = self.idle(offered) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease { of: Arc::clone(self), connection })),
                // Only a request that comes back whole was certainly not begun, and may be sent once more.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Refused::Broken(failed.into_error())),
                },
            }
        }
        let mut connection = open(origin, offered).await?;
        match connection.sender.try_send_request(request).await {
            Ok(response) => Ok((response, Lease { of: Arc::clone(self), connection })),
            Err(failed) => Err(Refused::Broken(failed.into_error())),
        }
    }

    /// A connection to this service that can be used at once.
    fn idle(&self, offered: &Arc<Offered>) -> Option<Connection> {
        let mut idle = self.locked();
        while let Some(mut connection) = idle.pop() {
            let ready = matches!(connection.sender.ready().now_or_never(), Some(Ok(())));
            if ready && Arc::ptr_eq(&connection.offered, offered) {
                return Some(connection);
            }
        }
        None
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The response has ended as it should: the connection may be used again.
    pub(super) fn give_back(self) {
        let mut idle = self.of.locked();
        if idle.len() < H2_STREAMS as usize {
            idle.push(self.connection);
        }
    }
}

async fn open(origin: &Arc<Origin>, offered: &Arc<Offered>) -> Result<Connection, Refused> {
    let room = origin.room(offered)?;
    let services = origin.services();
    let began = Instant::now();
    let opened = handshake(origin, offered, began).await;
    services.metrics.dial_seconds.observe(began.elapsed().as_secs_f64());
    let sender = opened.map_err(Refused::Dial)?;
    Ok(Connection { sender, offered: Arc::clone(offered), _room: room })
}

async fn handshake(
    origin: &Arc<Origin>,
    offered: &Arc<Offered>,
    began: Instant,
) -> Result<SendRequest<RequestBody>, DialError> {
    let state = origin.state();
    let until = began + state.services.config.dial_timeout;
    let tcp = dial(state, offered, until).await?;
    let Some(connector) = &offered.connector else { return speak(origin, tcp).await };
    let left = until.saturating_duration_since(Instant::now());
    let connecting = connector.connect(tcp, offered.service.upstream_name(), left);
    speak(origin, connecting.await.map_err(DialError::Tls)?).await
}

async fn speak<IO>(origin: &Origin, io: IO) -> Result<SendRequest<RequestBody>, DialError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(DialError::Http)?;
    let phases = origin.state().phases.clone();
    origin.state().tasks.spawn("service-upstream", async move {
        tokio::select! {
            ended = connection => told(ended),
            () = phases.cancelled() => {}
        }
    });
    Ok(sender)
}

fn told(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a service ended early");
    }
}

//! Connections to the kube-apiserver: one in use for each request, some kept idle for the next.
//!
//! Called by `upstream` only. A kept connection is looked at when it is put away and again when it is taken out, so one
//! that the kube-apiserver has closed meanwhile is not used; nobody polls it in between.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use moorline_mux::Paced;
use tokio::time::Instant;

use super::{
    body::RequestBody,
    connect::{ConnectError, Target},
};

/// How long a connection may idle. kube-apiserver closes after 90 s, so that a request and that closing do not cross.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// How many connections are kept idle. As many as a burst of kubectl leaves behind; more would only hold memory, and a
/// new one costs one TLS handshake.
const MAX_IDLE: usize = 64;

/// How often idle connections are looked through.
const REAP_INTERVAL: Duration = Duration::from_secs(15);

/// The largest head of an answer, in bytes.
const READ_BUFFER: usize = 128 * 1024;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The connections.
pub(super) struct Pool {
    target: Target,
    builder: http1::Builder,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection that carries one request at a time.
pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: Option<Driver>,
    failure: Option<hyper::Error>,
}

impl Pool {
    pub(super) fn new(target: Target) -> Self {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER);
        Self { target, builder, idle: Mutex::default() }
    }

    pub(super) fn target(&self) -> String {
        self.target.to_string()
    }

    /// The connection used last that is still good.
    pub(super) fn kept(&self) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.locked().pop_back()?;
            if since.elapsed() < IDLE && connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self, upgrade: bool) -> Result<Connection, ConnectError> {
        let io = TokioIo::new(Paced::reading(self.target.connect().await?));
        let (sender, connection) = self.builder.handshake(io).await.map_err(ConnectError::Setup)?;
        let driver: Driver = if upgrade { Box::pin(connection.with_upgrades()) } else { Box::pin(connection) };
        Ok(Connection { sender, driver: Some(driver), failure: None })
    }

    /// Keeps a connection whose answer was read to its end, if it can carry another request.
    pub(super) fn put(&self, mut connection: Connection) {
        if !connection.is_reusable() {
            return;
        }
        let mut idle = self.locked();
        let oldest = if idle.len() >= MAX_IDLE { idle.pop_front() } else { None };
        idle.push_back(Idle { connection, since: Instant::now() });
        drop(idle);
        drop(oldest);
    }

    fn prune(&self) {
        let mut idle = self.locked();
        // In order of age, since they are put in at the back.
        let fresh = idle.iter().position(|kept| kept.since.elapsed() < IDLE).unwrap_or(idle.len());
        let expired: Vec<_> = idle.drain(..fresh).collect();
        drop(idle);
        drop(expired);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Prunes the pool until it is gone.
pub(super) async fn reap(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        let Some(pool) = Weak::upgrade(&pool) else { return };
        pool.prune();
    }
}

impl Connection {
    /// Sends a request and drives the connection until the head of the answer is there.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let Self { sender, driver, failure } = self;
        let mut sending = std::pin::pin!(sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            drive(driver, failure, cx);
            sending.as_mut().poll(cx)
        })
        .await
    }

    /// Drives the connection to its end, which for an upgrade is when the bytes are ours.
    pub(super) async fn finish(&mut self) -> hyper::Result<()> {
        if let Some(driver) = self.driver.as_mut() {
            let ended = driver.await;
            self.driver = None;
            return ended;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Does what there is to do now; the task is woken when there is more.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, &mut self.failure, cx);
    }

    /// Whether the connection is open and ready for a request, at a glance.
    fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

fn drive(driver: &mut Option<Driver>, failure: &mut Option<hyper::Error>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && let Poll::Ready(ended) = running.as_mut().poll(cx)
    {
        *driver = None;
        *failure = ended.err();
    }
}

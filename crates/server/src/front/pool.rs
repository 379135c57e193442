//! The idle streams of one session: HTTP/1.1 connections, one request at a time, kept for the next one.
//!
//! `forward` takes streams from here, and a response's body gives them back when it was read to its end. What is
//! aborted, upgraded or long never comes back: the stream is reset, and the agent hears of it at once.

use std::{
    convert::Infallible,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use moorline_mux::{Handle, Paced, Stream, Watch};
use moorline_process::Tasks;
use tokio::{sync::oneshot, time::Instant};

use super::{body::RequestBody, guardian::places::Places, line::StreamError, metrics::Metrics};

/// Idle streams kept for each session. As many callers at once get a stream without opening one; more streams idle
/// would hold memory on both ends for a load that has passed.
pub(crate) const MAX_IDLE: usize = 32;

/// How long a stream stays idle. The agent keeps it for 90 seconds, so that this side is always the one that ends it
/// and no request meets a stream that is just being closed.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// How often idle streams are looked at.
const SWEEP: Duration = Duration::from_secs(15);

/// Bytes of a response head that are taken from an agent: kube-apiserver's are below 2 KiB.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// What all pools have in common.
#[derive(Clone)]
pub(crate) struct PoolContext {
    /// Where the streams' tasks run.
    pub(crate) tasks: Tasks,
    /// Where streams are counted.
    pub(crate) metrics: Arc<Metrics>,
    /// How many requests may share connections to Guardians.
    pub(crate) places: Places,
}

/// The idle streams of one session.
pub(crate) struct Pool {
    handle: Handle,
    context: PoolContext,
    idle: Mutex<IdleStreams>,
}

#[derive(Default)]
struct IdleStreams {
    /// Oldest first, at most [`MAX_IDLE`].
    streams: Vec<Idle>,
    swept: bool,
}

struct Idle {
    running: Running,
    since: Instant,
}

/// A stream in use. Dropping it resets the stream, whatever runs on it.
pub(crate) struct Lease {
    running: Running,
    home: Option<Arc<Pool>>,
}

/// A stream with HTTP on it, as it is held here.
struct Running {
    sender: SendRequest<RequestBody>,
    watch: Watch,
    /// Ends the stream's task when it is dropped, also one whose bytes nobody takes any more: HTTP alone would wait until
    /// they are gone.
    _stop: oneshot::Sender<Infallible>,
}

impl Pool {
    /// The pool of a session; empty.
    pub(crate) fn new(handle: Handle, context: PoolContext) -> Arc<Self> {
        Arc::new(Self { handle, context, idle: Mutex::default() })
    }

    /// The session's handle.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// An idle stream, the one used last first: it is the least likely to be gone.
    pub(super) fn idle(self: &Arc<Self>) -> Option<Lease> {
        let Idle { running, .. } = {
            let mut idle = self.locked();
            idle.streams.retain(|stream| !stream.running.sender.is_closed());
            let ready = idle.streams.iter().rposition(|stream| stream.running.sender.is_ready())?;
            idle.streams.remove(ready)
        };
        self.context.metrics.pool_hits.inc();
        Some(Lease { running, home: Some(Arc::clone(self)) })
    }

    /// A new stream that comes back here after use.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Lease, StreamError> {
        let (sender, watch, connection) = self.connect().await?;
        self.context.metrics.opened_pooled.inc();
        let running = self.run(sender, watch, connection);
        Ok(Lease { running, home: Some(Arc::clone(self)) })
    }

    /// A new stream for one request only, which may be an upgrade.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(super) async fn open_own(self: &Arc<Self>) -> Result<Lease, StreamError> {
        let (sender, watch, connection) = self.connect().await?;
        self.context.metrics.opened_own.inc();
        let running = self.run(sender, watch, connection.with_upgrades());
        Ok(Lease { running, home: None })
    }

    fn run<C>(&self, sender: SendRequest<RequestBody>, watch: Watch, connection: C) -> Running
    where
        C: Future<Output = hyper::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        self.context.tasks.spawn("gateway-stream", async move {
            let outcome = tokio::select! {
                outcome = connection => outcome,
                _dropped = stopped => return,
            };
            if let Err(error) = outcome {
                // The request that ran on it, if any, tells its user.
                tracing::debug!(%error, "a stream ended early");
            }
        });
        Running { sender, watch, _stop: stop }
    }

    async fn connect(&self) -> Result<(SendRequest<RequestBody>, Watch, Connection), StreamError> {
        let stream = self.handle.open().await.map_err(StreamError::Open)?;
        let watch = stream.watch();
        let mut http = http1::Builder::new();
        // A stream of the multiplexer copies what it is given, so gathering slices would copy twice.
        http.writev(false).max_header_size(MAX_RESPONSE_HEAD).max_buf_size(MAX_RESPONSE_HEAD);
        let shaken = http.handshake(TokioIo::new(Paced::reading(stream))).await;
        let (sender, connection) = shaken.map_err(StreamError::Http)?;
        Ok((sender, watch, connection))
    }

    fn put(self: &Arc<Self>, running: Running) {
        if running.sender.is_closed() || !self.handle.is_open() {
            return;
        }
        let mut idle = self.locked();
        if idle.streams.len() >= MAX_IDLE {
            return;
        }
        idle.streams.push(Idle { running, since: Instant::now() });
        if !mem::replace(&mut idle.swept, true) {
            drop(idle);
            let sweeping = sweep(Arc::downgrade(self), self.handle.clone());
            self.context.tasks.spawn("gateway-pool", sweeping);
        }
    }

    /// Lets go of what was idle for too long; says whether anything is left.
    fn sweep(&self) -> bool {
        let mut idle = self.locked();
        idle.streams.retain(|stream| !stream.running.sender.is_closed() && stream.since.elapsed() < IDLE);
        idle.swept = !idle.streams.is_empty();
        idle.swept
    }

    fn clear(&self) {
        let streams = mem::take(&mut self.locked().streams);
        drop(streams);
    }

    fn locked(&self) -> MutexGuard<'_, IdleStreams> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.locked().streams.len()
    }
}

type Connection = http1::Connection<TokioIo<Paced<Stream>>, RequestBody>;

impl Lease {
    /// What sends a request on this stream.
    pub(super) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.running.sender
    }

    /// The response was read to its end: the stream can carry another request, if it was made for that.
    pub(super) fn give_back(self) {
        if let Some(home) = self.home {
            home.put(self.running);
        }
    }

    /// Ready when the stream was reset here, because nobody took what it brought and too much was held for all such.
    pub(super) fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.running.watch.poll_shed(cx)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.locked().streams.len()).finish_non_exhaustive()
    }
}

/// Runs while streams are idle. It must not keep the session alive, nor an idle stream a session that drains.
async fn sweep(pool: Weak<Pool>, handle: Handle) {
    let mut refusing = std::pin::pin!(handle.not_open());
    loop {
        let open = tokio::time::timeout(SWEEP, refusing.as_mut()).await.is_err();
        let Some(pool) = pool.upgrade() else { return };
        if !open {
            pool.clear();
            return;
        }
        if !pool.sweep() {
            return;
        }
    }
}

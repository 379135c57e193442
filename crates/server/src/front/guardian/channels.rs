//! The inner connections of one Guardian session: few that carry many requests, and one for each that is not short.
//!
//! `forward` takes places here. A short request gets a place on a connection of HTTP/2, the least busy one; further
//! connections are opened beside it as places get scarce, one at a time, and closed when they were idle for a while. What
//! one request may bring that nobody reads is bounded by its window, and the window of a connection is as large as those
//! of all its requests together, so that no slow reader holds up the others on it. The other way Go's window is as large
//! for one request as for all of a connection, so only small bodies go there.
//!
//! Whatever may run for long, sends more, is upgraded, or finds no place has a connection of HTTP/1.1 on a stream of its
//! own, which is bounded, counted and shed like those to our own agent.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_mtls::{ClientStream, InnerConnector};
use moorline_mux::{Handle, Paced, Stream, Undivided, Watch};
use moorline_process::Tasks;
use tokio::{io::BufWriter, sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{places::Place, refusals::Refusals, sacrifice::Sacrifice};
use crate::front::{body::RequestBody, line::StreamError, pool::PoolContext};

/// Requests at once on one connection. Go's own limit is 250; fewer share a fate, and a window.
const PLACES: usize = 16;

/// Bytes of a request's body that goes on such a connection: with all places taken as much as Go takes before it reads
/// (1 MiB).
pub(in crate::front) const SMALL: u64 = 64 * 1024;

/// So many of them taken, and another connection is opened, while it may be: each has TLS of its own to do.
const BUSY: usize = 4;

/// Connections that carry many requests, for each session.
const MOST: usize = 4;

/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(60);

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(15);

/// Bytes of one response that may wait for its reader: what a stream of the multiplexer begins with, too. All places of
/// a session together hold 16 MiB; `places` bounds those of all sessions.
pub(super) const WINDOW: u32 = 256 * 1024;

/// The same of all responses of a connection.
#[expect(clippy::cast_possible_truncation, reason = "16 places")]
const CONNECTION_WINDOW: u32 = WINDOW * PLACES as u32;

/// Requests of a connection that users gave up within the last second, of which what is still on its way is passed over.
/// Of more it would be taken for an error of Guardian's, and after a thousand of those the connection ends with all that
/// is on it.
const GIVEN_UP: usize = 4096;

/// Bytes of one request's body that may wait for Guardian's window.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a connection with requests on it is asked whether it carries anything, and how long the answer may take:
/// a stream can be stuck while its session answers.
const PING: Duration = Duration::from_secs(15);

/// Bytes that are gathered before they go into a stream of its own: a head, and the byte that must not come long after.
const GATHERED: usize = 16 * 1024;

/// Bytes of a response head that are taken.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;

/// For TLS inside a stream, and for a further connection as a whole. The caller's own limit is shorter, most often; this one is for whom nobody waits any more.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// The connections of one session.
pub(crate) struct Channels {
    handle: Handle,
    inner: InnerConnector,
    context: PoolContext,
    open: Mutex<Open>,
    /// Whoever opens a connection has the turn; everybody who waits for one looks again when it is done.
    opening: Arc<Semaphore>,
    refusals: Refusals,
}

#[derive(Default)]
struct Open {
    channels: Vec<Arc<Channel>>,
    swept: bool,
}

struct Channel {
    sender: http2::SendRequest<RequestBody>,
    taken: AtomicUsize,
    /// When a request ended last.
    rested: Mutex<Instant>,
    /// Ends all that the connection runs, when it is dropped.
    _stop: DropGuard,
}

/// A place on a connection. Dropping it frees the place; what was asked and not answered is cancelled with its response.
pub(crate) struct Share {
    seat: Seat,
    _place: Place,
}

/// A place on one connection.
struct Seat {
    sender: http2::SendRequest<RequestBody>,
    channel: Arc<Channel>,
}

/// A connection for one request. Dropping it resets the stream.
pub(crate) struct Own {
    sender: http1::SendRequest<RequestBody>,
    watch: Watch,
    _stop: DropGuard,
}

impl Channels {
    /// The connections of a session whose agent shows the certificate that `inner` is pinned to. None yet.
    pub(crate) fn new(handle: Handle, inner: InnerConnector, context: PoolContext) -> Arc<Self> {
        let (open, opening, refusals) = (Mutex::default(), Arc::new(Semaphore::new(1)), Refusals::default());
        Arc::new(Self { handle, inner, context, open, opening, refusals })
    }

    /// The session's handle.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What WebSockets were refused with lately.
    pub(in crate::front) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// A place for a request. Safe to cancel.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(in crate::front) async fn share(self: &Arc<Self>) -> Result<Share, StreamError> {
        let place = self.context.places.take().ok_or(StreamError::Full)?;
        match self.find() {
            Found::Calm(seat) => return Ok(seat.with(place)),
            Found::Full => return Err(StreamError::Full),
            Found::Crowded(seat) => {
                self.open_another();
                return Ok(seat.with(place));
            }
            Found::None => {}
        }
        // Never closed.
        let _turn = self.opening.acquire().await;
        match self.find() {
            Found::Calm(seat) | Found::Crowded(seat) => return Ok(seat.with(place)),
            Found::Full => return Err(StreamError::Full),
            Found::None => {}
        }
        // Boxed, as below: a handshake is large, and rare.
        Ok(Box::pin(self.connect()).await?.with(place))
    }

    /// Opens a connection beside those that there are, unless somebody does. Nobody waits for it.
    fn open_another(self: &Arc<Self>) {
        let Ok(turn) = Arc::clone(&self.opening).try_acquire_owned() else { return };
        let this = Arc::clone(self);
        self.context.tasks.spawn("gateway-pool", async move {
            // Bounded as a whole: while it lasts nobody else opens one.
            if let Ok(Err(error)) = tokio::time::timeout(HANDSHAKE, this.connect()).await {
                tracing::debug!(%error, "no further connection through a session");
            }
            drop(turn);
        });
    }

    /// A connection for one request.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(in crate::front) async fn own(&self) -> Result<Own, StreamError> {
        let (tls, watch) = Box::pin(self.shake()).await?;
        let (sender, connection) = http1_builder().handshake(TokioIo::new(tls)).await.map_err(StreamError::Http)?;
        Ok(self.run(sender, watch, connection))
    }

    /// A connection for one request that asks for an upgrade and has no body.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(in crate::front) async fn switching(&self) -> Result<Own, StreamError> {
        let (tls, watch) = Box::pin(self.shake()).await?;
        let io = TokioIo::new(Sacrifice::new(tls));
        let (sender, connection) = http1_builder().handshake(io).await.map_err(StreamError::Http)?;
        Ok(self.run(sender, watch, connection.with_upgrades()))
    }

    async fn shake(&self) -> Result<(ClientStream<Gathered>, Watch), StreamError> {
        let stream = self.handle.open().await.map_err(StreamError::Open)?;
        let watch = stream.watch();
        // Guardian ends streams as a whole: what a user still sends to a command that has ended would wait for minutes.
        let stream = Paced::reading(Undivided::new(stream));
        let io = BufWriter::with_capacity(GATHERED, stream);
        let tls = self.inner.connect_http1(io, HANDSHAKE).await.map_err(StreamError::Tls)?;
        Ok((tls, watch))
    }

    fn run<C>(&self, sender: http1::SendRequest<RequestBody>, watch: Watch, connection: C) -> Own
    where
        C: Future<Output = hyper::Result<()>> + Send + 'static,
    {
        self.context.metrics.opened_own.inc();
        let stop = CancellationToken::new();
        drop(self.context.tasks.spawn("gateway-stream", until(stop.clone(), ended(connection))));
        Own { sender, watch, _stop: stop.drop_guard() }
    }

    /// TLS on a new stream and nothing in it yet, for the probe, which is to go the whole way.
    ///
    /// # Errors
    /// [`StreamError`]; nothing was sent.
    pub(crate) async fn bare(&self) -> Result<ClientStream<Gathered>, StreamError> {
        Box::pin(self.shake()).await.map(|(tls, _watch)| tls)
    }

    fn find(&self) -> Found {
        let mut open = self.locked();
        open.channels.retain(|channel| !channel.sender.is_closed());
        let Some(channel) = open.channels.iter().min_by_key(|channel| channel.taken()) else { return Found::None };
        let (taken, may_open) = (channel.taken(), open.channels.len() < MOST);
        match (taken, may_open) {
            (BUSY.., true) if taken >= PLACES => Found::None,
            (BUSY.., true) => Found::Crowded(channel.seat()),
            (PLACES.., false) => Found::Full,
            _ => Found::Calm(channel.seat()),
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Seat, StreamError> {
        let stream = self.handle.open().await.map_err(StreamError::Open)?;
        let tls = self.inner.connect_h2(stream, HANDSHAKE).await.map_err(StreamError::Tls)?;
        let stop = CancellationToken::new();
        let shaken = http2::Builder::new(Within { tasks: self.context.tasks.clone(), stop: stop.clone() })
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_reset_streams(GIVEN_UP)
            .max_header_list_size(u32::try_from(MAX_RESPONSE_HEAD).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(tls))
            .await;
        let (sender, connection) = shaken.map_err(StreamError::Http)?;
        self.context.metrics.opened_pooled.inc();
        drop(self.context.tasks.spawn("gateway-stream", until(stop.clone(), ended(connection))));
        let (taken, rested) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        let channel = Arc::new(Channel { sender, taken, rested, _stop: stop.drop_guard() });
        let seat = channel.seat();
        let swept = {
            let mut open = self.locked();
            open.channels.push(channel);
            mem::replace(&mut open.swept, true)
        };
        if !self.handle.is_open() {
            // What was idle was let go of before this one was there.
            self.clear();
        } else if !swept {
            self.context.tasks.spawn("gateway-pool", sweep(Arc::downgrade(self), self.handle.clone()));
        }
        Ok(seat)
    }

    /// Lets go of what was idle for too long; says whether anything is left.
    fn sweep(&self) -> bool {
        let mut open = self.locked();
        open.channels.retain(|channel| !channel.sender.is_closed() && channel.idle() < IDLE);
        open.swept = !open.channels.is_empty();
        open.swept
    }

    fn clear(&self) {
        let channels = mem::take(&mut self.locked().channels);
        drop(channels);
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose small writes go together.
type Gathered = BufWriter<Paced<Undivided<Stream>>>;

/// What there is for a request.
enum Found {
    /// A place on a connection with few requests.
    Calm(Seat),
    /// A place; better would be another connection.
    Crowded(Seat),
    /// No place, and room for another connection.
    None,
    /// No place, and no room.
    Full,
}

impl Channel {
    fn seat(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat { sender: self.sender.clone(), channel: Arc::clone(self) }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn idle(&self) -> Duration {
        if self.taken() > 0 {
            return Duration::ZERO;
        }
        self.rested.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Share {
    pub(in crate::front) fn sender(&mut self) -> &mut http2::SendRequest<RequestBody> {
        &mut self.seat.sender
    }
}

impl Seat {
    fn with(self, place: Place) -> Share {
        Share { seat: self, _place: place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.channel.rested.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.channel.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Own {
    pub(in crate::front) fn sender(&mut self) -> &mut http1::SendRequest<RequestBody> {
        &mut self.sender
    }

    pub(in crate::front) fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.watch.poll_shed(cx)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("open", &self.locked().channels.len()).finish_non_exhaustive()
    }
}

fn http1_builder() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.writev(false).max_header_size(MAX_RESPONSE_HEAD).max_buf_size(MAX_RESPONSE_HEAD);
    http
}

/// Waits for a connection's end. The requests that ran on it, if any, tell their users.
async fn ended(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a stream ended early");
    }
}

/// Runs a part of a connection until it ends, or the connection is let go of.
async fn until<F: Future>(stop: CancellationToken, part: F) {
    tokio::select! {
        _done = part => {}
        () = stop.cancelled() => {}
    }
}

/// Runs while there are connections. It keeps neither the session alive nor an idle connection of one that drains.
async fn sweep(channels: Weak<Channels>, handle: Handle) {
    let mut refusing = std::pin::pin!(handle.not_open());
    loop {
        let open = tokio::time::timeout(SWEEP, refusing.as_mut()).await.is_err();
        let Some(channels) = channels.upgrade() else { return };
        if !open {
            channels.clear();
            return;
        }
        if !channels.sweep() {
            return;
        }
    }
}

/// Runs what a connection of HTTP/2 is made of, no longer than the connection is wanted: left to itself an upload that
/// nobody takes would keep all of it.
#[derive(Clone)]
struct Within {
    tasks: Tasks,
    stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Within
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.tasks.spawn("gateway-channel", until(self.stop.clone(), future)));
    }
}

//! The gateway door: accepts users, does the TLS handshake, serves HTTP/1.1 or HTTP/2 until it is time to go.
//!
//! Started by the composition root. A connection gets its task before its handshake, so a silent peer costs a task and
//! no other user's time.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::TryFutureExt as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_mtls::{GatewayAcceptor, ServerStream};
use moorline_mux::{Pace, Paced};
use moorline_process::{Phase, Tasks};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};

use crate::state::State;

use super::{
    authn::CertificateUser,
    body::PacedBody,
    doors::{Doors, Place},
    fairness::Fairness,
    metrics::Metrics,
    request::{MAX_HEAD, MAX_HEADERS},
    serve::{Activity, Served},
};

/// Header lines that hyper still reads, so that a request a little over [`MAX_HEADERS`] gets an answer that says why.
const HARD_MAX_HEADERS: usize = MAX_HEADERS + 32;

/// Bytes of a head that hyper still reads, for the same reason.
const HARD_MAX_HEAD: usize = MAX_HEAD + 32 * 1024;

/// Bytes buffered of an HTTP/1 connection: the largest head. How much of a response waits for a user who does not read it
/// is for the [`Pace`] to bound.
const MAX_BUFFER: usize = HARD_MAX_HEAD;

/// Requests at once on one HTTP/2 connection, the default of Go's and kube-apiserver's servers.
const H2_STREAMS: u32 = 250;

/// Streams that a client may have opened and reset before this server looked at them; beyond, the connection is closed.
/// Cancelling is normal, doing so faster than it can be seen is an attack (rapid reset, CVE-2023-44487).
const H2_PENDING_RESETS: usize = 50;

/// Faulty streams in the life of one HTTP/2 connection that are answered by a reset; beyond, it is closed.
const H2_LOCAL_RESETS: usize = 1024;

/// What an HTTP/2 client may send before it is read: for each request, and on the connection. The product of
/// connections and the second is what stalled uploads can hold.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes of a response that wait for an HTTP/2 client's window, for each request.
const H2_SEND_BUFFER: usize = 128 * 1024;

/// How often a silent HTTP/2 client is asked whether it is there (also keeps watches alive through load balancers),
/// and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(30);
const H2_PING_ANSWER: Duration = Duration::from_secs(20);

/// When TCP asks a silent peer whether it is there. There is no `TCP_USER_TIMEOUT` on purpose: the kernel takes a user who
/// does not read (`kubectl exec … | less`) for one who does not acknowledge, and would cut them off.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes that the kernel may hold unsent of one connection, which without a bound grow to megabytes for a user who does
/// not read.
const TCP_UNSENT: u32 = 128 * 1024;

/// From the end of the handshake to the first request of a user who is known, less than between later ones: whoever
/// connects wants something, and who gets only 401 comes back over another connection.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// What a connection gets for its first request that was accepted when this server had begun to stop; and for its last
/// answer, when nobody was known on it.
const LATE: Duration = Duration::from_secs(1);

/// Pauses after a failed accept (out of file descriptors, most often): doubled each time, within these bounds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The gateway, ready to be served.
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    acceptor: GatewayAcceptor,
    doors: Doors,
    handshakes: Semaphore,
}

/// What all connections of the gateway share.
pub(super) struct Shared {
    pub(super) state: Arc<State>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) control: axum::Router,
    pub(super) fairness: Fairness,
}

impl Gateway {
    /// A gateway that answers `/v1` and its own pages by `control`, every request of which carries a
    /// [`super::Caller`].
    pub(crate) fn new(state: Arc<State>, acceptor: GatewayAcceptor, control: axum::Router) -> Self {
        let limits = &state.gateway;
        let doors = Doors::new(limits.max_connections);
        let handshakes = Semaphore::new(limits.max_handshakes);
        let fairness = Fairness::new(limits);
        let metrics = Arc::clone(&state.pools.metrics);
        let shared = Shared { state, metrics, control, fairness };
        Self { shared: Arc::new(shared), acceptor, doors, handshakes }
    }

    /// Accepts users until [`Phase::StopAccepting`]. The connections are tasks of their own: they finish the requests
    /// that run, and are cut at [`Phase::Cancelled`].
    pub(crate) async fn serve(self, listener: TcpListener) {
        let gateway = Arc::new(self);
        let phases = gateway.shared.state.phases.clone();
        let mut closing = std::pin::pin!(phases.reached(Phase::StopAccepting));
        let mut pause = ACCEPT_PAUSE;
        loop {
            let accepted = tokio::select! {
                () = closing.as_mut() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    pause = ACCEPT_PAUSE;
                    gateway.admit(socket, peer);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::select! {
                        () = closing.as_mut() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let place = match self.doors.enter(peer.ip(), &self.shared.metrics) {
            Ok(place) => place,
            Err(reason) => {
                tracing::debug!(%peer, reason, "connection refused");
                self.shared.metrics.refused(reason);
                return;
            }
        };
        let gateway = Arc::clone(self);
        self.tasks().spawn("gateway-connection", async move {
            let sent_away = place.sent_away();
            tokio::select! {
                () = gateway.connection(socket, peer, place) => {}
                () = sent_away => {
                    tracing::debug!(%peer, "connection closed: nobody was known on it, and others came");
                    gateway.shared.metrics.refused("crowded-out");
                }
            }
        });
    }

    async fn connection(&self, socket: TcpStream, peer: SocketAddr, place: Place) {
        if let Err(error) = tune(&socket) {
            tracing::debug!(%peer, %error, "cannot set socket options");
        }
        let (stream, certificate) = match self.handshake(socket).await {
            Ok(done) => done,
            Err(error) => {
                tracing::info!(%peer, %error, "TLS handshake with a user failed");
                self.shared.metrics.handshake_failed(error.reason());
                return;
            }
        };
        let certificate = certificate.as_ref().map(CertificateUser::of);
        let served = Served::new(Arc::clone(&self.shared), certificate, peer, place);
        serve(stream, served, &self.shared).await;
    }

    async fn handshake(
        &self,
        socket: TcpStream,
    ) -> Result<(ServerStream<TcpStream>, Option<moorline_mtls::VerifiedPeer>), moorline_mtls::HandshakeError> {
        let limit = self.shared.state.gateway.handshake_timeout;
        let begun = Instant::now();
        let waited = tokio::time::timeout(limit, self.handshakes.acquire()).await;
        let Ok(Ok(_turn)) = waited else { return Err(moorline_mtls::HandshakeError::Timeout(limit)) };
        self.acceptor.accept(socket, limit.saturating_sub(begun.elapsed())).await
    }

    fn tasks(&self) -> &Tasks {
        &self.shared.state.tasks
    }
}

/// Serves one connection in the protocol that the handshake agreed on.
pub(super) async fn serve<IO>(stream: ServerStream<IO>, served: Arc<Served>, shared: &Shared)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    if stream.alpn() == Some(b"h2") {
        serve_h2(TokioIo::new(stream), served, shared).await;
    } else {
        serve_h1(stream, served, shared).await;
    }
}

/// Serves HTTP/1.1 on a stream.
pub(super) async fn serve_h1<IO>(io: IO, served: Arc<Served>, shared: &Shared)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let answering = Arc::clone(&served);
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(io, Arc::clone(&pace)));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (answer, pace) = (Arc::clone(&answering).answer(request), Arc::clone(&pace));
        answer.map_ok(move |response| response.map(|body| PacedBody::new(body, pace)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs from the end of one request to the head of the next.
        .header_read_timeout(shared.state.gateway.head_timeout)
        .max_headers(HARD_MAX_HEADERS)
        .max_header_size(HARD_MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(io, service)
        .with_upgrades();
    drive(connection, |connection| connection.graceful_shutdown(), &served, shared).await;
}

/// Serves HTTP/2 on a stream.
pub(super) async fn serve_h2<IO>(io: IO, served: Arc<Served>, shared: &Shared)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let answering = Arc::clone(&served);
    let service = service_fn(move |request: http::Request<Incoming>| Arc::clone(&answering).answer(request));
    let connection = http2::Builder::new(StreamTasks(shared.state.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(HARD_MAX_HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING_ANSWER)
        .serve_connection(io, service);
    drive(connection, |connection| connection.graceful_shutdown(), &served, shared).await;
}

/// Something happened to a connection.
enum Event {
    Ended(Result<(), hyper::Error>),
    Leave,
    Cut,
    Look,
}

/// Runs a connection to its end: its own, or that of the process, or of our patience.
async fn drive<C>(connection: C, leave: impl Fn(Pin<&mut C>), served: &Served, shared: &Shared)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let phases = &shared.state.phases;
    // A response counts as delivered when its last byte has left, which only the connection knows; one that has
    // nothing to deliver ends as soon as it is asked to.
    let _work = phases.work();
    let mut connection = std::pin::pin!(connection);
    let mut leaving = std::pin::pin!(phases.reached(Phase::StopAccepting));
    let mut cutting = std::pin::pin!(phases.cancelled());
    let mut look = std::pin::pin!(tokio::time::sleep(FIRST_REQUEST));
    // Whether everybody is to leave, and whether this connection has been asked to.
    let (mut leaving_time, mut asked, mut seen) = (false, false, 0);
    loop {
        let event = tokio::select! {
            biased;
            ended = connection.as_mut() => Event::Ended(ended),
            () = leaving.as_mut(), if !leaving_time => Event::Leave,
            () = cutting.as_mut() => Event::Cut,
            () = look.as_mut() => Event::Look,
        };
        match event {
            Event::Ended(Ok(())) | Event::Cut => return,
            Event::Ended(Err(error)) => {
                // Users hang up all the time, and what they sent wrong they were told.
                tracing::debug!(%error, "a connection of a user ended early");
                return;
            }
            Event::Leave => {
                leaving_time = true;
                if served.activity().begun > 0 {
                    asked = true;
                    leave(connection.as_mut());
                } else {
                    // Its first request is on the way, most likely, and gets an answer that says when to come again.
                    look.as_mut().reset(Instant::now() + LATE);
                }
            }
            Event::Look => {
                let Activity { begun, known, running } = served.activity();
                if begun == 0 {
                    shared.metrics.refused("no-request");
                    return;
                }
                if known == 0 && asked {
                    // Whatever is still under way is an answer that its reader does not take.
                    return;
                }
                // Who is refused time and again is as good as silent.
                if !asked && (leaving_time || known == 0 || (known == seen && !running)) {
                    asked = true;
                    leave(connection.as_mut());
                }
                seen = known;
                let patience = if known == 0 { LATE } else { shared.state.gateway.head_timeout };
                look.as_mut().reset(Instant::now() + patience);
            }
        }
    }
}

/// Runs the requests of HTTP/2 connections.
#[derive(Clone)]
struct StreamTasks(Tasks);

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("gateway-request", future));
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE / 3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(TCP_UNSENT)?;
    Ok(())
}

/// The peer gave up between its connect and our accept.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

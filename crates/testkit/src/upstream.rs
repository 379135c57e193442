//! A scripted kube-apiserver over plain HTTP on loopback: answers by path and remembers exactly what arrived.
//!
//! For what a real kube-apiserver cannot be made to do: hang, break off, refuse an upgrade, stream a gibibyte.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use moorline_mtls::{GatewayAcceptor, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::client::LIMIT;

/// Requests remembered; older ones are forgotten.
const REMEMBERED: usize = 10_000;

/// The pace of what is slow on purpose.
const EVERY: Duration = Duration::from_millis(20);

type Body = BoxBody<Bytes, io::Error>;

/// What arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As sent.
    pub method: Method,
    /// As sent, with the query.
    pub uri: Uri,
    /// All of them, the impersonation included.
    pub headers: HeaderMap,
}

impl Seen {
    /// The values of a header as text, in order.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

/// The running server; dropping it ends it and its connections.
///
/// Behind `/api/v1` each of them passes Calico's Guardian, too, and behind `/api/v1/watch` it is a watch to whoever reads
/// paths as kube-apiserver does.
///
/// | path | answer |
/// | --- | --- |
/// | `/bytes/N` | N zero bytes, streamed |
/// | `/upload` | reads the body to its end, answers its length; counts trailers |
/// | `/sip` | the same, but a piece every 20 ms at most |
/// | `/stall` | the head and then nothing, until the caller hangs up |
/// | `/hang` | nothing at all, until the caller hangs up |
/// | `/cut/N` | announces 2 N bytes, sends N and cuts the connection |
/// | `/cut-chunked/N` | sends N bytes of no announced length and cuts the connection |
/// | `/ticks` | a chunk every 20 ms for ever: a watch |
/// | `/echo` with `Upgrade` | `101`, then every byte comes back, and the end of input is answered by an end of output |
/// | `/greet-then-read` with `Upgrade` | `101`, sends a greeting, closes its side, and reads on |
/// | `/break` with `Upgrade` | `101`, half a sentence, and a reset |
/// | `/refuse-upgrade` | `403` with a body, whatever was asked |
/// | `/status/N` | that status with a small body |
/// | `/leak` | an answer with headers that must not reach a user |
/// | `/readyz`, `/version` | as a kube-apiserver |
/// | anything else | `200` and a small JSON body |
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    running: AtomicUsize,
    connections: AtomicUsize,
    uploaded: AtomicUsize,
    trailers: AtomicUsize,
}

impl Upstream {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_for(100).await
    }

    /// The same, for requests of up to `headers` lines: users in thousands of groups. Each request pays for the room.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start_for(headers: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream =
            Self { address: listener.local_addr()?, state: Arc::default(), closed: CancellationToken::new() };
        spawn(accept(listener, Arc::clone(&upstream.state), upstream.closed.clone(), headers));
        Ok(upstream)
    }

    /// The same over TLS, in HTTP/2 with whoever wants it: as a kube-apiserver, and without upgrades.
    ///
    /// # Errors
    /// When no port can be bound, or these keys are of no use.
    pub async fn start_tls(keys: KeyPair) -> anyhow::Result<Self> {
        let acceptor = GatewayAcceptor::new(keys, None)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream =
            Self { address: listener.local_addr()?, state: Arc::default(), closed: CancellationToken::new() };
        let (state, closed) = (Arc::clone(&upstream.state), upstream.closed.clone());
        spawn(async move {
            while let Some(Ok((socket, _))) = closed.run_until_cancelled(listener.accept()).await {
                let (state, closed, acceptor) = (Arc::clone(&state), closed.clone(), acceptor.clone());
                spawn(async move {
                    closed.run_until_cancelled(serve_tls(socket, acceptor, state)).await;
                });
            }
        });
        Ok(upstream)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived for a path, oldest first.
    #[must_use]
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|request| request.uri.path() == path).cloned().collect()
    }

    /// What arrived from users, oldest first: everything but the agent's own questions.
    #[must_use]
    pub fn seen_of_users(&self) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|request| !matches!(request.uri.path(), "/version" | "/readyz" | "/api/v1/namespaces/kube-system"))
            .cloned()
            .collect()
    }

    /// Requests being answered now, upgraded connections included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state.running.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Bytes read so far by `/upload`, while it still runs too.
    #[must_use]
    pub fn uploaded(&self) -> usize {
        self.state.uploaded.load(Ordering::SeqCst)
    }

    /// Trailer sections that `/upload` has met so far.
    #[must_use]
    pub fn trailers(&self) -> usize {
        self.state.trailers.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, closed: CancellationToken, headers: usize) {
    while let Some(Ok((socket, _))) = closed.run_until_cancelled(listener.accept()).await {
        let (state, closed) = (Arc::clone(&state), closed.clone());
        spawn(async move {
            closed.run_until_cancelled(serve(socket, state, headers)).await;
        });
    }
}

async fn serve(socket: TcpStream, state: Arc<State>, headers: usize) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let _open = Counted::new(&state, |state| &state.connections);
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .max_headers(headers)
        .max_buf_size(2 * 1024 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    // Cuts and hang-ups are what the tests do on purpose.
    drop(connection.await);
}

async fn serve_tls(socket: TcpStream, acceptor: GatewayAcceptor, state: Arc<State>) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    // Whoever does not trust it hangs up.
    let Ok((tls, _)) = acceptor.accept(socket, LIMIT).await else { return };
    let _open = Counted::new(&state, |state| &state.connections);
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await);
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, io::Error> {
    remember(&state, &request);
    let running = Counted::new(&state, |state| &state.running);
    let whole = request.uri().path().to_owned();
    let path = whole.strip_prefix("/api/v1").unwrap_or(&whole);
    let path = path.strip_prefix("/watch").unwrap_or(path);
    let upgrade = request.headers().contains_key(header::UPGRADE);
    match path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), "")) {
        ("bytes", count) => Ok(zeroes(number(count), running)),
        ("upload", _) => upload(request, &state, running, Duration::ZERO).await,
        ("sip", _) => upload(request, &state, running, EVERY).await,
        ("stall", _) => Ok(endless(None, running)),
        ("ticks", _) => Ok(endless(Some(EVERY), running)),
        ("hang", _) => std::future::pending().await,
        ("cut", count) => Ok(cut(number(count), true, running)),
        ("cut-chunked", count) => Ok(cut(number(count), false, running)),
        ("echo", _) if upgrade => switch(request, running, echo),
        ("break", _) if upgrade => switch(request, running, break_off),
        ("greet-then-read", _) if upgrade => switch(request, running, greet_then_read),
        ("refuse-upgrade", _) => Ok(small(StatusCode::FORBIDDEN, "no upgrade for you, and this is why")),
        ("status", code) => {
            let code = u16::try_from(number(code)).ok().and_then(|code| StatusCode::from_u16(code).ok());
            Ok(small(code.unwrap_or(StatusCode::BAD_REQUEST), "as you asked"))
        }
        ("leak", _) => Ok(leak()),
        ("readyz", _) => Ok(small(StatusCode::OK, "ok")),
        ("version", _) => Ok(small(StatusCode::OK, r#"{"major":"1","minor":"33","gitVersion":"v1.33.0-scripted"}"#)),
        _ => Ok(small(StatusCode::OK, r#"{"kind":"Scripted"}"#)),
    }
}

fn remember(state: &State, request: &Request<Incoming>) {
    let mut seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= REMEMBERED {
        seen.clear();
    }
    seen.push(Seen {
        method: request.method().clone(),
        uri: request.uri().clone(),
        headers: request.headers().clone(),
    });
}

fn small(code: StatusCode, text: &'static str) -> Response<Body> {
    respond(code, Full::new(Bytes::from_static(text.as_bytes())).map_err(never).boxed())
}

fn leak() -> Response<Body> {
    let mut response = small(StatusCode::OK, "leaky");
    for (name, value) in [
        ("x-moorline-failure", "upstream-refused"),
        ("x-moorline-identity", "somebody"),
        ("impersonate-user", "somebody"),
        ("authorization", "Bearer somebody"),
    ] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

fn zeroes(count: u64, running: Counted) -> Response<Body> {
    static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];
    let block = BLOCK.len() as u64;
    let frames = futures_util::stream::unfold((count, running), move |(left, running)| async move {
        let size = left.min(block);
        let frame = BLOCK.get(..usize::try_from(size).unwrap_or(0)).filter(|frame| !frame.is_empty())?;
        Some((Ok(Frame::data(Bytes::from_static(frame))), (left - size, running)))
    });
    let mut response = respond(StatusCode::OK, StreamBody::new(frames).boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, count.into());
    response
}

fn endless(every: Option<Duration>, running: Counted) -> Response<Body> {
    let frames = futures_util::stream::unfold(running, move |running| async move {
        match every {
            Some(pause) => tokio::time::sleep(pause).await,
            None => std::future::pending().await,
        }
        Some((Ok(Frame::data(Bytes::from_static(b"{\"type\":\"BOOKMARK\"}\n"))), running))
    });
    respond(StatusCode::OK, StreamBody::new(frames).boxed())
}

fn cut(count: u64, announced: bool, running: Counted) -> Response<Body> {
    let half = Bytes::from(vec![b'x'; usize::try_from(count).unwrap_or(0)]);
    let frames = futures_util::stream::unfold((Some(half), running), |(half, running)| async move {
        let frame = match half {
            Some(half) => Ok(Frame::data(half)),
            None => Err(io::Error::other("cut on purpose")),
        };
        Some((frame, (None, running)))
    });
    let mut response = respond(StatusCode::OK, StreamBody::new(frames).boxed());
    if announced {
        response.headers_mut().insert(header::CONTENT_LENGTH, (count * 2).into());
    }
    response
}

async fn upload(
    request: Request<Incoming>,
    state: &State,
    running: Counted,
    pause: Duration,
) -> Result<Response<Body>, io::Error> {
    let mut body = request.into_body();
    let mut total = 0_usize;
    while let Some(frame) = body.frame().await {
        // A sleep of no time still takes a tick of the clock.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) => {
                total += data.len();
                state.uploaded.fetch_add(data.len(), Ordering::SeqCst);
            }
            Err(_trailers) => {
                state.trailers.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    drop(running);
    Ok(respond(StatusCode::OK, Full::new(Bytes::from(total.to_string())).map_err(never).boxed()))
}

type Raw = TokioIo<hyper::upgrade::Upgraded>;

fn switch<F>(
    request: Request<Incoming>,
    running: Counted,
    talk: impl FnOnce(Raw) -> F + Send + 'static,
) -> Result<Response<Body>, io::Error>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let protocol = request.headers().get(header::UPGRADE).cloned();
    spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            drop(talk(TokioIo::new(upgraded)).await);
        }
        drop(running);
    });
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    if let Some(protocol) = protocol {
        response = response.header(header::UPGRADE, protocol);
    }
    response.body(Full::new(Bytes::new()).map_err(never).boxed()).map_err(io::Error::other)
}

async fn echo(raw: Raw) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(raw);
    tokio::io::copy(&mut read, &mut write).await?;
    write.write_all(b"|end of your input|").await?;
    write.shutdown().await
}

async fn break_off(mut raw: Raw) -> io::Result<()> {
    raw.write_all(b"half a sen").await?;
    raw.flush().await?;
    // Read once more, so that the caller has had its half before the reset throws away what is under way.
    raw.read_u8().await?;
    let Ok(parts) = raw.into_inner().downcast::<TokioIo<TcpStream>>() else { return Ok(()) };
    socket2::SockRef::from(parts.io.inner()).set_linger(Some(Duration::ZERO))
}

async fn greet_then_read(mut raw: Raw) -> io::Result<()> {
    raw.write_all(b"greetings").await?;
    raw.shutdown().await?;
    let mut sink = Vec::new();
    raw.read_to_end(&mut sink).await?;
    Ok(())
}

fn respond(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// One of the gauges, held up for as long as this lives.
struct Counted {
    state: Arc<State>,
    gauge: fn(&State) -> &AtomicUsize,
}

impl Counted {
    fn new(state: &Arc<State>, gauge: fn(&State) -> &AtomicUsize) -> Self {
        gauge(state).fetch_add(1, Ordering::SeqCst);
        Self { state: Arc::clone(state), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.state).fetch_sub(1, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "the scripted server lives outside of the process that is under test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

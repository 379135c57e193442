//! A scripted kube-apiserver over plain HTTP: answers by path, remembers heads, counts what runs.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_mtls::GatewayAcceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::bench::{PATIENCE, eventually, spawn};

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    heads: Mutex<Vec<Head>>,
    users: Mutex<Vec<Option<String>>>,
    running: AtomicUsize,
    connections: AtomicUsize,
    ended: AtomicUsize,
    uploaded: AtomicUsize,
    broken: AtomicUsize,
    sick: std::sync::atomic::AtomicBool,
    /// Connections end when this changes.
    cut: watch::Sender<u32>,
}

#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

type Body = BoxBody<Bytes, io::Error>;

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&upstream.state);
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                spawn(serve(socket, Arc::clone(&state)));
            }
        });
        upstream
    }

    /// The same over TLS, believing nobody and asking for no certificate.
    pub(crate) async fn start_tls(acceptor: GatewayAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&upstream.state);
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                spawn(async move {
                    if let Ok((tls, peer)) = acceptor.accept(socket, PATIENCE).await {
                        state.users.lock().unwrap().push(peer.and_then(|peer| peer.common_name()));
                        serve(tls, state).await;
                    }
                });
            }
        });
        upstream
    }

    /// Who came by client certificate, for each connection over TLS.
    pub(crate) fn users(&self) -> Vec<Option<String>> {
        self.state.users.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads that arrived for a path.
    pub(crate) fn heads(&self, path: &str) -> Vec<Head> {
        self.state.heads.lock().unwrap().iter().filter(|head| head.uri.path() == path).cloned().collect()
    }

    /// Requests being answered, probes aside.
    pub(crate) fn running(&self) -> usize {
        self.state.running.load(Ordering::SeqCst)
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Bytes that `/upload` has read so far.
    pub(crate) fn uploaded(&self) -> usize {
        self.state.uploaded.load(Ordering::SeqCst)
    }

    /// Switched connections that ended by an error.
    pub(crate) fn broken(&self) -> usize {
        self.state.broken.load(Ordering::SeqCst)
    }

    /// Whether `/readyz` says so.
    pub(crate) fn sick(&self, sick: bool) {
        self.state.sick.store(sick, Ordering::SeqCst);
    }

    /// Cuts all connections; when it returns, they are closed.
    pub(crate) async fn cut(&self) {
        let made = self.connections();
        self.state.cut.send_modify(|cuts| *cuts += 1);
        eventually("the connections are cut", || self.state.ended.load(Ordering::SeqCst) >= made).await;
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::SeqCst);
    let mut cut = state.cut.subscribe();
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(4 * 1024 * 1024)
        .max_headers(20_000)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        _ended = connection => {}
        _cut = cut.changed() => {}
    }
    state.ended.fetch_add(1, Ordering::SeqCst);
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, io::Error> {
    let head = Head { uri: request.uri().clone(), headers: request.headers().clone() };
    state.heads.lock().unwrap().push(head);
    let path = request.uri().path().to_owned();
    if path == "/readyz" && state.sick.load(Ordering::SeqCst) {
        return Ok(small(500, "etcd is gone"));
    }
    match path.as_str() {
        "/readyz" => return Ok(small(200, "ok")),
        "/version" => return Ok(small(200, r#"{"gitVersion":"v1.33.0"}"#)),
        "/api/v1/namespaces/kube-system" => return Ok(small(403, "forbidden")),
        _tested => {}
    }
    let running = Running::new(&state);
    match path.as_str() {
        "/hang" => std::future::pending().await,
        "/upload" => upload(request, &state).await,
        "/watch" => Ok(watching(running)),
        "/half" => Ok(half(running)),
        "/early" => Ok(small(413, "too much")),
        "/closing" => {
            let mut response = small(200, "last words");
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
            Ok(response)
        }
        "/401" | "/api/v1/namespaces/a/services/b/proxy/401" => Ok(small(401, "who are you?")),
        "/leak" => {
            let mut response = small(200, "leaky");
            for (name, value) in [
                ("x-moorline-failure", "upstream-refused"),
                ("x-moorline-other", "x"),
                ("impersonate-user", "agent"),
                ("keep-alive", "timeout=5"),
                ("connection", "x-private"),
                ("x-private", "x"),
                ("audit-id", "kept"),
            ] {
                response.headers_mut().insert(name, http::HeaderValue::from_static(value));
            }
            Ok(response)
        }
        "/exec" if request.headers().contains_key(header::UPGRADE) => Ok(switch(request, state, running)),
        "/denied" => Ok(small(403, "no exec for you, and this is why")),
        _any => Ok(small(200, "fine")),
    }
}

async fn upload(request: Request<Incoming>, state: &State) -> Result<Response<Body>, io::Error> {
    let mut body = request.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            total += data.len();
            state.uploaded.fetch_add(data.len(), Ordering::SeqCst);
        }
    }
    Ok(respond(200, Full::new(Bytes::from(total.to_string())).map_err(never).boxed()))
}

/// One event, and then silence.
fn watching(running: Running) -> Response<Body> {
    let frames = stream::unfold((true, running), |(first, running)| async move {
        if !first {
            std::future::pending::<()>().await;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"event\n"))), (false, running)))
    });
    respond(200, StreamBody::new(frames).boxed())
}

/// Announces ten bytes, sends five, and cuts the connection.
fn half(running: Running) -> Response<Body> {
    let frames = stream::unfold((true, running), |(first, running)| async move {
        if first {
            return Some((Ok(Frame::data(Bytes::from_static(b"12345"))), (false, running)));
        }
        // What came before must be on its way.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        Some((Err(io::Error::other("cut")), (false, running)))
    });
    let mut response = respond(200, StreamBody::new(frames).boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, 10.into());
    response
}

/// `101`, then: everything comes back; the end of input is answered by a farewell and the end of output. `!` breaks the
/// connection off.
fn switch(request: Request<Incoming>, state: Arc<State>, running: Running) -> Response<Body> {
    let protocol = request.headers()[header::UPGRADE].clone();
    spawn(async move {
        let _running = running;
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().unwrap();
        let mut socket = parts.io.into_inner();
        let mut buffer = parts.read_buf.to_vec();
        loop {
            if buffer.contains(&b'!') {
                socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                return;
            }
            if socket.write_all(&buffer).await.is_err() {
                state.broken.fetch_add(1, Ordering::SeqCst);
                return;
            }
            buffer.resize(64 * 1024, 0);
            match socket.read(&mut buffer).await {
                Ok(0) => break,
                Ok(read) => buffer.truncate(read),
                Err(_broken) => {
                    state.broken.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
        socket.write_all(b"|bye").await.unwrap();
        socket.shutdown().await.unwrap();
    });
    let mut response = respond(101, Full::new(Bytes::new()).map_err(never).boxed());
    response.headers_mut().insert(header::UPGRADE, protocol);
    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
    response
}

fn small(code: u16, text: &'static str) -> Response<Body> {
    respond(code, Full::new(Bytes::from_static(text.as_bytes())).map_err(never).boxed())
}

fn respond(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).body(body).unwrap()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// Held up in the count for as long as it lives.
struct Running(Arc<State>);

impl Running {
    fn new(state: &Arc<State>) -> Self {
        state.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

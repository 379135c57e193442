//! A client that behaves like a strict user: it fails on any answer that leaks what must stay inside.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_mtls::{HttpsConnector, KeyPair, Roots};
use tokio::net::{TcpSocket, TcpStream};

/// How long anything may take before the test that waits for it fails.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A request's body.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub code: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub body: String,
}

/// Somebody with a token, at a gateway.
#[derive(Clone)]
pub struct Client {
    gateway: SocketAddr,
    roots: Roots,
    token: Option<String>,
    keys: Option<KeyPair>,
}

impl Client {
    /// A client that trusts `authority` (PEM) and sends `token`.
    ///
    /// # Errors
    /// When `authority` holds no certificate.
    pub fn new(gateway: SocketAddr, authority: &[u8], token: &str) -> Result<Self> {
        Ok(Self { gateway, roots: Roots::from_pem(authority)?, token: Some(token.to_owned()), keys: None })
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same with a client certificate instead of a token.
    #[must_use]
    pub fn with_certificate(&self, keys: KeyPair) -> Self {
        Self { token: None, keys: Some(keys), ..self.clone() }
    }

    /// The same through another address: a link in between.
    #[must_use]
    pub fn through(&self, gateway: SocketAddr) -> Self {
        Self { gateway, ..self.clone() }
    }

    /// A GET on a connection of its own, read whole.
    ///
    /// # Errors
    /// When no whole answer comes within [`LIMIT`], or it leaks.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask(self.request(Method::GET, path)).await
    }

    /// A request on a connection of its own, read whole.
    ///
    /// # Errors
    /// When no whole answer comes within [`LIMIT`], or it leaks.
    pub async fn ask(&self, request: Request<Body>) -> Result<Answer> {
        let response = self.send(request).await?;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(LIMIT, body.collect()).await.context("no end of the body")??;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok(Answer { code: head.status, headers: head.headers, body })
    }

    /// A request on a connection of its own, up to the head of its answer; dropping that hangs up.
    ///
    /// # Errors
    /// When no head comes within [`LIMIT`], or it leaks.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        self.connect().await?.send(request).await
    }

    /// An HTTP/1.1 connection, to be kept.
    ///
    /// # Errors
    /// When it cannot be made within [`LIMIT`].
    pub async fn connect(&self) -> Result<Connection> {
        let tls = self.tls(&[b"http/1.1"]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Connection(Sender::One(sender)))
    }

    /// An HTTP/2 connection, to be kept.
    ///
    /// # Errors
    /// When it cannot be made within [`LIMIT`].
    pub async fn connect_http2(&self) -> Result<Connection> {
        let tls = self.tls(&[b"h2"]).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        spawn(async move { drop(connection.await) });
        Ok(Connection(Sender::Two(sender)))
    }

    /// Bytes over TLS, for what no HTTP library would send.
    ///
    /// # Errors
    /// When it cannot be made within [`LIMIT`].
    pub async fn tls(&self, alpn: &'static [&'static [u8]]) -> Result<moorline_mtls::ClientStream<TcpStream>> {
        self.tls_over(TcpSocket::new_v4()?, alpn).await
    }

    /// The same over a socket that was prepared: with a small receive buffer, for a user who reads slowly.
    ///
    /// # Errors
    /// When it cannot be made within [`LIMIT`].
    pub async fn tls_over(
        &self,
        socket: TcpSocket,
        alpn: &'static [&'static [u8]],
    ) -> Result<moorline_mtls::ClientStream<TcpStream>> {
        let socket = socket.connect(self.gateway).await.context("connecting to the gateway")?;
        socket.set_nodelay(true)?;
        let connector = HttpsConnector::new(self.roots.clone(), self.keys.clone().map(Into::into), alpn);
        connector.connect(socket, "localhost", LIMIT).await.context("TLS with the gateway")
    }

    /// A request with this client's token and an empty body, to be changed at will.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<Body> {
        self.request_with(method, path, empty())
    }

    /// A request with this client's token and a body.
    #[must_use]
    pub fn request_with(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        if let Some(token) = &self.token
            && let Ok(value) = http::HeaderValue::from_str(&format!("Bearer {token}"))
        {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        request
    }
}

/// A connection that is kept.
pub struct Connection(Sender);

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Connection {
    /// Sends a request, waits for the head of its answer, and checks that nothing leaks in it.
    ///
    /// # Errors
    /// When no head comes within [`LIMIT`], or it leaks.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>> {
        self.send_within(request, LIMIT).await
    }

    /// The same for a request whose answer comes after a body that takes longer than [`LIMIT`] on a slow machine.
    ///
    /// # Errors
    /// When no head comes within `limit`, or it leaks.
    pub async fn send_within(&mut self, mut request: Request<Body>, limit: Duration) -> Result<Response<Incoming>> {
        let response = match &mut self.0 {
            Sender::One(sender) => {
                // The end of the last answer may be here before the connection knows of it.
                let sending = async {
                    sender.ready().await?;
                    sender.send_request(request).await
                };
                tokio::time::timeout(limit, sending).await
            }
            Sender::Two(sender) => {
                // HTTP/2 names scheme and authority in the URI and has no Host.
                request.headers_mut().remove(http::header::HOST);
                *request.uri_mut() = format!("https://localhost{}", request.uri()).parse()?;
                tokio::time::timeout(limit, sender.send_request(request)).await
            }
        };
        let response = response.context("no head of an answer")??;
        check(response.headers())?;
        Ok(response)
    }
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    full("")
}

/// A body in one piece.
#[must_use]
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// Fails on a header that a user must never see.
fn check(headers: &HeaderMap) -> Result<()> {
    for name in headers.keys().map(http::HeaderName::as_str) {
        let inner =
            name.starts_with("impersonate-") || name.starts_with("x-moorline-") || name.starts_with("x-remote-");
        ensure!(!inner && name != "authorization", "the header {name} leaked out to a user");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a user lives outside of the process that is under test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

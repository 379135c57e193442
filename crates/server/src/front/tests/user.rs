//! A user: an HTTP client that keeps its connection, over HTTP/1.1 or HTTP/2.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_process::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};

pub(super) type UserBody = BoxBody<Bytes, std::io::Error>;

/// What `alice` shows.
pub(super) const ALICE: &str = "Bearer alice-token";

/// Any byte stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// One connection of a user.
pub(super) enum User {
    H1(http1::SendRequest<UserBody>),
    H2(http2::SendRequest<UserBody>),
}

impl User {
    pub(super) async fn h1(io: impl Io, tasks: &Tasks) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tasks.spawn("user", async move { drop(connection.with_upgrades().await) });
        Self::H1(sender)
    }

    pub(super) async fn h2(io: impl Io, tasks: &Tasks) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tasks.spawn("user", async move { drop(connection.await) });
        Self::H2(sender)
    }

    pub(super) async fn send(&mut self, request: Request<UserBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                sender.ready().await?;
                let (mut head, body) = request.into_parts();
                let path = head.uri.path_and_query().unwrap().as_str();
                head.uri = format!("https://gateway{path}").parse().unwrap();
                sender.send_request(Request::from_parts(head, body)).await
            }
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(get(path)).await.unwrap()
    }
}

/// A request of alice's.
pub(super) fn get(path: &str) -> Request<UserBody> {
    ask("GET", path).body(empty()).unwrap()
}

pub(super) fn ask(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("authorization", ALICE)
}

pub(super) fn empty() -> UserBody {
    full("")
}

pub(super) fn full(text: &'static str) -> UserBody {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

pub(super) async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The `Status` in a response, as JSON.
pub(super) async fn status(response: Response<Incoming>) -> serde_json::Value {
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-request-id"));
    let code = response.status().as_u16();
    let status: serde_json::Value = serde_json::from_str(&body(response).await).unwrap();
    assert_eq!((&status["kind"], &status["status"]), (&"Status".into(), &"Failure".into()));
    assert_eq!(status["code"], code);
    status
}

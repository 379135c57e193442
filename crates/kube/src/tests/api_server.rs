//! A kube-apiserver for reviews that does as it is told, on loopback.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Config;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{Connection, Webhook};

/// What is answered to every question.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The question with this status.
    Status(Value),
    /// The same, when [`ApiServer::release`] is called.
    Held(Value),
    /// A status code and nothing else.
    Code(u16),
    /// A body as it is.
    Text(&'static str),
    /// A body that does not end.
    Endless,
    /// A body of which a byte comes now and then.
    Trickle,
    /// Less of a body than its head announces, and the end of the connection.
    Truncated,
    /// Nothing at all.
    Silence,
    /// The end of the connection.
    Cut,
}

type Body = BoxBody<Bytes, std::io::Error>;

struct Shared {
    answer: Mutex<Answer>,
    asked: Mutex<Vec<(String, Value)>>,
    changed: Notify,
    released: watch::Sender<bool>,
}

pub(super) struct ApiServer {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    serving: Mutex<JoinSet<()>>,
}

impl ApiServer {
    pub(super) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            asked: Mutex::default(),
            changed: Notify::new(),
            released: watch::Sender::new(false),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, serving: Mutex::new(serving) }
    }

    pub(super) fn connection(&self, timeout: Duration) -> Connection {
        Connection::open(&Config::new(format!("http://{}", self.address).parse().unwrap()), timeout).unwrap()
    }

    pub(super) fn webhook(&self, path: &str, timeout: Duration) -> Webhook {
        Webhook::open(&Config::new(format!("http://{}{path}", self.address).parse().unwrap()), timeout).unwrap()
    }

    pub(super) fn answers(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Every question so far: path and body.
    pub(super) fn asked(&self) -> Vec<(String, Value)> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(super) async fn until_asked(&self, times: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if self.shared.asked.lock().unwrap().len() >= times {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Listens again, where it did before.
    pub(super) async fn start_again(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving.lock().unwrap().spawn(serve(listener, Arc::clone(&self.shared)));
    }

    /// Nobody listens any more, and open connections are cut.
    pub(super) async fn stop(&self) {
        let mut serving = std::mem::take(&mut *self.serving.lock().unwrap());
        serving.shutdown().await;
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _from) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connections.spawn(async move { drop(connection.await) });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    shared.asked.lock().unwrap().push((path, review.clone()));
    shared.changed.notify_waiters();
    let answer = shared.answer.lock().unwrap().clone();
    let full = |text: String| Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed();
    Ok(match answer {
        Answer::Status(status) => {
            review["status"] = status;
            Response::new(full(review.to_string()))
        }
        Answer::Held(status) => {
            shared.released.subscribe().wait_for(|released| *released).await.unwrap();
            review["status"] = status;
            Response::new(full(review.to_string()))
        }
        Answer::Code(code) => {
            let mut response = Response::new(full(String::new()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        }
        Answer::Text(text) => Response::new(full(text.to_owned())),
        Answer::Endless => Response::new(pieces(" ".repeat(64 * 1024), Duration::ZERO)),
        Answer::Trickle => Response::new(pieces(" ".to_owned(), Duration::from_millis(20))),
        Answer::Truncated => {
            let piece = StreamBody::new(futures_util::stream::iter([
                Ok(Frame::data(Bytes::from_static(br#"{"status":{"#))),
                Err(std::io::Error::other("told to")),
            ]));
            let mut response = Response::new(piece.boxed());
            response.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("4096"));
            response
        }
        Answer::Silence => std::future::pending().await,
        Answer::Cut => return Err("told to"),
    })
}

/// The same piece for ever, one each `every`.
fn pieces(piece: String, every: Duration) -> Body {
    let piece = Bytes::from(piece);
    let stream = futures_util::stream::unfold((), move |()| {
        let piece = piece.clone();
        async move {
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(piece)), ()))
        }
    });
    StreamBody::new(stream).boxed()
}

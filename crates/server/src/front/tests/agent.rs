//! An agent that does what the test says: every request that arrives is handed to the test, which answers it.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use moorline_mtls::{GatewayAcceptor, KeyPair};
use moorline_process::Tasks;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::{Notify, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

pub(super) type AgentBody = BoxBody<Bytes, io::Error>;

/// The agent's end of one session.
pub(super) struct Agent {
    arrivals: mpsc::Receiver<Arrival>,
    hangs_up: Arc<Notify>,
    pub(super) session: moorline_mux::Handle,
}

/// A request that came out of the tunnel.
pub(super) struct Arrival {
    /// Which stream it came on.
    pub(super) stream: u32,
    pub(super) request: Request<Incoming>,
    answer: oneshot::Sender<Response<AgentBody>>,
    /// Set when the request was taken back.
    pub(super) gone: CancellationToken,
}

/// A body that the test writes piece by piece. Dropping it ends the body; [`Pieces::cut`] breaks it.
pub(super) struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Agent {
    pub(super) fn start(io: DuplexStream, tasks: &Tasks) -> Self {
        Self::run(io, tasks, None)
    }

    /// One that is a TLS server on each stream and speaks HTTP/2 to whoever offers it, as Calico's Guardian does.
    pub(super) fn guardian(io: DuplexStream, tasks: &Tasks, keys: KeyPair) -> Self {
        Self::run(io, tasks, Some(GatewayAcceptor::new(keys, None).unwrap()))
    }

    fn run(io: DuplexStream, tasks: &Tasks, inner: Option<GatewayAcceptor>) -> Self {
        let config = moorline_mux::Config::new(moorline_mux::Role::Client).build().unwrap();
        let (session, mut incoming, driver) = moorline_mux::session(io, config);
        tasks.spawn("agent-session", driver);
        let (arrived, arrivals) = mpsc::channel(64);
        let hangs_up = Arc::new(Notify::new());
        let (streams, hang_up) = (tasks.clone(), Arc::clone(&hangs_up));
        tasks.spawn("agent-accept", async move {
            while let Some(stream) = incoming.accept().await {
                let (arrived, hang_up, inner) = (arrived.clone(), Arc::clone(&hang_up), inner.clone());
                let (id, tasks) = (stream.id(), streams.clone());
                streams.spawn("agent-stream", async move {
                    let Some(inner) = inner else { return serve(stream, (id, false), arrived, hang_up, tasks).await };
                    let Ok((tls, _nobody)) = inner.accept(stream, Duration::from_secs(10)).await else { return };
                    let h2 = tls.alpn() == Some(b"h2");
                    serve(tls, (id, h2), arrived, hang_up, tasks).await;
                });
            }
        });
        Self { arrivals, hangs_up, session }
    }

    pub(super) async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.unwrap()
    }

    /// Whether a request has arrived that the test has not taken.
    pub(super) fn has_more(&mut self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Drops every stream that there is now, as an agent does that ends idle streams too early.
    pub(super) fn drop_streams(&self) {
        self.hangs_up.notify_waiters();
    }
}

async fn serve<IO>(io: IO, (id, h2): (u32, bool), arrived: mpsc::Sender<Arrival>, hangs_up: Arc<Notify>, tasks: Tasks)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let arrived = arrived.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let gone = CancellationToken::new();
            let watching = gone.clone().drop_guard();
            let arrival = Arrival { stream: id, request, answer, gone };
            arrived.send(arrival).await.unwrap();
            let response = answered.await.unwrap_or_else(|_| Response::new(text("unanswered")));
            watching.disarm();
            Ok::<_, Infallible>(response)
        }
    });
    let serving = async {
        let io = TokioIo::new(io);
        if h2 {
            drop(http2::Builder::new(Requests(tasks)).serve_connection(io, service).await);
        } else {
            let connection = http1::Builder::new().max_headers(4096).serve_connection(io, service);
            drop(connection.with_upgrades().await);
        }
    };
    tokio::select! {
        () = serving => {}
        () = hangs_up.notified() => {}
    }
}

#[derive(Clone)]
struct Requests(Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Requests {
    fn execute(&self, future: F) {
        drop(self.0.spawn("agent-request", future));
    }
}

impl Arrival {
    pub(super) fn path(&self) -> String {
        self.request.uri().to_string()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn answer(self, response: Response<AgentBody>) -> Request<Incoming> {
        drop(self.answer.send(response));
        self.request
    }

    pub(super) fn ok(self, body: &'static str) {
        self.answer(Response::new(text(body)));
    }

    /// Answers with a body that is written later.
    pub(super) fn stream(self, response: http::response::Builder) -> (Pieces, CancellationToken) {
        let (pieces, given) = mpsc::channel(16);
        let body = stream::unfold(given, |mut given| async move {
            let piece: io::Result<Bytes> = given.recv().await?;
            Some((piece.map(Frame::data), given))
        });
        // Dropped with the body: that is how the test hears of a hang-up in the middle.
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let body = StreamBody::new(body).map_frame(move |frame| {
            let _held = &guard;
            frame
        });
        self.answer(response.body(body.boxed()).unwrap());
        (Pieces(pieces), gone)
    }
}

impl Pieces {
    pub(super) async fn send(&self, piece: &'static str) {
        self.0.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
    }

    pub(super) async fn cut(self) {
        self.0.send(Err(io::ErrorKind::ConnectionReset.into())).await.unwrap();
    }
}

pub(super) fn text(text: &'static str) -> AgentBody {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

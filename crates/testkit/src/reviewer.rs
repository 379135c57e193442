//! A scripted kube-apiserver of a management cluster: answers reviews over TLS as it is told, and counts them.
//!
//! For what a real one cannot be made to do: answer late, wrongly or in part, and all well again at once.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::CertifiedKey;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::Refusing;
use crate::kubernetes::{Credential, write_kubeconfig};

/// Tokens that begin with this are good; what follows is the user's name.
pub const GOOD: &str = "good-";

/// Groups that every such user is in.
pub const GROUPS: usize = 50;

type Body = BoxBody<Bytes, io::Error>;

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should: good tokens are known, and everything is allowed.
    Well,
    /// The same, so late.
    Slow(Duration),
    /// Whatever is asked, this status and this body.
    Body(u16, &'static str),
    /// A body that breaks off before its announced end.
    Truncated,
    /// A yes of another kind than was asked for.
    WrongKind,
    /// The connection is cut instead of an answer.
    Cut,
    /// Nobody listens, and no connection is open.
    Down,
}

/// How many of each kind came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// `TokenReview`.
    pub tokens: usize,
    /// `SubjectAccessReview`.
    pub access: usize,
}

/// The server; dropping it ends it.
pub struct Reviewer {
    /// Its address, which stays its own while it is down.
    port: Refusing,
    certificate: String,
    tls: TlsAcceptor,
    state: Arc<State>,
    serving: JoinSet<()>,
}

struct State {
    mood: Mutex<Mood>,
    tokens: AtomicUsize,
    access: AtomicUsize,
}

impl Reviewer {
    /// Starts on a free port of loopback, well.
    ///
    /// # Errors
    /// When no port can be bound, or no certificate made.
    pub async fn start() -> Result<Self> {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let port = Refusing::shared()?;
        let listener = TcpListener::bind(port.address()).await?;
        let state = State { mood: Mutex::new(Mood::Well), tokens: AtomicUsize::new(0), access: AtomicUsize::new(0) };
        let mut reviewer = Self {
            port,
            certificate: cert.pem(),
            tls: TlsAcceptor::from(Arc::new(tls)),
            state: Arc::new(state),
            serving: JoinSet::new(),
        };
        reviewer.serve(listener);
        Ok(reviewer)
    }

    /// Writes a kubeconfig that names it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("reviewer.kubeconfig");
        let url = format!("https://{}", self.port.address());
        write_kubeconfig(&path, &url, &self.certificate, &Credential::Token("the-servers-own-token"))?;
        Ok(path)
    }

    /// From now on it answers so.
    ///
    /// # Errors
    /// When it cannot listen again.
    pub async fn feels(&mut self, mood: Mood) -> Result<()> {
        let down = mood == Mood::Down;
        *self.state.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        if down {
            self.serving.shutdown().await;
        } else if self.serving.is_empty() {
            let listener = TcpListener::bind(self.port.address()).await.context("listening again")?;
            self.serve(listener);
        }
        Ok(())
    }

    /// What came so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        Counts { tokens: count(&self.state.tokens), access: count(&self.state.access) }
    }

    fn serve(&mut self, listener: TcpListener) {
        self.serving.spawn(accept(listener, self.tls.clone(), Arc::clone(&self.state)));
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _peer)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            drop(socket.set_nodelay(true));
            let Ok(stream) = tls.accept(socket).await else { return };
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Body>> {
    let of_token = request.uri().path().ends_with("/tokenreviews");
    let question = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let count = if of_token { &state.tokens } else { &state.access };
    count.fetch_add(1, Ordering::SeqCst);
    let mood = state.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut review: Value = serde_json::from_slice(&question)?;
    review["status"] = status(&review);
    Ok(match mood {
        Mood::Well => respond(StatusCode::CREATED, review.to_string()),
        Mood::Slow(delay) => {
            tokio::time::sleep(delay).await;
            respond(StatusCode::CREATED, review.to_string())
        }
        Mood::Body(code, text) => respond(StatusCode::from_u16(code).map_err(io::Error::other)?, text.to_owned()),
        Mood::WrongKind => {
            review["kind"] = json!("SelfSubjectReview");
            respond(StatusCode::CREATED, review.to_string())
        }
        Mood::Truncated => truncated(&review.to_string()),
        Mood::Cut | Mood::Down => return Err(io::Error::other("cut on purpose")),
    })
}

/// The status of a good answer, to either question.
fn status(review: &Value) -> Value {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    let groups: Vec<String> = (0..GROUPS).map(|number| format!("group-{number}")).collect();
    let user = token.strip_prefix(GOOD).map(|name| json!({ "username": name, "groups": groups }));
    json!({ "authenticated": user.is_some(), "user": user, "allowed": true })
}

fn respond(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn truncated(text: &str) -> Response<Body> {
    let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
    let frames = [Ok(Frame::data(Bytes::from(half))), Err(io::Error::other("cut on purpose"))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, text.len().into());
    response
}

//! The admin door: `/livez`, `/readyz` and `/metrics` over plain HTTP for the kubelet and Prometheus.
//!
//! The composition root binds the listener and spawns [`serve`]. Nothing secret is told here, nothing can be changed
//! here, and a caller that stalls costs one of a few connections for a few seconds.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    metrics::{self, Registry},
    readiness::Readiness,
    shutdown::{Phase, Phases},
    tasks::Tasks,
};

/// How many admin connections are served at once; a few probes and scrapers need no more. One more takes the place of
/// the oldest: a probe must be answered whoever else holds connections, or the kubelet ends a process that is well.
pub const MAX_CONNECTIONS: usize = 32;

/// How long a caller may take to send a request head, and how long a kept connection may idle between requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after the operating system refused to accept (no file descriptors left, most often).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// What the admin door shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Rendered under `/metrics`.
    pub registry: Registry,
    /// Shown under `/readyz`.
    pub readiness: Readiness,
    /// `/readyz` says no from [`Phase::NotReady`] on; the door itself closes with [`Phase::Cancelled`].
    pub phases: Phases,
    /// Where connections run.
    pub tasks: Tasks,
}

/// Answers probes and scrapes until the process is cancelled. To be spawned by the caller.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    let admin = Arc::new(admin);
    while let Some(stream) = accept(&listener, &admin.phases).await {
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(admin.tasks.spawn("admin-connection", connection(stream, Arc::clone(&admin))));
    }
}

/// The next connection, or `None` when the process is cancelled.
async fn accept(listener: &TcpListener, phases: &Phases) -> Option<TcpStream> {
    let next = async {
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin door");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = next => Some(accepted),
        () = phases.cancelled() => None,
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>) {
    let phases = admin.phases.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &admin);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = serving => ended,
        () = phases.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn respond<B>(request: &Request<B>, admin: &Admin) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(admin, wants_list(request.uri().query())),
        "/metrics" => {
            let mut response = text(StatusCode::OK, admin.registry.render());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "not found: try /livez, /readyz?verbose or /metrics\n"),
    }
}

fn wants_list(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")))
}

/// In the manner of kube-apiserver: a line for each check when asked for, or when one of them says no.
fn ready(admin: &Admin, list: bool) -> Response<Full<Bytes>> {
    let states = admin.readiness.states();
    let phase = admin.phases.current();
    let ready = phase == Phase::Serving && states.iter().all(|check| check.unready.is_none());
    if ready && !list {
        return text(StatusCode::OK, "ok\n");
    }
    let shutdown = (phase != Phase::Serving).then(|| phase.as_str());
    let checks = states.iter().map(|check| (check.name, check.unready.as_deref()));
    let all = std::iter::once(("shutdown", shutdown)).chain(checks);
    let mut lines: String = all
        .map(|(name, unready)| match unready {
            None => format!("[+]{name} ok\n"),
            Some(reason) => format!("[-]{name} failed: {reason}\n"),
        })
        .collect();
    lines.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
    text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

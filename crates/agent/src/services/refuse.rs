//! Why a caller does not get a service, and how they are told.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_model::{Reason as Word, Status};
use moorline_mux::OpenError;
use thiserror::Error;

use super::caller::Caller;
use crate::standing::Reason;

/// What a caller who came at a bad moment is told to wait, in seconds.
const RETRY_AFTER: u32 = 5;

/// Bytes of a request's head that are read before the answer.
const MAX_HEAD: usize = 16 * 1024;

/// From the first byte of a request to its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a caller does not get the service.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The management cluster is out of reach.
    #[error("this cluster's agent has no session with the management cluster{}", because(.0.as_ref()))]
    NoSession(Option<Reason>),
    /// Too many are carried already.
    #[error("this cluster's agent carries as many connections to this service as it may")]
    TooMany,
    /// There is a session, and it takes no streams.
    #[error("the session with the management cluster takes no more streams")]
    Open(#[source] OpenError),
    /// The stream broke, alone or with its session.
    #[error("the stream to the management cluster broke off")]
    Lost(#[source] hyper::Error),
    /// The server does not answer.
    #[error("the management cluster did not answer within {0:?}")]
    Silent(Duration),
    /// The server answered what it should not.
    #[error("{0}")]
    Strange(&'static str),
    /// The server's word.
    #[error("{} {}", .0.code, .0.message.escape_debug())]
    Server(Status),
}

impl Refusal {
    /// As a label of metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::NoSession(_) => "no-session",
            Self::TooMany => "too-many",
            Self::Open(_) => "no-stream",
            Self::Lost(_) => "broken-off",
            Self::Silent(_) => "timeout",
            Self::Strange(_) => "strange-answer",
            Self::Server(status) => match status.code {
                403 | 404 => "refused-unknown",
                429 => "refused-busy",
                502 => "refused-upstream",
                504 => "refused-upstream-timeout",
                _other => "refused",
            },
        }
    }

    /// Whether another session may do better.
    pub(super) fn may_pass_elsewhere(&self) -> bool {
        match self {
            Self::Open(_) | Self::Lost(_) => true,
            // A server that is about to stop.
            Self::Server(status) => status.code == 503,
            Self::NoSession(_) | Self::TooMany | Self::Silent(_) | Self::Strange(_) => false,
        }
    }

    fn into_status(self) -> Status {
        let text = self.to_string();
        match self {
            Self::Server(status) => status,
            Self::Silent(_) => Status::failure(504, Word::Timeout, text),
            Self::Strange(_) => Status::failure(502, Word::BadGateway, text),
            Self::NoSession(_) | Self::TooMany | Self::Open(_) | Self::Lost(_) => {
                Status::failure(503, Word::ServiceUnavailable, text).retry_after(RETRY_AFTER)
            }
        }
    }
}

/// Answers the first request of a caller who speaks HTTP, whatever it is, and hangs up.
pub(super) async fn answer(mut caller: Caller, refusal: Refusal) {
    let response = response(&refusal.into_status());
    let answering = service_fn(|_request| {
        let response = response.clone();
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(caller.stream()), answering)
        .without_shutdown();
    // What is no HTTP has had an answer as well.
    if tokio::time::timeout(PATIENCE, connection).await.is_ok() {
        caller.hang_up().await;
    }
}

fn response(status: &Status) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(status.to_json())));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn because(reason: Option<&Reason>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({})", reason.as_str()))
}

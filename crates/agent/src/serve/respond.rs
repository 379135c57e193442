//! Every answer leaves through here: the kube-apiserver's own, cleaned; and ours, as a Kubernetes `Status`.
//!
//! Last step of a request's way. The table in [`Refusal`] is the only place that turns a cause into a status code, a
//! failure for the server, a log level and a text.

use std::{
    fmt::Display,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use moorline_impersonation::{ApplyError, Narrowed};
use moorline_model::Status;
use moorline_mux::Pace;
use moorline_wire::{AgentStatus, Denial, Failure, IdentityError, Kind, Verdict, headers, probe};
use thiserror::Error;

use super::{
    Running,
    upstream::{ResponseBody, UpstreamError},
};

/// What a caller who came at a bad moment is told to wait, in seconds. client-go then tries again by itself.
const RETRY_AFTER: u32 = 1;

/// Why the agent answers by itself.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The request names something that the agent does not do.
    #[error("{0}")]
    Target(&'static str),
    /// No identity that can be believed.
    #[error("the request has no valid identity")]
    Identity(#[source] IdentityError),
    /// This cluster's own configuration forbids it.
    #[error("this cluster's agent does not let the management side act as this identity: {0}")]
    Narrowed(Narrowed),
    /// The identity cannot be put into headers.
    #[error("the identity cannot be passed on")]
    Impersonation(#[source] ApplyError),
    /// As many requests run as may.
    #[error("the cluster's agent runs as many requests as it may; try again in a moment")]
    Overloaded,
    /// The agent is on its way out and takes nothing new.
    #[error("the cluster's agent is shutting down; try again in a moment")]
    ShuttingDown,
    /// The kube-apiserver switched protocols unasked.
    #[error("the kube-apiserver switched protocols without being asked")]
    UnaskedSwitch,
    /// The kube-apiserver did not answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Refusal {
    /// What the server is told, for its own table and metrics.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Target(_) => Failure::BadRequest,
            Self::Identity(_) => Failure::IdentityMissing,
            Self::Narrowed(_) | Self::Impersonation(_) => Failure::IdentityDenied,
            Self::Overloaded => Failure::Overloaded,
            Self::ShuttingDown => Failure::ShuttingDown,
            Self::UnaskedSwitch => Failure::UpstreamBroken,
            Self::Upstream(error) => error.failure(),
        }
    }

    /// Which rule of this cluster it met.
    fn denial(&self) -> Option<Denial> {
        let Self::Narrowed(narrowed) = self else { return None };
        let (verdict, kind, name) = match narrowed {
            Narrowed::Denied { kind, rule } => (Verdict::Denied, kind, rule),
            Narrowed::NotAllowed { kind, name } => (Verdict::NotAllowed, kind, name),
            Narrowed::Taken { kind, name } => (Verdict::Taken, kind, name),
            Narrowed::Unmapped(_) | _ => return None,
        };
        let kind = if *kind == "group" { Kind::Group } else { Kind::User };
        Some(Denial::new(verdict, kind, name))
    }

    fn status(&self) -> Status {
        let reason = self.failure().reason();
        let status = Status::failure(reason.code(), reason, self.to_string());
        if self.is_passing() { status.retry_after(RETRY_AFTER) } else { status }
    }

    /// Whether it is likely to be over soon.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Overloaded | Self::ShuttingDown)
    }

    /// One line for operators of the managed cluster. Warnings are what somebody here or there must repair.
    pub(super) fn log(&self, request_id: &impl Display) {
        match self {
            Self::Target(_) | Self::Identity(_) | Self::Impersonation(_) | Self::UnaskedSwitch => {
                tracing::warn!(%request_id, reason = %Chain(self), "request refused: the server should not have sent it");
            }
            Self::Narrowed(_) => tracing::info!(%request_id, reason = %self, "request refused"),
            Self::Overloaded | Self::ShuttingDown => tracing::info!(%request_id, reason = %self, "request refused"),
            Self::Upstream(_) => {
                tracing::warn!(%request_id, reason = %Chain(self), "no answer from the kube-apiserver")
            }
        }
    }

    /// The answer. A request that should never have come ends its stream as well.
    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let status = self.status();
        let mut response = Response::new(AnswerBody::text(status.to_json()));
        *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        headers.insert(headers::FAILURE, self.failure().header_value());
        if let Some(denial) = self.denial() {
            headers.insert(headers::DENIAL, denial.header_value());
        }
        if self.is_passing() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        if matches!(self, Self::Target(_) | Self::Identity(_) | Self::ShuttingDown) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The kube-apiserver's answer, without what belongs to its connection or to our protocol.
pub(super) fn from_upstream(
    mut response: Response<ResponseBody>,
    running: Running,
    pace: &Arc<Pace>,
) -> Response<AnswerBody> {
    *response.version_mut() = Version::HTTP_11;
    clean(response.headers_mut());
    remove_hop_by_hop(response.headers_mut());
    let pace = Arc::clone(pace);
    response.map(|body| AnswerBody(Inner::Upstream { body, pace, _running: running }))
}

/// The answer to the server's own probe: nothing of what the kube-apiserver said, only whether it did.
pub(super) fn to_probe(failure: Option<String>) -> Response<AnswerBody> {
    let status = AgentStatus {
        upstream_ok: failure.is_none(),
        upstream_reason: failure,
        kubernetes_version: None,
        cluster_uid: None,
    };
    let mut response = Response::new(AnswerBody::text(probe::write_answer(&status)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Each comes on a stream of its own: that one can be opened is part of the question.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The kube-apiserver's `101`.
pub(super) fn switched(response: Response<()>) -> Response<AnswerBody> {
    let mut response = response.map(|()| AnswerBody(Inner::Text(None)));
    clean(response.headers_mut());
    response
}

/// Removes what only we may say, or what no user should see.
fn clean(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            // The last is the agent's own token, where something reflects requests.
            headers::is_ours(name) || name.as_str().starts_with("impersonate-") || *name == header::AUTHORIZATION
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Removes what was said about the connection to the kube-apiserver. `Trailer` stays: trailers are passed on.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const NAMES: [HeaderName; 6] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in listed(headers) {
        headers.remove(name);
    }
    for name in NAMES {
        headers.remove(name);
    }
}

fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// The body of an answer.
pub(crate) struct AnswerBody(Inner);

enum Inner {
    Upstream { body: ResponseBody, pace: Arc<Pace>, _running: Running },
    Text(Option<Bytes>),
}

impl AnswerBody {
    fn text(text: Vec<u8>) -> Self {
        Self(Inner::Text(Some(text.into())))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Inner::Upstream { body, pace, .. } => {
                ready!(pace.poll_ready(cx));
                let polled = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled
                    && let Some(data) = frame.data_ref()
                {
                    pace.gave(data.len());
                }
                polled
            }
            Inner::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Upstream { body, .. } => body.is_end_stream(),
            Inner::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Upstream { body, .. } => body.size_hint(),
            Inner::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

/// An error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(self.0, f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

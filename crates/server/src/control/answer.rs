//! What the management API answers with: JSON, or a Kubernetes `Status` for whatever failed.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use moorline_model::{ClusterName, Reason, Status};
use serde::{Serialize, de::DeserializeOwned};

use super::RESOURCE;
use crate::audit::Refusal;

/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// When to ask again for what is not to be had at present.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The outcome of a handler.
pub(super) type Answer<T> = Result<T, Failure>;

/// A failure, as the caller reads it.
#[derive(Debug)]
pub(super) struct Failure(Box<Status>);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl Failure {
    /// There is no such cluster.
    pub(super) fn not_found(group: &str, name: &str) -> Self {
        let text = if name == ClusterName::MANAGEMENT {
            "the management cluster itself is not configured as a target of this server".to_owned()
        } else {
            format!("{RESOURCE}.{group} {name:?} not found")
        };
        Self::from(Status::failure(404, Reason::NotFound, text).about(group, RESOURCE, name))
    }

    /// The object that was sent is understood and not allowed.
    pub(super) fn invalid(group: &str, name: &str, field: &str, value: &str, why: &str) -> Self {
        let text = format!("ManagedCluster.{group} {name:?} is invalid: {field}: Invalid value: {value:?}: {why}");
        let cause = format!("Invalid value: {value:?}: {why}");
        Self::from(Status::failure(422, Reason::Invalid, text).about(group, RESOURCE, name).because(
            field,
            "FieldValueInvalid",
            &cause,
        ))
    }

    /// What was sent cannot be read.
    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::from(Status::failure(400, Reason::BadRequest, why))
    }

    /// What this needs is not to be had at present. The cause goes to the log, not to the caller.
    pub(super) fn unavailable(what: &'static str, error: &dyn std::error::Error) -> Self {
        tracing::warn!(%error, "the management API cannot {what} now");
        let text = format!("the server cannot {what} now; try again later");
        Self::from(Status::failure(503, Reason::ServiceUnavailable, text).retry_after(RETRY_AFTER_SECONDS))
    }

    /// Something here is broken. The cause goes to the log, not to the caller.
    pub(super) fn internal(what: &'static str, error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "the management API cannot {what}");
        Self::from(Status::failure(500, Reason::InternalError, format!("the server cannot {what}; its log says why")))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = self.0.details.as_ref().and_then(|details| details.retry_after_seconds);
        let mut response = json(code, &self.0);
        // For the audit event; taken out before the response leaves.
        let Status { reason, message, .. } = *self.0;
        response.extensions_mut().insert(Refusal { cause: "", reason, message });
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON body that nobody may keep: some of them hold a key.
pub(super) fn json<T: Serialize>(code: StatusCode, body: &T) -> Response {
    let mut response = (code, axum::Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The JSON of a request's body; `what` is what it should be.
///
/// # Errors
/// It is too large, too slow, or something else.
pub(super) async fn receive<T: DeserializeOwned>(body: Body, most: usize, what: &str) -> Answer<T> {
    let reading = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, most)).await;
    let body = reading.ok().and_then(Result::ok).ok_or_else(|| {
        let why = format!("the request body could not be read within {BODY_TIMEOUT:?}, or has more than {most} bytes");
        Failure::from(Status::failure(413, Reason::RequestEntityTooLarge, why))
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("the request body is not a {what}: {error}")))
}

/// Counts every answer.
pub(super) async fn count(State(state): State<Arc<crate::state::State>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    state.metrics.controlled(match response.status().as_u16() {
        200..=299 => "ok",
        401 | 403 => "denied",
        500..=599 => "failed",
        _ => "refused",
    });
    response
}

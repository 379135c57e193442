//! The shapes in which the demo answers: JSON, text, streams, and a Kubernetes `Status` for everything that fails.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

/// The body of every answer. It cannot fail: what ends early simply ends.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

const JSON: &str = "application/json";

/// Why a request got no answer of its own: becomes a `Status`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, reason: "BadRequest", message: message.into() }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self { code: StatusCode::FORBIDDEN, reason: "Forbidden", message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: StatusCode::NOT_FOUND, reason: "NotFound", message: message.into() }
    }

    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { code: StatusCode::METHOD_NOT_ALLOWED, reason: "MethodNotAllowed", message: message.into() }
    }

    pub(crate) fn not_acceptable() -> Self {
        Self {
            code: StatusCode::NOT_ACCEPTABLE,
            reason: "NotAcceptable",
            message: "only the following media types are accepted: application/json".to_owned(),
        }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self {
            code: StatusCode::PAYLOAD_TOO_LARGE,
            reason: "RequestEntityTooLarge",
            message: format!("the Moorline demo takes bodies of at most {limit} bytes"),
        }
    }

    /// The watch cannot begin at that version: list again.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self {
            code: StatusCode::GONE,
            reason: "Expired",
            message: format!("too old resource version: {asked} ({oldest})"),
        }
    }

    pub(crate) fn to_status(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        })
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        json_with(self.code, &self.to_status(), JSON)
    }
}

pub(crate) fn json(value: &Value) -> Response<Body> {
    json_with(StatusCode::OK, value, JSON)
}

pub(crate) fn created(value: &Value) -> Response<Body> {
    json_with(StatusCode::CREATED, value, JSON)
}

pub(crate) fn json_as(value: &Value, content_type: &'static str) -> Response<Body> {
    json_with(StatusCode::OK, value, content_type)
}

pub(crate) fn text(text: &'static str) -> Response<Body> {
    respond(StatusCode::OK, "text/plain; charset=utf-8", Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync())
}

/// An answer that goes on until `chunks` ends.
pub(crate) fn stream(content_type: &'static str, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    respond(StatusCode::OK, content_type, StreamBody::new(frames).boxed_unsync())
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

fn json_with(code: StatusCode, value: &Value, content_type: &'static str) -> Response<Body> {
    respond(code, content_type, Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn respond(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

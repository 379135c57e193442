//! One request of the agent's own. Made by [`super::Client`] only; sent by `serve::upstream`, which adds the token.

use http::{HeaderValue, Method, Request, Uri, header};
use serde::Serialize;

use super::CallError;
use crate::serve::upstream::RequestBody;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");

/// A request that runs as the agent itself.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    /// Path and query, of this module's own words and of checked names.
    path: String,
    body: Option<(HeaderValue, Vec<u8>)>,
    /// About objects, which come in several encodings.
    objects: bool,
}

impl Call {
    pub(super) fn probe(path: &'static str) -> Self {
        Self { objects: false, ..Self::new(Method::GET, path.to_owned()) }
    }

    pub(super) fn new(method: Method, path: String) -> Self {
        Self { method, path, body: None, objects: true }
    }

    pub(super) fn json(self, value: &impl Serialize) -> Result<Self, CallError> {
        self.with_body(JSON, value)
    }

    pub(super) fn merge_patch(self, value: &impl Serialize) -> Result<Self, CallError> {
        self.with_body(MERGE_PATCH, value)
    }

    /// What is asked, for errors: never a body, never a query.
    pub(super) fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        if self.method == Method::GET { path.to_owned() } else { format!("{} {path}", self.method) }
    }

    /// As it is sent, but for `Host` and the token.
    pub(crate) fn into_request(self) -> Request<RequestBody> {
        let (content, body) = match self.body {
            None => (None, RequestBody::empty()),
            Some((content, bytes)) => (Some(content), RequestBody::own(bytes.into())),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        // Made of constant words and of names that hold nothing that a path could not.
        *request.uri_mut() = Uri::try_from(self.path).unwrap_or_default();
        if self.objects {
            request.headers_mut().insert(header::ACCEPT, JSON);
        }
        if let Some(content) = content {
            request.headers_mut().insert(header::CONTENT_TYPE, content);
        }
        request
    }

    fn with_body(mut self, content: HeaderValue, value: &impl Serialize) -> Result<Self, CallError> {
        let bytes = serde_json::to_vec(value).map_err(|error| CallError::Unreadable(self.what(), error))?;
        self.body = Some((content, bytes));
        Ok(self)
    }
}

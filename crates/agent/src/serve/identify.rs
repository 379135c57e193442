//! Who asks: exactly one valid identity header, on a request that means what it says.
//!
//! First step of a request's way. The identity was put there by the server; a user cannot set it, since the server
//! removes such headers. Nothing of it is believed that does not pass the checks of `model`.

use http::{Method, Request, header};
use hyper::body::Incoming;
use moorline_model::{Identity, RequestId};
use moorline_wire::headers;

use super::respond::Refusal;

/// A request that came down a stream. Nothing is known about it.
pub(super) struct Arrived {
    request: Request<Incoming>,
    request_id: Option<RequestId>,
}

/// A request with the user who sends it.
pub(super) struct Identified {
    request: Request<Incoming>,
    request_id: Option<RequestId>,
    identity: Identity,
}

impl Arrived {
    pub(super) fn new(request: Request<Incoming>) -> Self {
        let request_id = request.headers().get(headers::REQUEST_ID).and_then(|id| id.to_str().ok()?.parse().ok());
        Self { request, request_id }
    }

    pub(super) fn request_id(&self) -> Option<RequestId> {
        self.request_id
    }

    /// Finds the user.
    ///
    /// # Errors
    /// When the request names another target than a path of the kube-apiserver, or its identity is missing, doubled or
    /// malformed.
    pub(super) fn identify(mut self) -> Result<Identified, Refusal> {
        check_target(&self.request)?;
        // Whatever hyper decided on its framing, only one word on it may travel on.
        if self.request.headers().contains_key(header::TRANSFER_ENCODING) {
            self.request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let identity = moorline_wire::read_identity(self.request.headers()).map_err(Refusal::Identity)?;
        Ok(Identified { request: self.request, request_id: self.request_id, identity })
    }
}

impl Identified {
    pub(super) fn into_parts(self) -> (Request<Incoming>, Option<RequestId>, Identity) {
        (self.request, self.request_id, self.identity)
    }
}

/// The agent dials one place only, so a request may not name another: origin form it must be.
fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(Refusal::Target("the agent opens no tunnels (CONNECT)"));
    }
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        return Err(Refusal::Target("the agent takes a path, not a whole URL"));
    }
    if !request.uri().path().starts_with('/') {
        return Err(Refusal::Target("the path does not begin with a slash"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_targets() {
        let check = |method: &str, uri: &str| {
            check_target(&Request::builder().method(method).uri(uri).body(()).unwrap()).is_ok()
        };
        assert!(check("GET", "/api/v1/pods?watch=true"));
        assert!(check("GET", "//api//v1"), "passed on as it is; the kube-apiserver decides");
        assert!(!check("GET", "http://169.254.169.254/latest/meta-data"));
        assert!(!check("CONNECT", "kubernetes.default:443"));
        assert!(!check("GET", "kubernetes.default:443"));
        assert!(!check("OPTIONS", "*"));
    }
}

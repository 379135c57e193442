//! The server's question whether a session carries requests to its cluster's kube-apiserver and their answers back.
//!
//! It comes as every request does, on a stream that the server opens, and is the only one that names no user: the agent
//! asks its kube-apiserver what it asks by itself again and again, and answers with nothing but the outcome. No request of
//! a user can become one, since each of those names its user.

use http::Method;

use crate::{AgentStatus, headers};

/// The word in the capabilities of a hello: this agent answers probes.
pub const CAPABILITY: &str = "probe";

/// The path of a probe. Kubernetes has nothing there.
pub const PATH: &str = "/.moorline/probe";

/// Bytes of an answer.
pub const MAX_ANSWER: usize = 8 * 1024;

/// Whether a request is a probe: exactly its path, and nobody's.
#[must_use]
pub fn is_probe<B>(request: &http::Request<B>) -> bool {
    let uri = request.uri();
    *request.method() == Method::GET
        && uri.path() == PATH
        && uri.query().is_none()
        && uri.authority().is_none()
        && !request.headers().contains_key(headers::IDENTITY)
}

/// The body of an answer: what the agent found out. Too long a reason is cut.
#[must_use]
#[expect(clippy::expect_used, reason = "plain data, whose texts are cut to a limit as they are written")]
pub fn write_answer(status: &AgentStatus) -> Vec<u8> {
    serde_json::to_vec(status).expect("a status is plain data")
}

/// The answer in such a body; none where it is something else.
#[must_use]
pub fn read_answer(body: &[u8]) -> Option<AgentStatus> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn only_a_request_of_nobody_to_exactly_this_path_is_a_probe() {
        let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri).body(()).unwrap();
        assert!(is_probe(&request("GET", PATH)));
        for (method, uri) in [
            ("POST", PATH),
            ("GET", "/.moorline/probe?x"),
            ("GET", "/.moorline/probe/"),
            ("GET", "//.moorline/probe"),
            ("GET", "/readyz"),
            ("GET", "http://elsewhere/.moorline/probe"),
        ] {
            assert!(!is_probe(&request(method, uri)), "{method} {uri}");
        }
        let mut of_somebody = request("GET", PATH);
        of_somebody.headers_mut().insert(headers::IDENTITY, HeaderValue::from_static("x"));
        assert!(!is_probe(&of_somebody));
    }

    #[test]
    fn an_answer_comes_back_and_is_short() {
        let status = AgentStatus {
            upstream_ok: false,
            upstream_reason: Some("\u{1}".repeat(10_000)),
            kubernetes_version: None,
            cluster_uid: None,
        };
        let body = write_answer(&status);
        assert!(body.len() <= MAX_ANSWER, "{}", body.len());
        assert_eq!(read_answer(&body).unwrap().upstream_reason.unwrap().len(), crate::limits::TEXT);
        assert_eq!(read_answer(b"fine"), None);
        assert!(read_answer(br#"{"upstream_ok":true,"later":1}"#).unwrap().upstream_ok);
    }
}

//! Makes a request its user's: narrowed, stripped of everything the user or the server may have put there, impersonated.
//!
//! Second step of a request's way. Impersonation fails open in Kubernetes: a request without `Impersonate-User` runs as
//! the agent itself. So [`Impersonated`] is the only thing that `upstream` forwards, and this is the only place that
//! makes one. The agent's own token is added by `upstream`, after everything else.

use http::{HeaderName, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use moorline_impersonation::Narrowing;

use super::{identify::Identified, respond::Refusal, upstream::RequestBody};

/// Kubernetes' own request id: kube-apiserver takes the caller's for its audit log, where it can then be found by the
/// id that the server's audit log holds.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A request that runs as its user, and as nobody else, at the kube-apiserver.
pub(super) struct Impersonated {
    request: Request<RequestBody>,
    switching: Option<OnUpgrade>,
    upgrade: bool,
}

impl Identified {
    /// Rewrites the request.
    ///
    /// # Errors
    /// When this cluster does not let the server act as that user, or the identity cannot be written.
    pub(super) fn impersonate(self, narrowing: &Narrowing) -> Result<Impersonated, Refusal> {
        let (mut request, request_id, identity) = self.into_parts();
        narrowing.check(&identity).map_err(Refusal::Narrowed)?;
        let headers = request.headers_mut();
        moorline_impersonation::apply(headers, &identity).map_err(Refusal::Impersonation)?;
        // hyper has answered it where it had to be.
        headers.remove(header::EXPECT);
        // What is left of it is an upgrade that may pass.
        let upgrade = headers.contains_key(header::UPGRADE);
        if let Some(id) = request_id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            headers.insert(AUDIT_ID, id);
        }
        let switching = upgrade.then(|| hyper::upgrade::on(&mut request));
        Ok(Impersonated { request: request.map(RequestBody::from), switching, upgrade })
    }
}

impl Impersonated {
    /// The tunnel's side of an upgrade, if one is asked for. Once.
    pub(super) fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        self.switching.take()
    }

    /// Whether an upgrade is asked for.
    pub(super) fn upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether the kube-apiserver may rightly keep silent for long before it answers.
    pub(super) fn answers_late(&self) -> bool {
        self.upgrade || answers_late(self.request.uri().path(), self.request.uri().query())
    }

    /// Whether the kube-apiserver passes the request on to something whose own refusals look like its own.
    pub(super) fn is_proxied(&self) -> bool {
        self.request.uri().path().split('/').any(|segment| segment == "proxy")
    }

    pub(super) fn into_request(self) -> Request<RequestBody> {
        self.request
    }
}

/// What kube-apiserver itself exempts from its request timeout: watches, `proxy`, `exec`, `attach`, `portforward`, `log`.
/// A log that is followed has no head before its first line. Read generously: a mistake costs a deadline, no more.
fn answers_late(path: &str, query: Option<&str>) -> bool {
    let late_segment =
        |segment| matches!(segment, "watch" | "proxy" | "exec" | "attach" | "portforward" | "log" | "logs");
    path.split('/').any(late_segment)
        || query.is_some_and(|query| {
            query.split('&').any(|pair| pair.starts_with("watch=") || pair == "watch" || pair.starts_with("follow="))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_answer_late() {
        for (path, query, late) in [
            ("/api/v1/pods", None, false),
            ("/api/v1/pods", Some("limit=500"), false),
            ("/api/v1/pods", Some("watch=true"), true),
            ("/api/v1/pods", Some("limit=1&watch=1"), true),
            ("/api/v1/watch/pods", None, true),
            ("/api/v1/namespaces/a/pods/b/log", Some("follow=true"), true),
            ("/api/v1/namespaces/a/services/b:80/proxy/x", None, true),
            ("/api/v1/namespaces/a/pods/b/exec", Some("command=ls"), true),
            ("/api/v1/namespaces/a/configmaps/watchful", None, false),
        ] {
            assert_eq!(answers_late(path, query), late, "{path} {query:?}");
        }
    }
}

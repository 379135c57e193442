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
        let identity = narrowing.admit(identity).map_err(Refusal::Narrowed)?;
        let headers = request.headers_mut();
        moorline_impersonation::apply(headers, &identity).map_err(Refusal::Impersonation)?;
        // hyper has answered it where it had to be.
        headers.remove(header::EXPECT);
        // What is left of it is an upgrade that may pass.
        let upgrade = headers.contains_key(header::UPGRADE);
        if let Some(id) = request_id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            headers.try_insert(AUDIT_ID, id).map_err(|full| Refusal::Impersonation(full.into()))?;
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

    /// Whether the kube-apiserver may rightly keep silent for long before it answers. An upgrade it answers at once, or
    /// when the kubelet has.
    pub(super) fn answers_late(&self) -> bool {
        !self.upgrade && moorline_wire::may_take_long(self.request.uri().path(), self.request.uri().query())
    }

    /// Whether the kube-apiserver passes the request on to something whose own refusals look like its own.
    pub(super) fn is_proxied(&self) -> bool {
        self.request.uri().path().split('/').any(|segment| segment == "proxy")
    }

    pub(super) fn into_request(self) -> Request<RequestBody> {
        self.request
    }
}

//! A request as Guardian gets it: from whom it is, said by us, and a path that it passes on.
//!
//! Called by `forward`, and by the probe of a session for the one request that is its own. Impersonation fails open in
//! Kubernetes: without a user a request runs as Guardian's own service account. So nothing else in this crate makes
//! requests for Guardian, and [`impersonation::apply`](moorline_impersonation::apply) removes before it writes.

use std::sync::LazyLock;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use moorline_impersonation::{Narrowed, Narrowing};
use moorline_model::Identity;
use moorline_wire::Failure;
use thiserror::Error;

use super::openapi::{self, Document};
use crate::front::{body::RequestBody, forward::Outgoing, request::CLUSTER_HEADER};

/// The name by which a request calls its host: Guardian passes it on, and kube-apiserver looks at it nowhere.
const HOST: &str = "kubernetes.default.svc";

/// Kubernetes' own request id: kube-apiserver takes the caller's for its audit log, and says it in its answers.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The service account that Calico's operator gives Guardian. Whoever acted as it could read what it may read.
const OWN_ACCOUNT: &str = "system:serviceaccount:calico-system:guardian";

/// Whom nobody acts as where Guardian is the agent, which narrows nothing by itself: the same as where ours is and was
/// told nothing. The cluster's owner narrows further by the roles of Guardian's account.
static NARROWING: LazyLock<Narrowing> = LazyLock::new(|| {
    let mut narrowing = Narrowing::default();
    narrowing.deny_users.push(OWN_ACCOUNT.to_owned());
    narrowing
});

/// Why a request cannot go to Guardian.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// It passes on other paths.
    #[error("its agent is Calico's Guardian, which passes on /api and /apis only")]
    Path,
    /// It would be redirected, to a place that is not under this cluster's path here.
    #[error("its agent is Calico's Guardian, which does not pass on paths with empty segments, \".\" or \"..\"")]
    Unclean,
    /// It cannot be switched: Go's client asks kube-apiserver over HTTP/2 for whatever is no WebSocket.
    #[error(
        "its agent is Calico's Guardian, through which connections are switched to WebSocket and nothing else: use kubectl \
         1.31 or newer. If this one is, its WebSocket was refused before it came back with SPDY: see whether you may, as \
         by kubectl auth can-i create pods/exec"
    )]
    NotWebSocket,
    /// It cannot be switched.
    #[error("its agent is Calico's Guardian, through which a request with a body cannot be upgraded")]
    UpgradeWithBody,
    /// Nobody acts as this user, or this group, there.
    #[error("{0}")]
    Identity(String),
    /// There are more headers than can be.
    #[error("the request has too many headers")]
    TooManyHeaders,
}

/// A request as Guardian gets it.
pub(in crate::front) struct Prepared {
    /// The user's, and nobody else's.
    pub(in crate::front) request: Request<RequestBody>,
    /// The upgrade that it asks for.
    pub(in crate::front) asks: Option<(HeaderValue, OnUpgrade)>,
    /// What its answer is to be turned into.
    pub(in crate::front) instead: Option<Document>,
}

/// Makes a request the user's.
///
/// # Errors
/// [`Refused`]; the request goes nowhere.
pub(in crate::front) fn prepare(outgoing: Outgoing, identity: &Identity) -> Result<Prepared, Refused> {
    let Outgoing { mut request, path, request_id, progress } = outgoing;
    let found = openapi::wanted(path.path()).filter(|_| *request.method() == Method::GET);
    let (path, instead) = match found {
        Some((document, discovery)) => (discovery.parse().map_err(|_invalid| Refused::Path)?, Some(document)),
        None => (passed(&path)?, None),
    };
    let headers = request.headers_mut();
    headers.remove(CLUSTER_HEADER);
    impersonate(headers, identity)?;
    headers.try_insert(AUDIT_ID, request_id).map_err(|_full| Refused::TooManyHeaders)?;
    if instead.is_some() {
        for of_another_document in [header::ACCEPT_ENCODING, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
            headers.remove(of_another_document);
        }
        let json = HeaderValue::from_static("application/json");
        headers.try_insert(header::ACCEPT, json).map_err(|_full| Refused::TooManyHeaders)?;
    }
    // What `strip` leaves is an upgrade to a protocol that may pass.
    let protocol = headers.get(header::UPGRADE).cloned();
    if let Some(protocol) = &protocol {
        if !protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
            return Err(Refused::NotWebSocket);
        }
        if !request.body().is_end_stream() {
            return Err(Refused::UpgradeWithBody);
        }
    }
    let asks = protocol.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
    let (mut head, incoming) = request.into_parts();
    head.uri = Uri::from(path);
    head.extensions.clear();
    let body = RequestBody::new(incoming, progress);
    Ok(Prepared { request: Request::from_parts(head, body), asks, instead })
}

/// What kube-apiserver answered was about the agent, which the user cannot know: none where it is the answer to the user.
pub(in crate::front) fn failure_of(response: &Response<Incoming>, proxied: bool) -> Option<Failure> {
    // An answer of kube-apiserver always has an id.
    let own = !response.headers().contains_key(AUDIT_ID);
    match response.status() {
        StatusCode::UNAUTHORIZED if !proxied => Some(Failure::UpstreamCredential),
        // Go's reverse proxy says no more than that.
        StatusCode::BAD_GATEWAY if own && response.body().is_end_stream() => Some(Failure::UpstreamRefused),
        _ => None,
    }
}

/// The one request that is nobody's: whether requests get through. It is made as the user of Kubernetes who has no
/// rights, so that it needs no more than the right to impersonate, and shows whether Guardian has that.
///
/// # Errors
/// None that happens.
pub(crate) fn question() -> Result<Request<http_body_util::Empty<bytes::Bytes>>, Refused> {
    let mut request = Request::new(http_body_util::Empty::new());
    let nobody = Identity::new("system:anonymous").and_then(|nobody| nobody.with_groups(["system:unauthenticated"]));
    let nobody = nobody.map_err(|error| Refused::Identity(error.to_string()))?;
    moorline_impersonation::apply(request.headers_mut(), &nobody).map_err(|_full| Refused::TooManyHeaders)?;
    *request.uri_mut() = Uri::from_static("/api/");
    for_http1(&mut request);
    Ok(request)
}

fn impersonate(headers: &mut HeaderMap, identity: &Identity) -> Result<(), Refused> {
    let identity = NARROWING.admit(identity.clone()).map_err(|narrowed| Refused::Identity(words(&narrowed)))?;
    moorline_impersonation::apply(headers, &identity).map_err(|_full| Refused::TooManyHeaders)?;
    // Answered by this hop; and how the body ends is for the next hop to say.
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::HOST);
    Ok(())
}

fn words(narrowed: &Narrowed) -> String {
    if let Narrowed::Denied { kind, rule } = narrowed {
        return format!("nobody acts as the {kind} {rule:?} in clusters whose agent is Calico's Guardian");
    }
    narrowed.to_string()
}

/// Makes a request ready for HTTP/1.1, which names the host in a header.
pub(in crate::front) fn for_http1<B>(request: &mut Request<B>) {
    if let Some(path) = request.uri().path_and_query().filter(|_| request.uri().authority().is_some()).cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    *request.version_mut() = Version::HTTP_11;
    // Room for it was made when the user's own was taken out.
    drop(request.headers_mut().try_insert(header::HOST, HeaderValue::from_static(HOST)));
}

/// Makes a request ready for HTTP/2, which names the host in the target.
pub(in crate::front) fn for_http2<B>(request: &mut Request<B>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(Authority::from_static(HOST));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
}

/// The path for Guardian, whose routes end in a slash. Go's router redirects whoever leaves that out, and whoever has
/// segments in the path that it would clean away.
fn passed(path: &PathAndQuery) -> Result<PathAndQuery, Refused> {
    let root = matches!(path.path(), "/api" | "/apis");
    let below = ["/api/", "/apis/"].iter().any(|prefix| path.path().starts_with(prefix));
    if root {
        let query = path.query().map(|query| format!("?{query}")).unwrap_or_default();
        return format!("{}/{query}", path.path()).parse().map_err(|_invalid| Refused::Path);
    }
    if !below {
        return Err(Refused::Path);
    }
    let trimmed = path.path().strip_suffix('/').unwrap_or(path.path());
    if trimmed.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(Refused::Unclean);
    }
    Ok(path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(path: &str) -> Result<String, Refused> {
        passed(&path.parse().unwrap()).map(|passed| passed.to_string())
    }

    #[test]
    fn what_guardian_routes_passes_and_nothing_else() {
        for path in ["/api/", "/apis/", "/api/v1/pods?watch=1", "/apis/apps/v1/", "/api/v1/namespaces/a%2Fb"] {
            assert_eq!(passes(path).unwrap(), path);
        }
        assert_eq!(passes("/api").unwrap(), "/api/");
        assert_eq!(passes("/apis?timeout=32s").unwrap(), "/apis/?timeout=32s");
        for path in ["/", "/version", "/openapi/v3", "/apix/", "/apiserver", "/goldmane.Statistics/List", "/API/v1"] {
            assert_eq!(passes(path).unwrap_err(), Refused::Path, "{path}");
        }
        for path in ["/api//v1", "/api/../version", "/api/./v1", "/api/v1/..", "/apis//", "/api/v1/a//"] {
            assert_eq!(passes(path).unwrap_err(), Refused::Unclean, "{path}");
        }
    }

    #[test]
    fn the_probe_is_nobody_and_says_so() {
        let question = question().unwrap();
        assert_eq!(question.headers()["impersonate-user"], "system:anonymous");
        assert_eq!(question.headers()["impersonate-group"], "system:unauthenticated");
    }

    #[test]
    fn either_http_names_the_host_once() {
        let mut request = Request::builder().uri("/api/v1/pods?a=b").body(()).unwrap();
        for _ in 0..2 {
            for_http2(&mut request);
            assert_eq!(request.uri(), "https://kubernetes.default.svc/api/v1/pods?a=b");
            assert!(!request.headers().contains_key(header::HOST));
            for_http1(&mut request);
            assert_eq!(request.uri(), "/api/v1/pods?a=b");
            assert_eq!(request.headers()[header::HOST], HOST);
        }
    }

    #[test]
    fn nobody_is_what_no_rule_holds_back() {
        let admitted = |identity: Identity| {
            let mut headers = HeaderMap::new();
            headers.insert("impersonate-user", HeaderValue::from_static("system:admin"));
            headers.insert("authorization", HeaderValue::from_static("Bearer x"));
            headers.insert(header::HOST, HeaderValue::from_static("evil"));
            impersonate(&mut headers, &identity).map(|()| headers)
        };
        let ann = Identity::new("ann").unwrap().with_groups(["dev"]).unwrap();
        let headers = admitted(ann).unwrap();
        assert_eq!(
            (&headers["impersonate-user"], &headers["impersonate-group"]),
            (&"ann".parse().unwrap(), &"dev".parse().unwrap())
        );
        assert_eq!(headers.len(), 2);
        for (user, group) in [("ann", "system:masters"), (OWN_ACCOUNT, "a"), ("system:node:one", "a")] {
            let refused = admitted(Identity::new(user).unwrap().with_groups([group]).unwrap()).unwrap_err();
            assert!(matches!(&refused, Refused::Identity(why) if why.contains("Guardian")), "{refused}");
        }
    }
}

//! Fifth step: the request goes down the tunnel, and the head of its response comes back.
//!
//! Called by `serve` with a routed request. Everything of the user's that could say who they are is removed before
//! anything of ours is written. Short requests use the session's pool; watches, followed logs, upgrades and whatever
//! else may run for long get a stream of their own. All but upgrades of those run without a deadline: kube-apiserver
//! sends the head of a followed log with its first line, which may be hours away, and a dead tunnel is found by its
//! heartbeats.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use moorline_access::{Permit, RequestAttributes};
use moorline_model::ClusterName;
use moorline_mux::{CloseReason, Handle, OpenError};
use moorline_process::{Phase, Phases};
use moorline_wire::{Denial, Failure, headers as wire, may_take_long};

use crate::registry;

use super::{
    account::{Account, End},
    authz::Admitted,
    body::{Body, Progress, RequestBody, Watch},
    fairness::{Fairness, Taken},
    guardian::{
        self, Refused,
        channels::{Channels, SMALL},
        openapi::{Document, MAX_DISCOVERY},
        refusals::MAX_REFUSAL,
    },
    line::{Lease, Line, StreamError},
    metrics::Metrics,
    request::CLUSTER_HEADER,
    respond::Cause,
    route::Routed,
    upgrade::Switch,
    vigil::Vigil,
};

/// The name by which a request calls its host inside the tunnel. The agent writes the kube-apiserver's own.
const HOST: HeaderValue = HeaderValue::from_static("moorline-tunnel");

/// What a caller is told to wait who met a session on its way out: the next one is there, or nearly.
const RECONNECT: Duration = Duration::from_secs(1);

/// A request as it came, with the path that the cluster gets.
pub(super) struct Outgoing {
    pub(super) request: Request<Incoming>,
    pub(super) path: PathAndQuery,
    pub(super) request_id: HeaderValue,
    /// By what the request's body is seen to move, unless it is empty.
    pub(super) progress: Option<Arc<Progress>>,
}

/// What a request is held to.
pub(super) struct Limits<'a> {
    /// What users and clusters may take up.
    pub(super) fairness: &'a Fairness,
    /// To open a stream.
    pub(super) open: Duration,
    /// From the last byte of a short request to the head of its response.
    pub(super) response_head: Duration,
}

/// The head of a cluster's response, and what its body will come from.
pub(super) struct Forwarded {
    response: Response<Incoming>,
    /// What goes to the user in the place of the body.
    made: Option<Bytes>,
    lease: Lease,
    switch: Option<Switch>,
    watched: bool,
    routed: registry::Routed,
    taken: Taken,
}

impl Routed {
    /// Sends the request and waits for the head of the response.
    ///
    /// # Errors
    /// No stream, no response, or one of the agent's own.
    pub(super) async fn forward(
        self,
        outgoing: Outgoing,
        limits: &Limits<'_>,
        metrics: &Metrics,
    ) -> Result<Forwarded, Cause> {
        let (routed, identity, Admitted { slot, places }) = self.into_parts();
        let cluster = routed.permit().cluster();
        let taken = limits.fairness.enter(slot, &places, cluster)?;
        let line = routed.line();
        let prepared = prepare(outgoing, identity, &routed)?;
        let needs =
            Needs { upgrade: prepared.asks.is_some(), long: prepared.long, upload: is_upload(&prepared.request) };
        let sending = send(line, prepared.request, needs, limits.open, metrics);
        let (response, lease) = if prepared.long && prepared.asks.is_none() {
            sending.await
        } else {
            within(limits.response_head, prepared.progress.as_deref(), sending).await.unwrap_or(Err(NoHead::Timeout))
        }
        .map_err(|error| error.of(cluster, line.handle()))?;
        let failure = match line {
            Line::Moorline(_) => Failure::of_response(response.headers()),
            Line::Guardian(_) => guardian::failure_of(&response, prepared.proxied),
        };
        if let Some(failure) = failure {
            let denial = Denial::of_response(response.headers()).filter(|_| failure == Failure::IdentityDenied);
            return Err(Cause::Agent { cluster: cluster.clone(), failure, denial });
        }
        let (response, switch) = clean(response, prepared.asks, cluster)?;
        let made = match (line, prepared.instead, prepared.switches_to) {
            (_, Some(document), _) if response.status() == StatusCode::OK => Some(Instead::Document(document)),
            (Line::Guardian(channels), _, Some(path)) if switch.is_none() => Some(Instead::Refusal(channels, path)),
            _ => None,
        };
        let (response, made) = match made {
            None => (response, None),
            Some(instead) => Box::pin(instead.made(response, limits.response_head, routed.permit())).await?,
        };
        Ok(Forwarded { response, made, lease, switch, watched: prepared.watched, routed, taken })
    }
}

impl Forwarded {
    /// The response for the user. `account` ends with its body, or with the splice of the upgrade, which comes as the
    /// second value for the caller to run.
    pub(super) fn deliver(
        self,
        mut account: Account,
        vigil: Option<Vigil>,
        phases: &Phases,
    ) -> (Response<Body>, Option<Switch>) {
        account.hold(self.taken, self.routed);
        account.is_there(self.response.headers());
        account.answered(self.response.status().as_u16());
        if let Some(made) = self.made {
            account.sent(made.len());
            account.ends(End::Complete);
            return (self.response.map(|_discovery| Body::Own(Some(made))), None);
        }
        let Some(mut switch) = self.switch else {
            let watch = self.watched.then(|| {
                let phases = phases.clone();
                let lines = is_lines(&self.response);
                Watch::new(async move { phases.reached(Phase::Draining).await }, lines)
            });
            return (self.response.map(|incoming| Body::proxied(incoming, self.lease, account, watch, vigil)), None);
        };
        switch.keep(self.lease, account, vigil);
        (self.response.map(|_nothing| Body::Own(None)), Some(switch))
    }
}

/// A request as it goes into the tunnel.
struct Prepared {
    request: Request<RequestBody>,
    progress: Option<Arc<Progress>>,
    asks: Option<(HeaderValue, OnUpgrade)>,
    long: bool,
    watched: bool,
    /// Whether something behind the kube-apiserver answers, through Guardian.
    proxied: bool,
    /// What the answer is to be turned into.
    instead: Option<Document>,
    /// The path, of a WebSocket through Guardian.
    switches_to: Option<PathAndQuery>,
}

fn prepare(outgoing: Outgoing, identity: HeaderValue, routed: &registry::Routed) -> Result<Prepared, Cause> {
    let path = &outgoing.path;
    let long = may_take_long(path.path(), path.query());
    let watched = long && is_watch(outgoing.request.method(), path.path(), path.query());
    let progress = outgoing.progress.clone();
    let Line::Guardian(channels) = routed.line() else {
        let (request, asks) = for_our_agent(outgoing, identity);
        let (proxied, instead, switches_to) = (false, None, None);
        return Ok(Prepared { request, progress, asks, long, watched, proxied, instead, switches_to });
    };
    let (permit, path) = (routed.permit(), outgoing.path.clone());
    let proxied = path.path().split('/').any(|segment| segment == "proxy");
    let prepared = guardian::prepare(outgoing, permit.identity()).map_err(|refused| {
        let told = (refused == Refused::NotWebSocket).then(|| channels.refusals().recall(permit.identity(), &path));
        match told.flatten() {
            Some(status) => Cause::Told { cluster: permit.cluster().clone(), status: Box::new(status) },
            None => Cause::Guardian { cluster: permit.cluster().clone(), refused },
        }
    })?;
    let guardian::Prepared { request, asks, instead } = prepared;
    let switches_to = asks.is_some().then_some(path);
    Ok(Prepared { request, progress, asks, long, watched, proxied, instead, switches_to })
}

fn for_our_agent(
    outgoing: Outgoing,
    identity: HeaderValue,
) -> (Request<RequestBody>, Option<(HeaderValue, OnUpgrade)>) {
    let Outgoing { mut request, path, request_id, progress } = outgoing;
    let headers = request.headers_mut();
    // Removal first; everything that is written is written after it.
    moorline_impersonation::strip(headers);
    headers.remove(CLUSTER_HEADER);
    // Answered by this hop; and how the body ends is for the next hop to say.
    headers.remove(header::EXPECT);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::HOST, HOST);
    headers.insert(wire::IDENTITY, identity);
    headers.insert(wire::REQUEST_ID, request_id);
    // What `strip` leaves is an upgrade to a protocol that may pass.
    let protocol = headers.get(header::UPGRADE).cloned();
    let asks = protocol.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
    let (mut head, incoming) = request.into_parts();
    head.uri = Uri::from(path);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    (Request::from_parts(head, RequestBody::new(incoming, progress)), asks)
}

/// Whether the response of a watch is a stream of events, each a line of JSON.
fn is_lines(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let whole = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::CONTENT_ENCODING);
    json && !whole && response.status() == StatusCode::OK
}

/// Why there is no head of a response.
enum NoHead {
    /// No stream could be had.
    Stream(StreamError),
    /// The stream broke.
    Broken(hyper::Error),
    /// The session took too long to open one.
    OpenTimeout,
    /// It takes too long.
    Timeout,
}

/// Only what kube-apiserver itself takes for a watch: whatever else were ended between two lines would look whole.
fn is_watch(method: &Method, path: &str, query: Option<&str>) -> bool {
    *method == Method::GET && RequestAttributes::from_http(method.as_str(), path, query).verb == "watch"
}

/// What a request asks of what carries it.
#[derive(Clone, Copy)]
struct Needs {
    /// It may be switched to something that is not HTTP.
    upgrade: bool,
    /// It may run for hours.
    long: bool,
    /// It sends more than a little, or nobody knows how much.
    upload: bool,
}

fn is_upload(request: &Request<RequestBody>) -> bool {
    request.body().size_hint().upper().is_none_or(|most| most > SMALL)
}

/// How often a request that went nowhere is sent on: what carries many requests may end at any moment.
const TRIES: usize = 2;

async fn send(
    line: &Line,
    mut request: Request<RequestBody>,
    needs: Needs,
    open: Duration,
    metrics: &Metrics,
) -> Result<(Response<Incoming>, Lease), NoHead> {
    if let (Line::Moorline(pool), Needs { upgrade: false, long: false, .. }) = (line, needs) {
        while let Some(lease) = pool.idle() {
            let mut lease = Lease::Stream(lease);
            let mut failed = match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(failed) => failed,
            };
            metrics.pool_stale.inc();
            // Only a request that comes back whole was certainly not begun, and may be sent once more.
            match failed.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(NoHead::Broken(failed.into_error())),
            }
        }
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let opened = tokio::time::timeout(open, acquire(line, needs)).await.map_err(|_elapsed| NoHead::OpenTimeout)?;
        let mut lease = opened.map_err(NoHead::Stream)?;
        let mut failed = match lease.send(request).await {
            Ok(response) => return Ok((response, lease)),
            Err(failed) => failed,
        };
        match failed.take_message().filter(|_| tries < TRIES) {
            Some(unsent) => request = unsent,
            None => return Err(NoHead::Broken(failed.into_error())),
        }
    }
}

async fn acquire(line: &Line, needs: Needs) -> Result<Lease, StreamError> {
    Ok(match (line, needs) {
        (Line::Moorline(pool), Needs { upgrade: false, long: false, .. }) => Lease::Stream(pool.open().await?),
        (Line::Moorline(pool), _) => Lease::Stream(pool.open_own().await?),
        (Line::Guardian(channels), Needs { upgrade: true, .. }) => Lease::Own(channels.switching().await?),
        (Line::Guardian(channels), Needs { long: false, upload: false, .. }) => match channels.share().await {
            // A place is cheaper than a stream, and no reason to be turned away.
            Err(StreamError::Full) => Lease::Own(channels.own().await?),
            shared => Lease::Share(shared?),
        },
        (Line::Guardian(channels), _) => Lease::Own(channels.own().await?),
    })
}

impl NoHead {
    fn of(self, cluster: &ClusterName, session: &Handle) -> Cause {
        let cluster = cluster.clone();
        match self {
            Self::Timeout => Cause::HeadTimeout(cluster),
            Self::OpenTimeout => Cause::OpenTimeout(cluster),
            Self::Stream(StreamError::Open(OpenError::Limit) | StreamError::Full) => Cause::ClusterBusy(cluster),
            Self::Stream(StreamError::Open(OpenError::Draining)) => {
                let reason = "its agent is about to reconnect".to_owned();
                Cause::NotConnected { cluster, reason, retry_after: RECONNECT }
            }
            Self::Stream(StreamError::Open(OpenError::Closed(reason))) => {
                Cause::TunnelLost { cluster, reason: Some(reason.label()) }
            }
            Self::Stream(StreamError::Tls(error)) => {
                // Its certificate was right when the session began: somebody else answers, or something is broken.
                tracing::warn!(%error, %cluster, reason = error.reason(), "Guardian's own TLS failed inside a stream");
                Cause::TunnelLost { cluster, reason: None }
            }
            Self::Stream(error) => {
                tracing::debug!(%error, %cluster, "no stream");
                Cause::TunnelLost { cluster, reason: None }
            }
            Self::Broken(error) => {
                tracing::debug!(%error, %cluster, "no response through the tunnel");
                // The session's own end, where that is why, tells more than the stream's.
                let reason = if session.is_open() { None } else { session.closed().now_or_never() };
                Cause::TunnelLost { cluster, reason: reason.as_ref().map(CloseReason::label) }
            }
        }
    }
}

/// Into so many parts the wait for a head is cut; in each it is looked whether the request's body still moves, so a wait
/// may take one part longer than it should.
const LOOKS: u32 = 8;

/// Waits for the head of a response, at most `limit` after the last piece of the request's body has gone.
pub(crate) async fn within<F: Future>(limit: Duration, progress: Option<&Progress>, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let Some(progress) = progress else { return tokio::time::timeout(limit, future).await.ok() };
    let (mut seen, mut still) = (progress.seen(), 0);
    while still < LOOKS {
        if let Ok(output) = tokio::time::timeout(limit / LOOKS, future.as_mut()).await {
            return Some(output);
        }
        let now = progress.seen();
        still = if now == seen { still + 1 } else { 0 };
        seen = now;
    }
    None
}

/// Removes from a response what belongs to the tunnel.
fn clean(
    mut response: Response<Incoming>,
    asks: Option<(HeaderValue, OnUpgrade)>,
    cluster: &ClusterName,
) -> Result<(Response<Incoming>, Option<Switch>), Cause> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = response.headers().get(header::UPGRADE).cloned();
    super::clean::clean(response.headers_mut());
    if !switched {
        return Ok((response, None));
    }
    let wrong = || Cause::WrongUpgrade(cluster.clone());
    let ((asked, user), protocol) = asks.zip(protocol).ok_or_else(wrong)?;
    if !asked.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()) {
        return Err(wrong());
    }
    let agent = hyper::upgrade::on(&mut response);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    Ok((response, Some(Switch::new(user, agent))))
}

/// What takes the place of a body from Guardian.
enum Instead<'a> {
    /// A document that is made of it.
    Document(Document),
    /// The same, once more to be said.
    Refusal(&'a Channels, PathAndQuery),
}

impl Instead<'_> {
    async fn made(
        self,
        response: Response<Incoming>,
        limit: Duration,
        permit: &Permit,
    ) -> Result<(Response<Incoming>, Option<Bytes>), Cause> {
        let (mut head, mut body) = response.into_parts();
        let cluster = || permit.cluster().clone();
        let lost = || Cause::TunnelLost { cluster: cluster(), reason: None };
        let most = match self {
            Self::Document(_) => MAX_DISCOVERY,
            Self::Refusal(..) => MAX_REFUSAL,
        };
        let reading = Limited::new(&mut body, most).collect();
        let read = tokio::time::timeout(limit, reading).await.map_err(|_elapsed| Cause::HeadTimeout(cluster()))?;
        let read = read.map_err(|_cut| lost())?.to_bytes();
        let made = match self {
            Self::Document(document) => document.made_of(&read).ok_or_else(lost)?,
            Self::Refusal(channels, path) => {
                channels.refusals().remember(permit.identity(), &path, &read);
                return Ok((Response::from_parts(head, body), Some(read)));
            }
        };
        for of_the_other in [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED, header::CONTENT_ENCODING] {
            head.headers.remove(of_the_other);
        }
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok((Response::from_parts(head, body), Some(made)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_watch_is_what_kubernetes_takes_for_one() {
        for (path, query, watch) in [
            ("/api/v1/pods", Some("watch=true"), true),
            ("/api/v1/pods", Some("watch=True"), true),
            ("/api/v1/pods", Some("watch=t"), true),
            ("/api/v1/pods", Some("watch=%31"), true),
            ("/api/v1/pods", Some("w%61tch"), true),
            ("/api/v1/watch/pods", None, true),
            ("/apis/apps/v1/watch/deployments", None, true),
            ("/api/v1/pods", Some("watch=false"), false),
            ("/api/v1/pods", Some("watch=0&watch=1"), false),
            ("/api/v1/namespaces/a/pods/b", Some("watch=1"), false),
            ("/api/v1/namespaces/a/services/b/proxy/export.json", Some("watch=1"), false),
            ("/api/v1/namespaces/a/pods/b/log", Some("follow=true"), false),
        ] {
            assert_eq!(is_watch(&Method::GET, path, query), watch, "{path} {query:?}");
            assert!(!watch || may_take_long(path, query), "{path} {query:?}");
        }
        assert!(!is_watch(&Method::POST, "/api/v1/pods", Some("watch=true")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_waited_for_as_long_as_was_said() {
        const LIMIT: Duration = Duration::from_secs(80);
        let began = Instant::now();
        assert!(within(LIMIT, None, std::future::pending::<()>()).await.is_none());
        assert_eq!(began.elapsed().as_secs(), 80);
        let progress = Progress::default();
        let began = Instant::now();
        let upload = async {
            tokio::time::sleep(LIMIT / 2).await;
            progress.moves(1);
            std::future::pending::<()>().await;
        };
        assert!(within(LIMIT, Some(&progress), upload).await.is_none());
        let waited = (began.elapsed() - LIMIT / 2).as_secs_f64() / LIMIT.as_secs_f64();
        assert!((1.0..1.2).contains(&waited), "{waited} of the limit after the last piece");
    }
}

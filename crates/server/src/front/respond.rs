//! Last step: whatever goes wrong becomes a Kubernetes `Status`, by one table.
//!
//! Called by `serve`. kubectl prints the `message` of a `Status` and client-go acts on its `reason` and
//! `retryAfterSeconds`, so that is the only error body a user ever gets. Texts hold nothing that their reader may not
//! know: no address, no other cluster, no word of the agent's.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use moorline_access::Denied;
use moorline_impersonation::RequestedError;
use moorline_model::{ClusterName, Reason, Status};
use moorline_wire::{Denial, Failure};
use tracing::Level;

use crate::audit::{Refusal, Unrecorded};

use super::{
    account::{Account, End},
    authn::AuthnError,
    body::Body,
    guardian::Refused,
    request::TargetError,
};

/// On every response: the id under which the server and the agent log the request. Kubernetes' own `audit-id` is left
/// to the kube-apiserver.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a caller should wait when there was no room: requests come and go by the second.
const CROWDED: u32 = 1;

/// Why a request was answered by this server itself.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The request has no target.
    Target(TargetError),
    /// Nobody knows who is asking.
    Unauthenticated(AuthnError),
    /// `Impersonate-*` headers that make no sense.
    Impersonation(RequestedError),
    /// The policy says no, or cannot be asked.
    Denied(Denied),
    /// No cluster of that name.
    UnknownCluster(ClusterName),
    /// The cluster has no session that takes requests.
    NotConnected {
        /// Which.
        cluster: ClusterName,
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The management cluster was asked for, and this server has none to offer.
    NoManagement,
    /// The user has as many requests running as one user may.
    UserBusy,
    /// The user sends more requests a second than one user may; when there is room for the next.
    UserRate(Duration),
    /// The user has more of the cluster's room than is left for all others.
    UserShare(ClusterName),
    /// The cluster gets more requests a second than one cluster may.
    ClusterRate {
        /// Which.
        cluster: ClusterName,
        /// When there is room for the next.
        wait: Duration,
    },
    /// The cluster has as many requests running as one cluster may.
    ClusterBusy(ClusterName),
    /// The request cannot be written down, and no request may go on that is not.
    Unrecorded(Unrecorded),
    /// This server is about to stop.
    Draining,
    /// The tunnel broke before the head of the response.
    TunnelLost {
        /// To which cluster.
        cluster: ClusterName,
        /// Why, if the session ended.
        reason: Option<&'static str>,
    },
    /// The session did not take a new stream within the time for it.
    OpenTimeout(ClusterName),
    /// No head of a response within the time for it.
    HeadTimeout(ClusterName),
    /// The agent answered instead of the kube-apiserver.
    Agent {
        /// Whose.
        cluster: ClusterName,
        /// Why.
        failure: Failure,
        /// Which rule of the cluster's own it was, where it was one.
        denial: Option<Denial>,
    },
    /// The cluster's agent is Calico's Guardian, which does not carry this.
    Guardian {
        /// Whose.
        cluster: ClusterName,
        /// What it does not carry.
        refused: Refused,
    },
    /// The cluster's own refusal, said again.
    Told {
        /// Whose.
        cluster: ClusterName,
        /// What it said.
        status: Box<Status>,
    },
    /// The cluster switched protocols without being asked, or to another one than asked for.
    WrongUpgrade(ClusterName),
}

/// What one cause means to everybody who hears of it.
struct Row {
    /// In the metric, and in the log.
    label: &'static str,
    /// For the program that asked; the status code follows from it.
    reason: Reason,
    /// In the log.
    level: Level,
    /// When to try again, in seconds.
    retry: Option<u32>,
    /// For the person who asked.
    text: Cow<'static, str>,
    /// For the operator, where that is more.
    detail: Option<String>,
}

impl Row {
    fn new(label: &'static str, reason: Reason, level: Level, text: impl Into<Cow<'static, str>>) -> Self {
        Self { label, reason, level, retry: None, text: text.into(), detail: None }
    }

    fn retry(mut self, seconds: u32) -> Self {
        self.retry = Some(seconds);
        self
    }

    fn detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }
}

impl Cause {
    /// The table.
    fn row(&self, group: &str) -> Row {
        use Reason as R;
        match self {
            Self::Target(error) => match error {
                TargetError::HeadTooLarge => {
                    Row::new("head-too-large", R::RequestHeaderFieldsTooLarge, Level::INFO, error.to_string())
                }
                TargetError::Connect => Row::new("method", R::MethodNotAllowed, Level::INFO, error.to_string()),
                TargetError::Form
                | TargetError::Name(_)
                | TargetError::NameText
                | TargetError::Repeated
                | TargetError::Disagree { .. }
                | TargetError::Slashes => Row::new("bad-target", R::BadRequest, Level::INFO, error.to_string()),
            },
            Self::Unauthenticated(error @ AuthnError::Unavailable(_)) => Row::new(
                "authenticator",
                R::ServiceUnavailable,
                Level::WARN,
                "who you are cannot be told at the moment; try again",
            )
            .retry(CROWDED)
            .detail(error.to_string()),
            Self::Unauthenticated(error) => {
                Row::new("unauthenticated", R::Unauthorized, Level::INFO, "Unauthorized").detail(error.to_string())
            }
            Self::Impersonation(error) => Row::new("bad-impersonation", R::BadRequest, Level::INFO, error.to_string()),
            // Logged where it was decided.
            Self::Denied(denied @ Denied::Unavailable(_)) => {
                Row::new("authorizer", R::ServiceUnavailable, Level::WARN, denied.public_message()).retry(CROWDED)
            }
            Self::Denied(denied) => Row::new("denied", denied.status().reason, Level::DEBUG, denied.public_message()),
            Self::UnknownCluster(name) => Row::new(
                "unknown-cluster",
                R::NotFound,
                Level::INFO,
                format!("managedclusters.{group} \"{name}\" not found"),
            ),
            Self::NotConnected { cluster, reason, retry_after } => Row::new(
                "not-connected",
                R::ServiceUnavailable,
                Level::INFO,
                format!("the cluster \"{cluster}\" is not connected: {reason}"),
            )
            .retry(u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).max(1)),
            Self::NoManagement => Row::new(
                "no-management",
                R::NotFound,
                Level::INFO,
                "this server gives no access to the management cluster; name a managed one by /clusters/NAME or x-cluster-id",
            ),
            Self::UserBusy => crowded(
                "user-busy",
                Duration::ZERO,
                "you have as many requests running as one user may; try again when some have ended",
            ),
            Self::UserRate(wait) => {
                crowded("user-rate", *wait, "you send more requests a second than one user may; slow down")
            }
            Self::UserShare(cluster) => crowded(
                "user-share",
                Duration::ZERO,
                format!(
                    "you have your share of the requests that the cluster \"{cluster}\" can run at once; try again when some have ended"
                ),
            ),
            Self::ClusterBusy(cluster) => crowded(
                "cluster-busy",
                Duration::ZERO,
                format!("the cluster \"{cluster}\" has as many requests running as it may; try again in a moment"),
            ),
            Self::ClusterRate { cluster, wait } => crowded(
                "cluster-rate",
                *wait,
                format!("the cluster \"{cluster}\" gets more requests a second than it may; try again in a moment"),
            ),
            // Told by the writer. Not once for each request: the disk may be full.
            Self::Unrecorded(error) => Row::new(
                "unrecorded",
                R::ServiceUnavailable,
                Level::DEBUG,
                "this request cannot be recorded at the moment, and goes no further; try again",
            )
            .retry(CROWDED)
            .detail(error.to_string()),
            Self::Draining => Row::new(
                "draining",
                R::ServiceUnavailable,
                Level::DEBUG,
                "this server is about to stop; try again in a moment",
            )
            .retry(CROWDED),
            Self::TunnelLost { cluster, reason } => Row::new(
                "tunnel-lost",
                R::BadGateway,
                Level::WARN,
                match reason {
                    Some(reason) => format!("the connection to the cluster \"{cluster}\" was lost ({reason})"),
                    None => format!("the agent of the cluster \"{cluster}\" broke off the request"),
                },
            ),
            Self::OpenTimeout(cluster) => Row::new(
                "open-timeout",
                R::Timeout,
                Level::WARN,
                format!("the connection to the cluster \"{cluster}\" took no new request in time"),
            ),
            Self::HeadTimeout(cluster) => Row::new(
                "head-timeout",
                R::Timeout,
                Level::WARN,
                format!("the cluster \"{cluster}\" did not answer in time"),
            ),
            Self::Agent { cluster, denial: Some(denial), .. } => Row::new(
                Failure::IdentityDenied.as_str(),
                R::Forbidden,
                Level::INFO,
                format!("cluster \"{cluster}\": {denial}"),
            ),
            Self::Agent { cluster, failure, denial: None } => agent(cluster, *failure),
            Self::Guardian { cluster, refused } => guardian(cluster, refused),
            Self::Told { cluster, status } => {
                let text = format!("cluster \"{cluster}\": {}", status.message);
                Row::new("told-before", status.reason, Level::INFO, text)
            }
            Self::WrongUpgrade(cluster) => Row::new(
                "wrong-upgrade",
                R::BadGateway,
                Level::WARN,
                format!("the cluster \"{cluster}\" switched to a protocol that was not asked for"),
            ),
        }
    }
}

/// The part of the table that is about too many requests. A log line for each would be part of the flood: they are
/// counted.
fn crowded(label: &'static str, wait: Duration, text: impl Into<Cow<'static, str>>) -> Row {
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(CROWDED);
    Row::new(label, Reason::TooManyRequests, Level::DEBUG, text).retry(seconds)
}

/// The part of the table that is about an agent's own answers.
fn agent(cluster: &ClusterName, failure: Failure) -> Row {
    use Failure as F;
    let (level, retry, text) = match failure {
        F::UpstreamRefused => (Level::WARN, None, "the kube-apiserver cannot be reached"),
        F::UpstreamTimeout => (Level::WARN, None, "the kube-apiserver did not answer in time"),
        F::UpstreamTls => {
            (Level::WARN, None, "the agent and the kube-apiserver do not accept each other's certificate")
        }
        F::UpstreamBroken => (Level::WARN, None, "the kube-apiserver broke off before it answered"),
        F::UpstreamCredential => (Level::WARN, None, "the kube-apiserver does not accept the agent's own credential"),
        F::IdentityDenied => {
            (Level::INFO, None, "the agent is configured not to act for this user or one of its groups")
        }
        F::BadRequest => (Level::INFO, None, "the agent could not read the request"),
        F::HeadTooLarge => (Level::INFO, None, "the request's headers are larger than the agent takes"),
        F::Overloaded => {
            (Level::WARN, Some(CROWDED), "the agent has as many requests as it may; try again in a moment")
        }
        F::ShuttingDown => (Level::INFO, Some(CROWDED), "the agent is about to stop; try again in a moment"),
        F::IdentityMissing | F::Unknown | _ => (Level::WARN, None, "the agent could not pass the request on"),
    };
    let row = Row::new(failure.as_str(), failure.reason(), level, format!("cluster \"{cluster}\": {text}"));
    Row { retry, ..row }
}

/// The part of the table that is about what cannot go through Guardian.
fn guardian(cluster: &ClusterName, refused: &Refused) -> Row {
    let text = format!("cluster \"{cluster}\": {refused}");
    match refused {
        Refused::Path => Row::new("guardian-path", Reason::NotFound, Level::INFO, text),
        Refused::Unclean => Row::new("guardian-path", Reason::BadRequest, Level::INFO, text),
        Refused::NotWebSocket => Row::new("guardian-upgrade", Reason::NotImplemented, Level::INFO, text),
        Refused::UpgradeWithBody => Row::new("guardian-upgrade", Reason::BadRequest, Level::INFO, text),
        Refused::Identity(_) => Row::new(Failure::IdentityDenied.as_str(), Reason::Forbidden, Level::INFO, text),
        Refused::TooManyHeaders => {
            Row::new(Failure::HeadTooLarge.as_str(), Reason::RequestHeaderFieldsTooLarge, Level::INFO, text)
        }
    }
}

/// Where a failure is answered.
pub(super) struct Asked<'a> {
    /// The API group of our own objects.
    pub(super) group: &'a str,
    /// The request's id.
    pub(super) request_id: &'a HeaderValue,
    /// Who sent it.
    pub(super) peer: SocketAddr,
    /// Its method: `HEAD` gets no body.
    pub(super) method: &'a Method,
    /// Its version: only HTTP/1 knows `Connection`.
    pub(super) version: Version,
}

/// Answers with a `Status`, counts and logs the cause.
pub(super) fn failure(cause: &Cause, asked: &Asked<'_>, mut account: Account) -> Response<Body> {
    let row = cause.row(asked.group);
    log(&row, asked);
    let message = || row.detail.as_deref().unwrap_or(&row.text).to_owned();
    account.failed(|| Refusal { cause: row.label, reason: row.reason, message: message() }, row.label);
    if let Cause::Denied(denied @ (Denied::Forbidden(_) | Denied::TooManyParts)) = cause {
        account.forbidden(&denied.public_message());
    }
    let code = if let Cause::Told { status, .. } = cause { status.code } else { row.reason.code() };
    let mut status = Status::failure(code, row.reason, row.text);
    if let Cause::Told { status: told, .. } = cause {
        status = Status::clone(told);
    }
    if let Cause::Denied(denied) = cause {
        status = denied.status();
    }
    if let Cause::UnknownCluster(name) = cause {
        status = status.about(asked.group, "managedclusters", name.as_str());
    }
    if let Some(seconds) = row.retry {
        status = status.retry_after(seconds);
    }
    let text = Bytes::from(status.to_json());
    let mut response = Response::new(Body::Own(None));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(REQUEST_ID, asked.request_id.clone());
    if let Some(seconds) = row.retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if row.reason == Reason::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(cause, Cause::Draining) {
        close(headers, asked.version);
    }
    if asked.method != Method::HEAD {
        account.sent(text.len());
        *response.body_mut() = Body::Own(Some(text));
    }
    account.answered(code);
    account.ends(End::Complete);
    response
}

/// Asks an HTTP/1 client to go on over another connection.
pub(super) fn close(headers: &mut HeaderMap, version: Version) {
    if version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn log(row: &Row, asked: &Asked<'_>) {
    let request_id = asked.request_id.to_str().unwrap_or_default();
    let (peer, code) = (asked.peer, row.reason.code());
    // What the operator may know and the user may not. Neither holds a credential.
    let detail = row.detail.as_deref().unwrap_or(&row.text);
    match row.level {
        Level::ERROR => tracing::error!(request_id, %peer, code, cause = row.label, detail, "request failed"),
        Level::WARN => tracing::warn!(request_id, %peer, code, cause = row.label, detail, "request failed"),
        Level::INFO => tracing::info!(request_id, %peer, code, cause = row.label, detail, "request refused"),
        _ => tracing::debug!(request_id, %peer, code, cause = row.label, detail, "request refused"),
    }
}

#[cfg(test)]
mod tests {
    use moorline_access::AuthenticatorUnavailable;
    use moorline_model::InvalidClusterName;

    use super::*;

    #[test]
    fn every_cause_has_its_row() {
        let east = || -> ClusterName { "east".parse().unwrap() };
        let away = Duration::from_millis(2500);
        let agent = |failure| Cause::Agent { cluster: east(), failure, denial: None };
        let table = [
            (Cause::Target(TargetError::Name(InvalidClusterName::Empty)), 400, "bad-target", None),
            (Cause::Target(TargetError::Connect), 405, "method", None),
            (Cause::Target(TargetError::HeadTooLarge), 431, "head-too-large", None),
            (Cause::Unauthenticated(AuthnError::WrongToken), 401, "unauthenticated", None),
            (
                Cause::Unauthenticated(AuthnError::Unavailable(AuthenticatorUnavailable("down".to_owned()))),
                503,
                "authenticator",
                Some(1),
            ),
            (Cause::Impersonation(RequestedError::NoUser), 400, "bad-impersonation", None),
            (Cause::Denied(Denied::TooManyParts), 400, "denied", None),
            (Cause::UnknownCluster(east()), 404, "unknown-cluster", None),
            (Cause::NoManagement, 404, "no-management", None),
            (
                Cause::NotConnected { cluster: east(), reason: "r".to_owned(), retry_after: away },
                503,
                "not-connected",
                Some(2),
            ),
            (Cause::UserBusy, 429, "user-busy", Some(1)),
            (Cause::ClusterBusy(east()), 429, "cluster-busy", Some(1)),
            (Cause::UserRate(Duration::from_millis(2001)), 429, "user-rate", Some(3)),
            (Cause::UserShare(east()), 429, "user-share", Some(1)),
            (Cause::ClusterRate { cluster: east(), wait: Duration::ZERO }, 429, "cluster-rate", Some(1)),
            (Cause::Draining, 503, "draining", Some(1)),
            (Cause::Unrecorded(Unrecorded::of("log")), 503, "unrecorded", Some(1)),
            (Cause::TunnelLost { cluster: east(), reason: Some("silent") }, 502, "tunnel-lost", None),
            (Cause::OpenTimeout(east()), 504, "open-timeout", None),
            (Cause::HeadTimeout(east()), 504, "head-timeout", None),
            (agent(Failure::UpstreamRefused), 502, "upstream-refused", None),
            (agent(Failure::UpstreamTimeout), 504, "upstream-timeout", None),
            (agent(Failure::UpstreamCredential), 502, "upstream-credential", None),
            (agent(Failure::IdentityMissing), 502, "identity-missing", None),
            (agent(Failure::IdentityDenied), 403, "identity-denied", None),
            (agent(Failure::BadRequest), 400, "bad-request", None),
            (agent(Failure::HeadTooLarge), 431, "head-too-large", None),
            (agent(Failure::Overloaded), 503, "overloaded", Some(1)),
            (agent(Failure::ShuttingDown), 503, "shutting-down", Some(1)),
            (agent(Failure::Unknown), 502, "unknown", None),
            (Cause::WrongUpgrade(east()), 502, "wrong-upgrade", None),
            (
                Cause::Told { cluster: east(), status: Box::new(Status::failure(403, Reason::Forbidden, "r")) },
                403,
                "told-before",
                None,
            ),
            (Cause::Guardian { cluster: east(), refused: Refused::Path }, 404, "guardian-path", None),
            (Cause::Guardian { cluster: east(), refused: Refused::UpgradeWithBody }, 400, "guardian-upgrade", None),
            (Cause::Guardian { cluster: east(), refused: Refused::NotWebSocket }, 501, "guardian-upgrade", None),
            (Cause::Guardian { cluster: east(), refused: Refused::Identity("r".into()) }, 403, "identity-denied", None),
        ];
        for (cause, code, label, retry) in table {
            let row = cause.row("moorline.io");
            assert_eq!((row.reason.code(), row.label, row.retry), (code, label, retry), "{cause:?}");
            assert!(!row.text.is_empty() && row.level != Level::ERROR, "{cause:?}");
        }
    }
}

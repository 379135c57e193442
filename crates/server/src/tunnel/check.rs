//! Whether a session carries requests: asked through it, from this end to the cluster's kube-apiserver and back.
//!
//! Started by `admit`, a task for each session whose agent answers such probes; it ends with the session. Each question
//! goes on a stream of its own, as a user's request might, since a session can answer heartbeats and open no stream that
//! works. The request is always the same and names nobody; no user's word is in it. A session that does not answer is
//! avoided at once, shown as such after the second time, and cut after the third, unless its bytes move: then it may be
//! full rather than stuck, and has four times as long.
//!
//! An idle session costs a timer, and a stream of a few hundred bytes an interval.

use std::sync::Arc;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_mux::{OpenError, Paced};
use moorline_wire::{CloseReason, Failure, probe};
use rand::RngExt as _;
use tokio::time::Instant;

use super::{
    orders::Order,
    session::{Session, Upstream, bounded},
};
use crate::{
    enrolment::dialects,
    events::Happening,
    front::{
        guardian::{channels::Channels, request},
        line::StreamError,
    },
    registry::Cluster,
    state::State,
};

/// Probes in progress at once over all sessions: silent ones must not pile up, nor a fleet that comes at once.
pub(crate) const AT_ONCE: usize = 256;

/// So many probes in a row without an answer, and the session is shown as carrying nothing.
const SHOWN: u32 = 2;

/// So many, and it is cut.
const CUT: u32 = 3;

/// How much longer a session may go on whose bytes move.
const BUSY_FACTOR: u32 = 4;

/// Bytes from one probe to the next by which a session is taken to be full rather than stuck. Heartbeats and probes have
/// some hundred.
const BUSY: u64 = 64 * 1024;

/// While a session does not answer it is asked so much more often.
const WORRIED: u32 = 3;

/// The share by which each interval is shortened at random, at most.
const JITTER: f64 = 0.2;

/// Bytes of a refusal of kube-apiserver that are read.
const MAX_REFUSAL: usize = 16 * 1024;

const BROKE: &str = "a stream broke before it answered";

/// How a session fared when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carriage {
    /// Its agent does not answer probes: it is older than they are. What it says of itself counts.
    Unasked,
    /// The first answer is awaited.
    Awaited,
    /// It answered.
    Carries,
    /// It did not; shown as such.
    Stuck,
}

/// What one probe found.
enum Found {
    /// An answer came from the agent: what it says of its kube-apiserver.
    Answer(Upstream),
    /// The agent, or this session, has its hands full: requests get through, and nothing more is known.
    Busy,
    /// The session opens nothing more.
    Ended,
    /// No answer.
    Nothing(String),
}

/// Asks again and again until the session has ended.
pub(super) async fn keep(state: Arc<State>, cluster: Arc<Cluster>, session: Arc<Session>) {
    let ended = session.handle().clone();
    tokio::select! {
        () = asking(&state, &cluster, &session) => {}
        _reason = ended.closed() => {}
    }
}

async fn asking(state: &Arc<State>, cluster: &Arc<Cluster>, session: &Session) {
    let tunnel = &state.tunnel;
    let (mut failed, mut moved) = (0, 0);
    loop {
        // Boxed: it is rarely there, and a session's task lives as long as the session.
        let found = Box::pin(ask(state, session)).await;
        let now_moved = bytes(session);
        let busy = now_moved.saturating_sub(moved) > BUSY;
        moved = now_moved;
        failed = match found {
            Found::Ended => return,
            Found::Answer(upstream) => {
                carries(state, cluster, session, Some(upstream));
                0
            }
            Found::Busy => {
                carries(state, cluster, session, None);
                0
            }
            Found::Nothing(why) => {
                fails(state, cluster, session, failed + 1, busy, &why);
                failed + 1
            }
        };
        let interval = if failed == 0 { tunnel.check_interval } else { tunnel.check_interval / WORRIED };
        let luck: f64 = rand::rng().random();
        tokio::time::sleep(interval.mul_f64(1.0 - JITTER * luck)).await;
    }
}

fn bytes(session: &Session) -> u64 {
    let stats = session.handle().stats();
    stats.bytes_read.saturating_add(stats.bytes_written)
}

fn carries(state: &Arc<State>, cluster: &Arc<Cluster>, session: &Session, upstream: Option<Upstream>) {
    let before = session.carriage(Carriage::Carries);
    session.set_avoided(false);
    let news = upstream.filter(|upstream| session.tell(upstream.clone(), None, None));
    cluster.refresh();
    dialects::carried(state, cluster);
    if before == Carriage::Stuck {
        state.events.emit(cluster, Happening::Carrying { session: session.id() });
        tracing::info!(cluster = %cluster.name(), session = %session.id(), "the session carries requests again");
    }
    match news {
        Some(Upstream::Failing(why)) => state.events.emit(cluster, Happening::UpstreamFailing { why: bounded(why) }),
        Some(Upstream::Well) => state.events.emit(cluster, Happening::UpstreamWell),
        Some(Upstream::Untold) | None => {}
    }
}

fn fails(state: &State, cluster: &Cluster, session: &Session, times: u32, busy: bool, why: &str) {
    state.metrics.checks_failed.inc();
    session.set_avoided(true);
    if times < SHOWN {
        return;
    }
    if session.carriage(Carriage::Stuck) != Carriage::Stuck {
        let happening = Happening::NotCarrying { session: session.id(), why: why.to_owned() };
        state.events.emit(cluster, happening);
        tracing::warn!(cluster = %cluster.name(), session = %session.id(), "the session carries no requests: {why}");
    }
    cluster.refresh();
    if times >= CUT * if busy { BUSY_FACTOR } else { 1 } {
        session.leave();
        session.orders().give(Order::Cut(CloseReason::NotCarrying));
    }
}

async fn ask(state: &State, session: &Session) -> Found {
    // Never closed.
    let Ok(_turn) = state.checks.acquire().await else { return Found::Ended };
    let limit = state.tunnel.check_timeout;
    let began = Instant::now();
    let found = tokio::time::timeout(limit, exchange(session)).await;
    let found = found.unwrap_or_else(|_elapsed| Found::Nothing(format!("no answer to a probe within {limit:?}")));
    if matches!(found, Found::Answer(_)) {
        state.metrics.check_seconds.observe(began.elapsed().as_secs_f64());
    }
    found
}

async fn exchange(session: &Session) -> Found {
    match session.channels() {
        None => through_our_agent(session).await,
        Some(channels) => through_guardian(channels).await,
    }
}

async fn through_our_agent(session: &Session) -> Found {
    let stream = match session.handle().open().await {
        Ok(stream) => stream,
        // As many requests run as may: it carries those.
        Err(OpenError::Limit) => return Found::Busy,
        Err(OpenError::Closed(_) | OpenError::Draining | _) => return Found::Ended,
    };
    let shaken = http1::Builder::new().writev(false).handshake(TokioIo::new(Paced::reading(stream))).await;
    let Ok((mut sender, connection)) = shaken else { return Found::Nothing("no HTTP on a new stream".to_owned()) };
    let asking = async move {
        let response = sender.send_request(question()).await.ok()?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, probe::MAX_ANSWER).collect().await.ok()?.to_bytes();
        Some((head, body))
    };
    // The connection ends when the sender is gone; how, matters only where the answer did not come.
    let (answer, _driven) = tokio::join!(asking, connection);
    let Some((head, body)) = answer else { return Found::Nothing(BROKE.to_owned()) };
    if Failure::of_response(&head.headers).is_some() {
        return Found::Busy;
    }
    match probe::read_answer(&body).filter(|_| head.status == StatusCode::OK) {
        Some(status) if status.upstream_ok => Found::Answer(Upstream::Well),
        Some(status) => {
            let why = status.upstream_reason.unwrap_or_else(|| "no reason given".to_owned());
            Found::Answer(Upstream::Failing(why))
        }
        None => Found::Nothing(format!("a probe was answered with {} and no finding", head.status)),
    }
}

/// Guardian answers no probes of ours: it is asked what any user might ask, by nobody (see `front::guardian::request`).
/// Whatever kube-apiserver says to that has gone the whole way.
async fn through_guardian(channels: &Channels) -> Found {
    let stream = match channels.bare().await {
        Ok(stream) => stream,
        Err(StreamError::Open(OpenError::Limit) | StreamError::Full) => return Found::Busy,
        Err(StreamError::Open(_)) => return Found::Ended,
        Err(error @ (StreamError::Tls(_) | StreamError::Http(_))) => return Found::Nothing(error.to_string()),
    };
    let shaken = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = shaken else { return Found::Nothing("no HTTP on a new stream".to_owned()) };
    let Ok(mut question) = request::question() else { return Found::Nothing("no question".to_owned()) };
    question.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    let asking = async move {
        let response = sender.send_request(question).await.ok()?;
        let (head, body) = response.into_parts();
        // What is longer is no refusal.
        let body = Limited::new(body, MAX_REFUSAL).collect().await.map(Collected::to_bytes).unwrap_or_default();
        Some((head, body))
    };
    let (answer, _driven) = tokio::join!(asking, connection);
    let Some((head, body)) = answer else { return Found::Nothing(BROKE.to_owned()) };
    let own = !head.headers.contains_key("audit-id");
    let failing = |why: &str| Found::Answer(Upstream::Failing(why.to_owned()));
    match head.status {
        StatusCode::UNAUTHORIZED => failing("its kube-apiserver does not accept Guardian's own token"),
        StatusCode::BAD_GATEWAY if own => failing("Guardian cannot reach its kube-apiserver"),
        StatusCode::NOT_FOUND if own => Found::Nothing("Guardian does not know the path /api/".to_owned()),
        StatusCode::FORBIDDEN if String::from_utf8_lossy(&body).contains("cannot impersonate") => failing(
            "Guardian's service account may not impersonate users: apply the cluster's manifest, whose ClusterRole lets it",
        ),
        _ => Found::Answer(Upstream::Well),
    }
}

fn question() -> Request<Empty<bytes::Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static(probe::PATH);
    request.headers_mut().insert(header::HOST, http::HeaderValue::from_static(super::SERVER_NAME));
    request
}

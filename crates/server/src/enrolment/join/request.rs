//! One request to join: read within bounds, decided, answered, counted, and written down whatever became of it.
//!
//! Called by `join` with the request of a connection. Nothing of what was shown, nor of a key, gets into a log, an event
//! or an answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use moorline_model::{ClusterName, Identity, Reason, RequestId};
use moorline_wire::{JOIN_PATH, JoinAnswer, JoinProof, JoinRefusal, JoinRefused, JoinRequest, MAX_JOIN_REQUEST};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{decide::decide, pace::Pace};
use crate::{
    audit::{Bytes as Counted, End, Head, Refusal, Trail},
    enrolment::tokens::Refused,
    state::State,
};

/// Who it is in the audit trail: nobody yet.
const USER: &str = "system:moorline:join";

/// Answers one request.
pub(super) async fn answer(
    state: &Arc<State>,
    pace: &Pace,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let id = HeaderValue::try_from(RequestId::from_bytes(rand::random()).to_string());
    let id = id.unwrap_or(HeaderValue::from_static("unknown"));
    let (parts, body) = request.into_parts();
    let uri = Uri::from_static(JOIN_PATH);
    let head = Head { id: &id, method: &parts.method, uri: &uri, headers: &parts.headers, peer: remote.ip() };
    // Whoever comes too often, or with something else, is counted and leaves no event: a stranger does not fill the log.
    let gate = if (&parts.method, parts.uri.path()) == (&Method::POST, JOIN_PATH) {
        pace.ask(remote.ip()).map_err(too_many)
    } else {
        Err(Refused { reason: JoinRefusal::BadRequest, message: format!("the one request here is POST {JOIN_PATH}") })
    };
    let audit = state.audit.as_ref().filter(|_| gate.is_ok());
    let mut trail = audit.map(|audit| Trail::open(audit, &head));
    if let (Some(trail), Ok(nobody)) = (&mut trail, Identity::new(USER)) {
        trail.is_of(Arc::new(nobody));
    }
    let mut about = About::default();
    let outcome = match gate {
        Ok(()) => join(state, body, (&mut trail, &mut about)).await,
        Err(refused) => Err(refused),
    };
    conclude(state, remote, (&id, &about), &outcome);
    let response = match &outcome {
        Ok(answer) => json(StatusCode::OK, answer),
        Err(refused) => refusal(refused),
    };
    if let Some(mut trail) = trail {
        let bytes = Counted { sent: size(&response), received: about.received };
        match &outcome {
            Ok(_) => trail.allowed(&about.proof, None),
            Err(refused) => {
                trail.forbidden(&refused.message);
                trail.refused(Refusal {
                    cause: refused.reason.as_str(),
                    reason: reason(refused.reason),
                    message: refused.message.clone(),
                });
            }
        }
        trail.ended(End::Complete, response.status().as_u16(), bytes, began.elapsed());
    }
    response
}

/// What is known of a request, for those who write about it.
#[derive(Default)]
struct About {
    name: Option<ClusterName>,
    /// How it would be let in: no secret.
    proof: String,
    received: u64,
}

async fn join(
    state: &Arc<State>,
    body: Incoming,
    (trail, about): (&mut Option<Trail>, &mut About),
) -> Result<JoinAnswer, Refused> {
    let unreadable = |why: &str| Refused { reason: JoinRefusal::BadRequest, message: format!("the request {why}") };
    let body = Limited::new(body, MAX_JOIN_REQUEST).collect().await;
    let body = body.map_err(|_cut| unreadable(&format!("has more than {MAX_JOIN_REQUEST} bytes, or was cut")))?;
    let body = Zeroizing::new(body.to_bytes().to_vec());
    about.received = body.len() as u64;
    let asked: JoinRequest = serde_json::from_slice(&body)
        .map_err(|_says_too_much| unreadable("is none to join with: use this server's own agent"))?;
    about.proof = match &asked.proof {
        JoinProof::Token { id, .. } if id.chars().all(|c| c.is_ascii_alphanumeric()) && id.len() <= 64 => {
            format!("join token {id}")
        }
        JoinProof::Token { .. } => "join token".to_owned(),
        JoinProof::Attestation(_) => "service-account token".to_owned(),
    };
    about.name = Some(asked.name.clone());
    if let Some(trail) = trail {
        trail.joins(&asked.name);
        let unrecorded = |_| Refused {
            reason: JoinRefusal::Unavailable,
            message: "the management cluster cannot write its audit trail now; try again".to_owned(),
        };
        trail.receipt(false).await.map_err(unrecorded)?;
    }
    // In a task of its own, so that it runs to its end also when the agent hangs up.
    let shared = Arc::clone(state);
    let deciding = state.tasks.spawn("join", async move { decide(&shared, asked).await });
    deciding.await.unwrap_or_else(|_cut| {
        let message = "the management cluster is going down; try again".to_owned();
        Err(Refused { reason: JoinRefusal::Unavailable, message })
    })
}

fn too_many(wait: Duration) -> Refused {
    let seconds = wait.as_secs().saturating_add(1);
    Refused {
        reason: JoinRefusal::TooMany,
        message: format!("too many requests to join come from this address; try again in {seconds} s"),
    }
}

fn conclude(
    state: &State,
    remote: SocketAddr,
    (request_id, about): (&HeaderValue, &About),
    outcome: &Result<JoinAnswer, Refused>,
) {
    let (request_id, name) = (request_id.to_str().unwrap_or_default(), about.name.as_ref().map(ClusterName::as_str));
    match outcome {
        Ok(_) => {
            state.metrics.join("joined");
            tracing::info!(request_id, %remote, cluster = name, proof = about.proof, "an agent joined");
        }
        Err(refused) => {
            let reason = refused.reason.as_str();
            state.metrics.join(reason);
            tracing::info!(request_id, %remote, cluster = name, reason, "an agent that wants to join was refused");
        }
    }
}

fn refusal(refused: &Refused) -> Response<Full<Bytes>> {
    let body = JoinRefused { reason: refused.reason.as_str().to_owned(), message: refused.message.clone() };
    json(StatusCode::from_u16(refused.reason.status()).unwrap_or(StatusCode::FORBIDDEN), &body)
}

fn json<T: Serialize>(code: StatusCode, body: &T) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default())));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same in the words of Kubernetes.
fn reason(refusal: JoinRefusal) -> Reason {
    match refusal {
        JoinRefusal::BadRequest => Reason::BadRequest,
        JoinRefusal::TooMany => Reason::TooManyRequests,
        JoinRefusal::Unavailable => Reason::ServiceUnavailable,
        JoinRefusal::UnknownToken
        | JoinRefusal::TokenUsed
        | JoinRefusal::TokenExpired
        | JoinRefusal::WrongName
        | JoinRefusal::ClusterRevoked
        | JoinRefusal::NotAttested => Reason::Forbidden,
    }
}

fn size(response: &Response<Full<Bytes>>) -> u64 {
    http_body::Body::size_hint(response.body()).lower()
}

//! Requests that an agent makes over streams of its own: HTTP/1.1, one for each stream, as the cluster of its session.
//! One that asks for a service of the management cluster switches its stream, which then leads there ([`services`]).
//!
//! Spawned by the tunnel door for each session, and ended with it. Everything that an agent may send is bounded in size,
//! number and time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming as Body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_model::{Reason, Status};
use moorline_mux::{Incoming, Stream};
use moorline_wire::{RENEW_PATH, limits};

use super::renew;
use crate::{
    registry::Cluster,
    services::{self, origin::Origin},
    state::State,
    tunnel::session::Session,
};

/// Bytes of a request's head. Ours have about 200.
const MAX_HEAD: usize = 16 * 1024;

/// From the arrival of a stream to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one agent's requests until its session has ended. The multiplexer bounds how many there are at once.
pub(crate) async fn serve(state: Arc<State>, cluster: Arc<Cluster>, session: Arc<Session>, mut incoming: Incoming) {
    let origin = Origin::new(&state, &cluster, &session);
    while let Some(stream) = incoming.accept().await {
        let (shared, cluster, session) = (Arc::clone(&state), Arc::clone(&cluster), Arc::clone(&session));
        let origin = Arc::clone(&origin);
        state.tasks.spawn("agent-request", async move {
            let (phases, gone) = (shared.phases.clone(), stream.watch());
            let served = tokio::time::timeout(PATIENCE, one(&shared, &cluster, &session, &origin, stream));
            tokio::select! {
                served = served => if served.is_err() {
                    tracing::debug!(cluster = %cluster.name(), "a request of an agent took too long and was dropped");
                },
                () = gone => {}
                () = phases.cancelled() => {}
            }
        });
    }
}

async fn one(state: &State, cluster: &Arc<Cluster>, session: &Session, origin: &Arc<Origin>, stream: Stream) {
    let gone = stream.watch();
    let answering = service_fn(async |request: Request<Body>| {
        if services::is_asked(request.uri().path()) {
            return Ok::<_, Infallible>(services::ask(origin, request, gone.clone()).await);
        }
        Ok(answer(state, cluster, session, request).await)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answering)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(cluster = %cluster.name(), %error, "a stream of an agent ended early");
    }
}

async fn answer(
    state: &State,
    cluster: &Arc<Cluster>,
    session: &Session,
    request: Request<Body>,
) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) != (&Method::POST, RENEW_PATH) {
        return refusal(&Status::failure(404, Reason::NotFound, "the server does not know such a request of an agent"));
    }
    let Ok(body) = Limited::new(request.into_body(), limits::AGENT_BODY).collect().await else {
        return refusal(&Status::failure(413, Reason::RequestEntityTooLarge, "the body is too large, or was cut"));
    };
    match renew::renew(state, cluster, session, &body.to_bytes()).await {
        Ok(answer) => json(StatusCode::OK, &answer, None),
        Err(refused) => refusal(&refused.status()),
    }
}

/// A refusal as a response.
pub(crate) fn refusal(status: &Status) -> Response<Full<Bytes>> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, status, status.details.as_ref().and_then(|details| details.retry_after_seconds))
}

fn json<T: serde::Serialize>(code: StatusCode, body: &T, retry_after: Option<u32>) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

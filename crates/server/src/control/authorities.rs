//! The tunnel's authority over the management API: how it stands, and its rotation.
//!
//! Takes `get` and `update` on `certificateauthorities/tunnel`.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State as Shared, response::Response};
use http::StatusCode;
use moorline_access::Grant;
use moorline_api::FinishRotation;
use moorline_model::{Reason, Status};

use super::{
    answer::{Answer, Failure, json, receive},
    refused,
};
use crate::{
    enrolment::authorities::{self, RotationError},
    front::Caller,
    state::State,
};

/// Bytes of a request body: the names of clusters.
const MAX_BODY: usize = 1024 * 1024;

/// The resource in rules, and its one name.
const AUTHORITIES: &str = "certificateauthorities";
const TUNNEL: &str = "tunnel";

/// `GET /v1/certificateauthorities/tunnel`.
pub(super) async fn status(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    let _granted = authorize(&state, caller, "get").await?;
    Ok(json(StatusCode::OK, &authorities::status(&state)))
}

/// `POST …/rotate`.
pub(super) async fn rotate(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    let grant = authorize(&state, caller, "update").await?;
    let shared = Arc::clone(&state);
    done(&state, "rotate", &grant, to_its_end(&state, async move { authorities::rotate(&shared).await }).await)
}

/// `POST …/abort`.
pub(super) async fn abort(Shared(state): Shared<Arc<State>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let grant = authorize(&state, caller, "update").await?;
    let shared = Arc::clone(&state);
    done(&state, "abort", &grant, to_its_end(&state, async move { authorities::abort(&shared).await }).await)
}

/// `POST …/finish`.
pub(super) async fn finish(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Response> {
    let grant = authorize(&state, caller, "update").await?;
    let FinishRotation { abandon } = receive(body, MAX_BODY, "list of clusters to abandon").await?;
    let shared = Arc::clone(&state);
    let finishing = async move { authorities::finish(&shared, &abandon).await };
    done(&state, "finish", &grant, to_its_end(&state, finishing).await)
}

/// Also when the caller hangs up: what is on the disk and what is in use would otherwise tell different stories.
async fn to_its_end(
    state: &State,
    step: impl Future<Output = Result<(), RotationError>> + Send + 'static,
) -> Result<(), RotationError> {
    let ended = state.tasks.spawn("authority-change", step).await;
    ended.unwrap_or_else(|panicked| Err(RotationError::Disk(panicked.to_string())))
}

fn done(state: &State, step: &str, grant: &Grant, outcome: Result<(), RotationError>) -> Answer<Response> {
    outcome.map_err(|error| failure(state, &error))?;
    tracing::info!(step, user = grant.authenticated().user(), rule = grant.rule(), "authority of the tunnel");
    Ok(json(StatusCode::OK, &authorities::status(state)))
}

fn failure(state: &State, error: &RotationError) -> Failure {
    match error {
        RotationError::Disk(_) => Failure::internal("change the tunnel's authority", error),
        RotationError::UnderWay(_) | RotationError::None | RotationError::Behind(_) | RotationError::NotBehind(_) => {
            let status = Status::failure(409, Reason::Conflict, error.to_string());
            Failure::from(status.about(&state.api_group, AUTHORITIES, TUNNEL))
        }
    }
}

async fn authorize(state: &State, caller: Caller, verb: &str) -> Answer<Grant> {
    let Caller { identity, as_whom, request_id, notes } = caller;
    let user = identity.user().to_owned();
    let granted =
        moorline_access::manage_authorities(&state.judge(), &state.api_group, identity, as_whom, verb, TUNNEL).await;
    if let Ok(grant) = &granted {
        notes.allowed(grant);
    }
    granted.map_err(|denied| {
        notes.denied(&denied);
        refused(&denied, &request_id, &user, verb, Some(TUNNEL))
    })
}

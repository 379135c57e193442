//! Revoking a cluster's certificates: its sessions and all that runs on them are cut, its join tokens are worth nothing,
//! and it comes back by a new token or manifest only.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_model::Status;

use super::{
    RESOURCE,
    answer::{Answer, json},
    authorize,
    clusters::{parse, refused},
};
use crate::{clock, front::Caller, state::State};

/// `POST /v1/clusters/NAME/revocation`: takes `update` on the cluster.
pub(super) async fn revoke(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let grant = authorize(&state, caller, "update", Some(&name)).await?;
    let changed = state.clusters.update(&name, |record| {
        record.retire(|_none| false);
        record.join_tokens.clear();
        record.revoked = Some(clock::now());
        Ok::<(), Infallible>(())
    });
    changed.await.map_err(|error| refused(&state, &name, "revoke the cluster's certificates", &error))?;
    tracing::info!(cluster = %name, user = grant.authenticated().user(), rule = grant.rule(), "cluster revoked");
    Ok(json(StatusCode::OK, &Status::success().about(&state.api_group, RESOURCE, name.as_str())))
}

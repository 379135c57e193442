//! What happened to a cluster.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_api::ClusterEventList;

use super::{
    answer::{Answer, Failure, json},
    authorize, clusters,
};
use crate::{front::Caller, state::State};

/// `GET /v1/clusters/NAME/events`: the newest, oldest first, for whoever may get the cluster. Kept in memory: since this
/// server started at most.
pub(super) async fn events(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let name = clusters::parse(&state, &name)?;
    let _granted = authorize(&state, caller, "get", Some(&name)).await?;
    let cluster = state.registry.by_name(&name).ok_or_else(|| Failure::not_found(&state.api_group, name.as_str()))?;
    Ok(json(StatusCode::OK, &ClusterEventList::new(cluster.events())))
}

//! The management API under `/v1`: clusters, their enrolment, users with static tokens, what a caller may do, and how the
//! server fares.
//!
//! The gateway calls the router with an authenticated [`Caller`]; each handler asks `access` whether that caller may,
//! before it looks at anything else. Changes run to their end, whatever becomes of the caller.

mod answer;
mod authorities;
mod clusters;
mod events;
mod guardian;
pub(crate) mod issue;
mod join_tokens;
mod manifest;
mod migrate;
mod review;
mod revoke;
pub(crate) mod status;
mod users;

use std::sync::Arc;

use axum::{Router, routing};
use http::HeaderValue;
use moorline_access::{Denied, Grant};
use moorline_api::paths;
use moorline_model::{ClusterName, Reason, Status};

use crate::{front::Caller, state::State};

use answer::{Answer, Failure};

/// Every route of the management API, and a `Status` for everything else. Requests carry a [`Caller`].
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route(paths::CLUSTERS, routing::get(clusters::list).post(clusters::create))
        .route(&format!("{}/{{name}}", paths::CLUSTERS), routing::get(clusters::get).delete(clusters::delete))
        .route(&format!("{}/{{name}}/events", paths::CLUSTERS), routing::get(events::events))
        .route(&format!("{}/{{name}}/enrolment", paths::CLUSTERS), routing::post(manifest::create))
        .route(&format!("{}/{{name}}/migration", paths::CLUSTERS), routing::post(migrate::create))
        .route(
            &format!("{}/{{name}}/token", paths::CLUSTERS),
            routing::post(join_tokens::create).delete(join_tokens::delete),
        )
        .route(paths::JOIN_TOKENS, routing::get(join_tokens::list))
        .route(paths::USERS, routing::get(users::list).post(users::create))
        .route(&format!("{}/{{name}}", paths::USERS), routing::delete(users::delete))
        .route(&format!("{}/{{name}}/revocation", paths::CLUSTERS), routing::post(revoke::revoke))
        .route(paths::TUNNEL_AUTHORITY, routing::get(authorities::status))
        .route(&format!("{}/rotate", paths::TUNNEL_AUTHORITY), routing::post(authorities::rotate))
        .route(&format!("{}/abort", paths::TUNNEL_AUTHORITY), routing::post(authorities::abort))
        .route(&format!("{}/finish", paths::TUNNEL_AUTHORITY), routing::post(authorities::finish))
        .route(paths::ACCESS_REVIEWS, routing::post(review::review))
        .route(paths::STATUS, routing::get(status::status))
        .route(paths::VERSION, routing::get(status::version))
        .method_not_allowed_fallback(async || {
            Failure::from(Status::failure(405, Reason::MethodNotAllowed, "the server does not allow this method here"))
        })
        .fallback(async || {
            Failure::from(Status::failure(404, Reason::NotFound, "the server could not find the requested resource"))
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), answer::count))
        .with_state(state)
}

/// What the API calls clusters in messages and rules.
const RESOURCE: &str = "managedclusters";

/// Whether the caller may do this; the grant is what the log line of a change is made of.
async fn authorize(state: &State, caller: Caller, verb: &str, name: Option<&ClusterName>) -> Answer<Grant> {
    let Caller { identity, as_whom, request_id, notes } = caller;
    let user = identity.user().to_owned();
    let granted = moorline_access::administer(&state.judge(), &state.api_group, identity, as_whom, verb, name).await;
    if let Ok(grant) = &granted {
        notes.allowed(grant);
    }
    granted.map_err(|denied| {
        notes.denied(&denied);
        refused(&denied, &request_id, &user, verb, name.map(ClusterName::as_str))
    })
}

/// The answer to whom it was denied.
fn refused(denied: &Denied, request_id: &HeaderValue, user: &str, verb: &str, name: Option<&str>) -> Failure {
    let request_id = request_id.to_str().unwrap_or_default();
    tracing::info!(request_id, user, verb, name, %denied, "denied");
    Failure::from(denied.status())
}

//! The management API: clusters, their enrolment and their status.

pub(crate) mod issue;

use std::sync::Arc;

use axum::Router;

use crate::state::State;

/// Every route of the management API.
pub(crate) fn router(_state: Arc<State>) -> Router {
    Router::new()
}

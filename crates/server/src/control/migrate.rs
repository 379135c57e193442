//! The next agent of a cluster, which may speak another dialect: it gets a certificate beside the one before, whose sessions
//! go on until the new one carries requests.
//!
//! The store is changed first, and each change of it leaves a cluster whose present agent is let in. Whoever lost the answer
//! asks again: what was handed out and never seen makes room.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_access::Grant;
use moorline_api::{CreatedCluster, MigrateCluster};
use moorline_model::{ActiveFingerprint, ClusterName, Reason, Status};

use super::{
    RESOURCE,
    answer::{Answer, Failure, json, receive},
    authorize,
    clusters::{parse, refused},
    guardian, manifest,
};
use crate::{
    enrolment::{
        dialects::{self, TooMany},
        renew,
    },
    events::Happening,
    front::Caller,
    registry::Cluster,
    state::State,
};

/// Bytes of a request body: a word and a name.
const MAX_BODY: usize = 4096;

/// What the server cannot do then, in words.
const WHAT: &str = "keep the next certificate of the cluster in its store";

/// Why a cluster gets no next agent.
#[derive(Clone, Copy, Debug)]
enum NotBegun {
    /// Another cluster has the name now.
    Replaced,
    /// There is no room for another certificate.
    TooMany,
}

/// `POST /v1/clusters/NAME/migration`: takes the right to `create` the cluster, as every certificate does.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let grant = authorize(&state, caller, "create", Some(&name)).await?;
    let wanted: MigrateCluster = receive(body, MAX_BODY, "migration").await?;
    if let Some(namespace) = wanted.operator_namespace.as_deref().filter(|namespace| !guardian::is_label(namespace)) {
        let why = "must be the name of a namespace";
        return Err(Failure::invalid(&state.api_group, name.as_str(), "spec.operatorNamespace", namespace, why));
    }
    let known = state.registry.by_name(&name).ok_or_else(|| Failure::not_found(&state.api_group, name.as_str()))?;
    let begun = begin(&state, &known, wanted, &grant).await?;
    // Where the agent that is wanted was never left, it carries requests already.
    renew::settle(&state, &known).await;
    Ok(json(StatusCode::CREATED, &begun))
}

async fn begin(state: &State, known: &Arc<Cluster>, wanted: MigrateCluster, grant: &Grant) -> Answer<CreatedCluster> {
    let (name, uid) = (known.name(), known.uid());
    if known.record().certificate.is_some() {
        let taken_in = state.clusters.update(name, move |record| {
            if record.uid != uid {
                return Err(NotBegun::Replaced);
            }
            dialects::take_in_brought(record);
            Ok(())
        });
        taken_in.await.map_err(|error| match error.refusal() {
            Ok(why) => conflict(state, name, why),
            Err(error) => refused(state, name, WHAT, &error),
        })?;
    }
    let MigrateCluster { dialect, operator_namespace } = wanted;
    let issued = state.issuer.issue(name, &uid, dialect);
    let issued = issued.map_err(|error| Failure::internal("sign the agent's certificate", &error))?;
    let (fingerprint, not_after) = (issued.fingerprint, issued.not_after);
    let new = ActiveFingerprint { fingerprint, not_after, dialect, renews: None };
    let cluster = Arc::clone(known);
    let changed = state.clusters.update(name, move |record| {
        if record.uid != uid {
            return Err(NotBegun::Replaced);
        }
        dialects::begin(record, &cluster.seen(), new).map_err(|TooMany| NotBegun::TooMany)?;
        if let Some(namespace) = &operator_namespace {
            record.operator_namespace = Some(namespace.clone());
        }
        Ok(())
    });
    let (record, ()) = changed.await.map_err(|error| match error.refusal() {
        Ok(why) => conflict(state, name, why),
        Err(error) => refused(state, name, WHAT, &error),
    })?;
    let how = format!("a manifest for an agent that speaks {dialect}");
    state.events.emit(known, Happening::Enrolled { how, fingerprint });
    let (user, rule) = (grant.authenticated().user(), grant.rule());
    tracing::info!(cluster = %name, user, rule, %fingerprint, %dialect, "cluster begins to migrate");
    Ok(manifest::answer(state, &record, issued))
}

fn conflict(state: &State, name: &ClusterName, why: NotBegun) -> Failure {
    let text = match why {
        NotBegun::Replaced => format!("{name} was deleted and made anew meanwhile"),
        NotBegun::TooMany => format!("{TooMany}: let its agents settle, or revoke it (moorline cluster revoke {name})"),
    };
    Failure::from(Status::failure(409, Reason::Conflict, text).about(&state.api_group, RESOURCE, name.as_str()))
}

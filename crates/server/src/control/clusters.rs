//! Registering, showing and deleting clusters.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Path, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_access::Grant;
use moorline_api::{CreateJoinToken, CreatedCluster, CreatedJoinToken, ManagedCluster, ManagedClusterList};
use moorline_model::{ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Reason, Status, check_labels};
use serde::Deserialize;

use super::{
    RESOURCE,
    answer::{Answer, Failure, json, receive},
    authorize, join_tokens, manifest, status,
};
use crate::{clock, clusters::ChangeError, front::Caller, state::State};

/// Bytes of a request body: a name and at most 64 labels.
const MAX_BODY: usize = 64 * 1024;

/// What a caller wants, before its values are checked: a bad name is to be answered as such, not as bad JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    join: Option<CreateJoinToken>,
}

/// `GET /v1/clusters`: all clusters, by name.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let _granted = authorize(&state, caller, "list", None).await?;
    let mut clusters = state.registry.clusters();
    clusters.sort_by(|one, other| one.name().cmp(other.name()));
    let items = clusters.iter().map(|cluster| ManagedCluster::new(&cluster.record(), status::of(cluster))).collect();
    Ok(json(StatusCode::OK, &ManagedClusterList::new(items)))
}

/// `GET /v1/clusters/NAME`.
pub(super) async fn get(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let _granted = authorize(&state, caller, "get", Some(&name)).await?;
    let cluster = state.registry.by_name(&name).ok_or_else(|| Failure::not_found(&state.api_group, name.as_str()))?;
    Ok(json(StatusCode::OK, &ManagedCluster::new(&cluster.record(), status::of(&cluster))))
}

/// `POST /v1/clusters`: the record, and the certificate and key of its agent, given once.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Response> {
    let notes = caller.notes.clone();
    let grant = authorize(&state, caller, "create", None).await?;
    let (name, labels, join) = read(&state, body).await?;
    notes.names(name.as_str());
    if let Some(wanted) = join {
        return Ok(json(StatusCode::CREATED, &make_joinable(&state, name, labels, wanted, &grant).await?));
    }
    let created = make(&state, name, labels, &grant).await?;
    Ok(json(StatusCode::CREATED, &created))
}

/// `DELETE /v1/clusters/NAME`: its sessions are cut at once, and its certificate is worth nothing any more.
pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let grant = authorize(&state, caller, "delete", Some(&name)).await?;
    let deleted = state.clusters.delete(&name).await;
    deleted.map_err(|error| refused(&state, &name, "delete the cluster from its store", &error))?;
    tracing::info!(cluster = %name, user = grant.authenticated().user(), rule = grant.rule(), "cluster deleted");
    let status = Status::success().about(&state.api_group, RESOURCE, name.as_str());
    Ok(json(StatusCode::OK, &status))
}

pub(super) fn parse(state: &State, name: &str) -> Answer<ClusterName> {
    // What is no name is the name of nothing.
    name.parse().ok().ok_or_else(|| Failure::not_found(&state.api_group, name))
}

async fn read(state: &State, body: Body) -> Answer<(ClusterName, BTreeMap<String, String>, Option<CreateJoinToken>)> {
    let Wanted { name, labels, join } = receive(body, MAX_BODY, "cluster to create").await?;
    let invalid = |field: &str, value: &str, why: &str| Failure::invalid(&state.api_group, &name, field, value, why);
    let parsed: ClusterName = name
        .parse()
        .map_err(|error: moorline_model::InvalidClusterName| invalid("metadata.name", &name, &error.to_string()))?;
    if parsed.is_reserved() {
        return Err(invalid("metadata.name", &name, "this name stands for the management cluster itself"));
    }
    check_labels(&labels)
        .map_err(|error| invalid("metadata.labels", &format!("{} labels", labels.len()), &error.to_string()))?;
    Ok((parsed, labels, join))
}

async fn make(
    state: &State,
    name: ClusterName,
    labels: BTreeMap<String, String>,
    grant: &Grant,
) -> Answer<CreatedCluster> {
    let uid = ClusterUid::from_bytes(rand::random());
    let issued =
        state.issuer.issue(&name, &uid).map_err(|error| Failure::internal("sign the agent's certificate", &error))?;
    let record = ClusterRecord {
        labels,
        fingerprints: vec![ActiveFingerprint { fingerprint: issued.fingerprint, not_after: issued.not_after }],
        ..ClusterRecord::new(name, uid, clock::now())
    };
    let created = state.clusters.create(record.clone()).await;
    created.map_err(|error| refused(state, &record.name, "keep the new cluster in its store", &error))?;
    let (cluster, rule) = (&record.name, grant.rule());
    tracing::info!(%cluster, user = grant.authenticated().user(), rule, fingerprint = %issued.fingerprint, "cluster created");
    Ok(manifest::answer(state, &record, issued))
}

/// A cluster whose agent is to join: no certificate stands for it yet, and one token lets one in.
async fn make_joinable(
    state: &State,
    name: ClusterName,
    labels: BTreeMap<String, String>,
    wanted: CreateJoinToken,
    grant: &Grant,
) -> Answer<CreatedJoinToken> {
    let (token, created) = join_tokens::mint(state, &name, wanted, grant)?;
    let record = ClusterRecord {
        labels,
        join_tokens: vec![token],
        ..ClusterRecord::new(name.clone(), ClusterUid::from_bytes(rand::random()), clock::now())
    };
    let made = state.clusters.create(record).await;
    made.map_err(|error| refused(state, &name, "keep the new cluster in its store", &error))?;
    tracing::info!(cluster = %name, user = grant.authenticated().user(), rule = grant.rule(), "cluster created");
    join_tokens::log(&created, grant);
    Ok(created)
}

/// What a caller reads of a change that was not made; `what` completes "the server cannot".
pub(super) fn refused(state: &State, name: &ClusterName, what: &'static str, error: &ChangeError) -> Failure {
    match error {
        ChangeError::NotFound(_) => Failure::not_found(&state.api_group, name.as_str()),
        ChangeError::Exists(_) => {
            let text = format!("{RESOURCE}.{} {:?} already exists", state.api_group, name.as_str());
            let status = Status::failure(409, Reason::AlreadyExists, text);
            Failure::from(status.about(&state.api_group, RESOURCE, name.as_str()))
        }
        ChangeError::Unavailable(_) => Failure::unavailable(what, error),
        ChangeError::FingerprintTaken { .. } | ChangeError::Failed(_) => Failure::internal(what, error),
        ChangeError::Refused(never) => match *never {},
    }
}

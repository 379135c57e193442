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
use moorline_api::{
    CreateJoinToken, CreatedCluster, CreatedJoinToken, JoinableCluster, ManagedCluster, ManagedClusterList,
};
use moorline_model::{
    ActiveFingerprint, Attestation, ClusterName, ClusterRecord, ClusterUid, Dialect, JoinToken, Reason, Status,
    check_labels,
};
use serde::Deserialize;

use super::{
    RESOURCE,
    answer::{Answer, Failure, json, receive},
    authorize, guardian, join_tokens, manifest, status,
};
use crate::{clock, clusters::ChangeError, enrolment::join::attested, front::Caller, state::State};

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
    #[serde(default)]
    attestation: Option<Attestation>,
    #[serde(default)]
    dialect: Dialect,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default, rename = "operatorNamespace")]
    operator_namespace: Option<String>,
}

/// The same as meant.
pub(super) struct Meant {
    pub(super) name: ClusterName,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) join: Option<CreateJoinToken>,
    pub(super) attestation: Option<Attestation>,
    pub(super) dialect: Dialect,
    pub(super) certificate: Option<String>,
    pub(super) operator_namespace: Option<String>,
}

/// `GET /v1/clusters`: all clusters, by name.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let _granted = authorize(&state, caller, "list", None).await?;
    let mut clusters = state.registry.clusters();
    clusters.sort_by(|one, other| one.name().cmp(other.name()));
    let items =
        clusters.iter().map(|cluster| ManagedCluster::new(&cluster.record(), status::of(&state, cluster))).collect();
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
    Ok(json(StatusCode::OK, &ManagedCluster::new(&cluster.record(), status::of(&state, &cluster))))
}

/// `POST /v1/clusters`: the record, and the certificate and key of its agent, given once.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Response> {
    let notes = caller.notes.clone();
    let grant = authorize(&state, caller, "create", None).await?;
    let meant = read(&state, body).await?;
    notes.names(meant.name.as_str());
    if meant.certificate.is_some() {
        let record = register(&state, meant, Vec::new(), &grant).await?;
        return Ok(json(StatusCode::CREATED, &manifest::brought(&state, &record)));
    }
    Ok(match (meant.join, &meant.attestation) {
        (Some(wanted), _) => json(StatusCode::CREATED, &make_joinable(&state, meant, wanted, &grant).await?),
        (None, Some(_)) => json(StatusCode::CREATED, &make_attested(&state, meant, &grant).await?),
        (None, None) => json(StatusCode::CREATED, &make(&state, meant, &grant).await?),
    })
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

async fn read(state: &State, body: Body) -> Answer<Meant> {
    let wanted: Wanted = receive(body, MAX_BODY, "cluster to create").await?;
    let Wanted { name, labels, join, attestation, dialect, certificate, operator_namespace } = wanted;
    let invalid = |field: &str, value: &str, why: &str| Failure::invalid(&state.api_group, &name, field, value, why);
    let parsed: ClusterName = name
        .parse()
        .map_err(|error: moorline_model::InvalidClusterName| invalid("metadata.name", &name, &error.to_string()))?;
    if parsed.is_reserved() {
        return Err(invalid("metadata.name", &name, "this name stands for the management cluster itself"));
    }
    check_labels(&labels)
        .map_err(|error| invalid("metadata.labels", &format!("{} labels", labels.len()), &error.to_string()))?;
    if let Some(attestation) = &attestation {
        attested::acceptable(attestation)
            .map_err(|(field, why)| invalid(&format!("attestation.{field}"), "not shown", &why))?;
    }
    let meant = Meant { name: parsed, labels, join, attestation, dialect, certificate, operator_namespace };
    guardian::fits(&meant).map_err(|(field, value, why)| invalid(field, &value, &why))?;
    Ok(meant)
}

async fn make(state: &State, meant: Meant, grant: &Grant) -> Answer<CreatedCluster> {
    let Meant { name, labels, dialect, operator_namespace, .. } = meant;
    let uid = ClusterUid::from_bytes(rand::random());
    let issued = state.issuer.issue(&name, &uid, dialect);
    let issued = issued.map_err(|error| Failure::internal("sign the agent's certificate", &error))?;
    let (fingerprint, not_after) = (issued.fingerprint, issued.not_after);
    let record = ClusterRecord {
        labels,
        dialect,
        operator_namespace,
        fingerprints: vec![ActiveFingerprint { fingerprint, not_after, dialect, renews: None }],
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
    meant: Meant,
    wanted: CreateJoinToken,
    grant: &Grant,
) -> Answer<CreatedJoinToken> {
    let (token, created) = join_tokens::mint(state, &meant.name, wanted, grant)?;
    drop(register(state, meant, vec![token], grant).await?);
    join_tokens::log(&created, grant);
    Ok(created)
}

/// A cluster whose agent is to join by what its Kubernetes attests.
async fn make_attested(state: &State, meant: Meant, grant: &Grant) -> Answer<JoinableCluster> {
    let record = register(state, meant, Vec::new(), grant).await?;
    let status = state.registry.by_name(&record.name).map(|cluster| status::of(state, &cluster)).unwrap_or_default();
    Ok(JoinableCluster {
        cluster: ManagedCluster::new(&record, status),
        management_cluster_addr: state.issuer.address().to_owned(),
        ca_pins: join_tokens::pins(&state.issuer.roots().0),
    })
}

/// Registers a cluster that no certificate of ours stands for yet.
async fn register(state: &State, meant: Meant, join_tokens: Vec<JoinToken>, grant: &Grant) -> Answer<ClusterRecord> {
    let Meant { name, labels, attestation, dialect, certificate, operator_namespace, join: _ } = meant;
    let record = ClusterRecord {
        labels,
        attestation,
        dialect,
        certificate,
        operator_namespace,
        join_tokens,
        ..ClusterRecord::new(name, ClusterUid::from_bytes(rand::random()), clock::now())
    };
    let made = state.clusters.create(record.clone()).await;
    made.map_err(|error| refused(state, &record.name, "keep the new cluster in its store", &error))?;
    tracing::info!(cluster = %record.name, user = grant.authenticated().user(), rule = grant.rule(), "cluster created");
    Ok(record)
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
        // Whose it is may be none of the caller's business.
        ChangeError::FingerprintTaken { fingerprint, .. } => {
            let text = format!("the certificate {fingerprint} stands for another cluster already");
            let status = Status::failure(409, Reason::Conflict, text);
            Failure::from(status.about(&state.api_group, RESOURCE, name.as_str()))
        }
        ChangeError::Unavailable(_) => Failure::unavailable(what, error),
        ChangeError::Failed(_) => Failure::internal(what, error),
        ChangeError::Refused(never) => match *never {},
    }
}

//! Join tokens: made, shown and revoked. What one lets in is decided by `enrolment`.
//!
//! They are `managedclusters/token` in rules, as Kubernetes has `serviceaccounts/token`: `create` and `delete` on a
//! cluster's name, and `list`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_access::Grant;
use moorline_api::{CreateJoinToken, CreatedJoinToken, JoinToken, JoinTokenList};
use moorline_model::{ClusterName, ClusterRecord, Dialect, Fingerprint, Reason, Status};
use moorline_pki::CertificateInfo;
use serde::Deserialize;

use super::{
    RESOURCE,
    answer::{Answer, Failure, json, receive},
    clusters::{self, parse},
    refused,
};
use crate::{
    clock,
    clusters::ChangeError,
    enrolment::tokens::{self, NoRoom},
    front::Caller,
    state::State,
};

/// Bytes of a request body: one number.
const MAX_BODY: usize = 1024;

/// What the server cannot do then, in words.
const WHAT: &str = "keep the cluster's join tokens in its store";

/// Which token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    id: String,
}

/// Why a cluster gets no token.
#[derive(Debug)]
enum NotMade {
    NoRoom,
    /// Its agent has no key of its own that could join.
    Guardian,
    /// Its owner brought the certificate.
    Brought,
}

/// `GET /v1/jointokens`: all of them, by cluster.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let _granted = authorize(&state, caller, "list", None).await?;
    let mut clusters = state.registry.clusters();
    clusters.sort_by(|one, other| one.name().cmp(other.name()));
    let now = clock::now();
    let items = clusters.iter().flat_map(|cluster| {
        let record = cluster.record();
        record.join_tokens.iter().map(|token| JoinToken::new(&record.name, token, now)).collect::<Vec<_>>()
    });
    Ok(json(StatusCode::OK, &JoinTokenList::new(items.collect())))
}

/// `POST /v1/clusters/NAME/token`: a new one, whose text is given once.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let grant = authorize(&state, caller, "create", Some(&name)).await?;
    let wanted: CreateJoinToken = receive(body, MAX_BODY, "join token to create").await?;
    let (token, created) = mint(&state, &name, wanted, &grant)?;
    let changed = state.clusters.update(&name, move |record| put(record, &token)).await;
    changed.map_err(|error| not_made(&state, &name, error))?;
    log(&created, &grant);
    Ok(json(StatusCode::CREATED, &created))
}

/// `DELETE /v1/clusters/NAME/token?id=ID`: it lets nobody in any more. Who joined by it stays.
pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    let grant = authorize(&state, caller, "delete", Some(&name)).await?;
    let Query(Which { id }) = which.map_err(|error| Failure::bad_request(error.body_text()))?;
    let wanted = id.clone();
    let changed = state.clusters.update(&name, move |record| {
        let before = record.join_tokens.len();
        record.join_tokens.retain(|token| token.id != wanted);
        if record.join_tokens.len() == before { Err(()) } else { Ok(()) }
    });
    changed.await.map_err(|error| match error.refusal() {
        Ok(()) => {
            let text = format!("{RESOURCE}/token.{} {name}: no join token {id:?}", state.api_group);
            Failure::from(Status::failure(404, Reason::NotFound, text).about(&state.api_group, RESOURCE, name.as_str()))
        }
        Err(error) => clusters::refused(&state, &name, WHAT, &error),
    })?;
    let (user, rule) = (grant.authenticated().user(), grant.rule());
    tracing::info!(cluster = %name, token_id = id, user, rule, "join token revoked");
    Ok(json(StatusCode::OK, &Status::success().about(&state.api_group, RESOURCE, name.as_str())))
}

/// A token for a record, and what its maker is told, once.
///
/// # Errors
/// Its life is out of bounds.
pub(super) fn mint(
    state: &State,
    name: &ClusterName,
    wanted: CreateJoinToken,
    grant: &Grant,
) -> Answer<(moorline_model::JoinToken, CreatedJoinToken)> {
    let life = wanted.expiration_seconds.map_or(tokens::DEFAULT_LIFE, Duration::from_secs);
    if !(tokens::MIN_LIFE..=tokens::MAX_LIFE).contains(&life) {
        let why = format!(
            "must be from {} (5 minutes) to {} (7 days)",
            tokens::MIN_LIFE.as_secs(),
            tokens::MAX_LIFE.as_secs()
        );
        let given = life.as_secs().to_string();
        return Err(Failure::invalid(&state.api_group, name.as_str(), "expirationSeconds", &given, &why));
    }
    let now = clock::now();
    let way = (state.issuer.address(), pins(&state.issuer.roots().0));
    let (token, invitation) = tokens::mint(name, way, grant.identity().user(), now, life);
    let join_token = JoinToken::new(name, &token, now);
    Ok((
        token,
        CreatedJoinToken {
            join_token,
            token: invitation.to_text().into(),
            management_cluster_addr: invitation.address.clone(),
        },
    ))
}

/// Says in the log who made a token.
pub(super) fn log(created: &CreatedJoinToken, grant: &Grant) {
    let JoinToken { metadata, spec, .. } = &created.join_token;
    let (user, rule) = (grant.authenticated().user(), grant.rule());
    tracing::info!(cluster = %spec.cluster, token_id = metadata.name, expires = %spec.expires, user, rule, "join token created");
}

/// The SHA-256 of the public keys of authorities, by which whoever joins knows this server.
pub(super) fn pins(roots: &str) -> Vec<Fingerprint> {
    let authorities = moorline_pki::certificates_from_pem(roots.as_bytes()).unwrap_or_default();
    let infos = authorities.iter().filter_map(|authority| CertificateInfo::parse(authority).ok());
    infos.map(|info| moorline_pki::fingerprint(&info.public_key)).collect()
}

fn put(record: &mut ClusterRecord, token: &moorline_model::JoinToken) -> Result<(), NotMade> {
    if record.dialect == Dialect::Guardian {
        return Err(NotMade::Guardian);
    }
    if record.certificate.is_some() {
        return Err(NotMade::Brought);
    }
    tokens::add(record, token.clone(), clock::now()).map_err(|NoRoom| NotMade::NoRoom)
}

fn not_made(state: &State, name: &ClusterName, error: ChangeError<NotMade>) -> Failure {
    let text = match error.refusal() {
        Ok(NotMade::NoRoom) => format!("{NoRoom}: revoke one (moorline token list)"),
        Ok(NotMade::Guardian) => format!(
            "its agent is Calico's Guardian, which joins by a manifest only (to change to Moorline's own: moorline cluster \
             migrate {name} --dialect moorline)"
        ),
        Ok(NotMade::Brought) => "its certificate was brought by its owner, who has its key".to_owned(),
        Err(error) => return clusters::refused(state, name, WHAT, &error),
    };
    let text = format!("{RESOURCE}/token.{} {:?}: {text}", state.api_group, name.as_str());
    Failure::from(Status::failure(409, Reason::Conflict, text).about(&state.api_group, RESOURCE, name.as_str()))
}

async fn authorize(state: &State, caller: Caller, verb: &str, name: Option<&ClusterName>) -> Answer<Grant> {
    let Caller { identity, as_whom, request_id, notes } = caller;
    let user = identity.user().to_owned();
    let judge = state.judge();
    let granted = moorline_access::manage_join_tokens(&judge, &state.api_group, identity, as_whom, verb, name).await;
    if let Ok(grant) = &granted {
        notes.allowed(grant);
    }
    granted.map_err(|denied| {
        notes.denied(&denied);
        refused(&denied, &request_id, &user, verb, name.map(ClusterName::as_str))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_is_pinned_by_its_key() {
        let now = clock::now();
        let make = |name| moorline_ca::Authority::generate(name, now, Duration::from_secs(3600)).unwrap();
        let (one, two) = (make("one"), make("two"));
        let pin = |authority: &moorline_ca::Authority| moorline_pki::fingerprint(&authority.info().public_key);
        let both = format!("{}{}", one.certificate_pem(), two.certificate_pem());
        assert_eq!(pins(&both), [pin(&one), pin(&two)]);
        assert!(pins("").is_empty());
    }
}

//! What the agent of a registered cluster needs, for a cluster that was made without: by kubectl, by GitOps, or revoked.
//!
//! Once, as at registration: the key is in this one answer. What an operator applies is made of it by the crate
//! `manifest`, which knows what they want of the installation.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_access::Grant;
use moorline_api::{BroughtCluster, CreatedCluster, Enrolment, ManagedCluster};
use moorline_ca::Issued;
use moorline_model::{ActiveFingerprint, ClusterName, ClusterRecord, Dialect, Reason, Status};

use super::{
    RESOURCE,
    answer::{Answer, Failure, json},
    authorize,
    clusters::{parse, refused},
    status,
};
use crate::{clusters, events::Happening, front::Caller, state::State};

/// Why a cluster gets no first certificate.
#[derive(Clone, Debug)]
enum Held {
    /// One stands for it already.
    Enrolled(Dialect),
    /// Its owner brought one.
    Brought,
    /// The one that its owner brought is revoked, or was replaced.
    Retired,
    /// The one that its owner brought can stand for nobody.
    Unusable(String),
}

/// `POST /v1/clusters/NAME/enrolment`: a certificate for a cluster that has none, or what a Guardian's takes that its owner
/// brought.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let name = parse(&state, &name)?;
    // Whoever has it can be the cluster's agent: it takes the right to make one.
    let grant = authorize(&state, caller, "create", Some(&name)).await?;
    let known = state.registry.by_name(&name).ok_or_else(|| Failure::not_found(&state.api_group, name.as_str()))?;
    let record = known.record();
    if record.dialect == Dialect::Guardian && record.certificate.is_some() {
        return Ok(json(StatusCode::OK, &welcome_brought(&state, &name, &grant).await?));
    }
    Ok(json(StatusCode::CREATED, &enrol(&state, &name, &grant).await?))
}

/// What a Guardian needs whose owner brought its certificate; one that was revoked lets another in.
async fn welcome_brought(state: &State, name: &ClusterName, grant: &Grant) -> Answer<BroughtCluster> {
    let changed = state.clusters.update(name, |record| {
        let certificate = clusters::brought::certificate(record).map_err(Held::Unusable)?;
        let Some(certificate) = certificate else { return Err(Held::Brought) };
        if record.retired.contains(&certificate.fingerprint) {
            return Err(Held::Retired);
        }
        Ok(record.revoked.take().map(|_moment| certificate.fingerprint))
    });
    let (record, again) = changed.await.map_err(|error| match error.refusal() {
        Ok(held) => conflict(state, name, &held),
        Err(error) => refused(state, name, "keep the certificate of the cluster in its store", &error),
    })?;
    if let Some(fingerprint) = again {
        tracing::info!(cluster = %name, user = grant.authenticated().user(), rule = grant.rule(), %fingerprint, "cluster enrolled");
    }
    Ok(brought(state, &record))
}

async fn enrol(state: &State, name: &ClusterName, grant: &Grant) -> Answer<CreatedCluster> {
    let known = state.registry.by_name(name).ok_or_else(|| Failure::not_found(&state.api_group, name.as_str()))?;
    unenrolled(&known.record()).map_err(|held| conflict(state, name, &held))?;
    let dialect = known.record().dialect;
    let issued = state.issuer.issue(name, &known.record().uid, dialect);
    let issued = issued.map_err(|error| Failure::internal("sign the agent's certificate", &error))?;
    let (fingerprint, not_after, uid) = (issued.fingerprint, issued.not_after, known.record().uid);
    let changed = state.clusters.update(name, move |record| {
        if record.uid != uid || record.dialect != dialect {
            // Deleted and made anew meanwhile: the certificate says another uid. Or made to speak otherwise.
            return Err(Held::Enrolled(record.dialect));
        }
        unenrolled(record)?;
        record.fingerprints = vec![ActiveFingerprint { fingerprint, not_after, dialect, renews: None }];
        record.revoked = None;
        Ok(())
    });
    let (record, ()) = changed.await.map_err(|error| match error.refusal() {
        Ok(held) => conflict(state, name, &held),
        Err(error) => refused(state, name, "keep the certificate of the cluster in its store", &error),
    })?;
    let how = "its manifest".to_owned();
    state.events.emit(&known, Happening::Enrolled { how, fingerprint });
    tracing::info!(cluster = %name, user = grant.authenticated().user(), rule = grant.rule(), %fingerprint, "cluster enrolled");
    Ok(answer(state, &record, issued))
}

fn unenrolled(record: &ClusterRecord) -> Result<(), Held> {
    match (&record.certificate, record.fingerprints.is_empty()) {
        (Some(_), _) => Err(Held::Brought),
        (None, false) => Err(Held::Enrolled(record.dialect)),
        (None, true) => Ok(()),
    }
}

fn conflict(state: &State, name: &ClusterName, held: &Held) -> Failure {
    let why = match held {
        Held::Enrolled(Dialect::Guardian) => format!(
            "{name} has a certificate already, and its key was handed out with it; to give its Guardian another beside it, \
             ask for a new manifest (moorline cluster migrate {name} --dialect guardian), or revoke that one first \
             (moorline cluster revoke {name}), which cuts its sessions"
        ),
        Held::Enrolled(Dialect::Moorline) => format!(
            "{name} has a certificate already, and its key was handed out with it; to give it another, let its agent \
             join beside it (moorline token create {name}), or revoke that one first (moorline cluster revoke {name}), \
             which cuts its sessions"
        ),
        Held::Brought => format!("the owner of {name} brought a certificate; none is made for it"),
        Held::Retired => format!(
            "the certificate that the owner of {name} brought was revoked or replaced, and does not come back: put another \
             into spec.certificate, or take it out"
        ),
        Held::Unusable(why) => format!("the certificate that the owner of {name} brought cannot be used: {why}"),
    };
    let status = Status::failure(409, Reason::Conflict, why);
    Failure::from(status.about(&state.api_group, RESOURCE, name.as_str()))
}

/// The cluster as it is now, and what its Guardian needs besides the certificate that its owner has.
pub(super) fn brought(state: &State, record: &ClusterRecord) -> BroughtCluster {
    let status = state.registry.by_name(&record.name).map(|cluster| status::of(state, &cluster)).unwrap_or_default();
    BroughtCluster {
        cluster: ManagedCluster::new(record, status),
        management_cluster_addr: state.issuer.address().to_owned(),
        management_cluster_crt: state.issuer.authority_pem(),
    }
}

/// The cluster as it is now, and what its agent needs.
pub(super) fn answer(state: &State, record: &ClusterRecord, issued: Issued) -> CreatedCluster {
    let status = state.registry.by_name(&record.name).map(|cluster| status::of(state, &cluster)).unwrap_or_default();
    CreatedCluster {
        cluster: ManagedCluster::new(record, status),
        enrolment: Enrolment {
            management_cluster_addr: state.issuer.address().to_owned(),
            management_cluster_crt: state.issuer.authority_pem(),
            managed_cluster_crt: issued.certificate_pem,
            managed_cluster_key: issued.key_pem.into(),
        },
    }
}

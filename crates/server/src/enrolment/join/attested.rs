//! Joining without a secret that somebody carried: by a token that the managed cluster's Kubernetes made for the agent's
//! service account, and that is verified with the issuer's keys in the cluster's record.
//!
//! Called by `decide`. Only where the record says how. Such a token can be shown more than once while it lasts; each time
//! the newest certificate counts beside those in use, and the ones before it go when it has connected. It brings no
//! revoked cluster back: that takes somebody in the management cluster.

use std::sync::Arc;

use moorline_model::{ActiveFingerprint, Attestation, ClusterName, ClusterRecord, Dialect};
use moorline_oidc::Expected;
use moorline_pki::CertificateRequest;
use moorline_wire::{JoinAnswer, JoinRefusal};

use super::decide::{answer, broken, not_changed};
use crate::{
    enrolment::tokens::{Refused, enrol},
    events::Happening,
    state::State,
};

/// A certificate for whoever holds the token of a service account.
///
/// # Errors
/// [`Refused`]; nothing has changed then.
pub(super) async fn join(
    state: &State,
    name: ClusterName,
    token: &str,
    request: &CertificateRequest,
) -> Result<JoinAnswer, Refused> {
    let cluster = state.registry.by_name(&name).ok_or_else(|| not_attested(&name, "there is no such cluster"))?;
    let record = cluster.record();
    let attestation = record.attestation.clone().ok_or_else(|| not_attested(&name, "its record names no issuer"))?;
    check(&attestation, token).map_err(|why| not_attested(&name, &why))?;
    refuse_revoked(&record)?;
    let signed = state.issuer.issue_for(&record.name, &record.uid, request);
    let (made, _roots) = signed.map_err(|error| broken("sign the certificate", &error))?;
    let new = ActiveFingerprint {
        fingerprint: made.fingerprint,
        not_after: made.not_after,
        dialect: Dialect::Moorline,
        renews: None,
    };
    let (uid, shared) = (record.uid, Arc::clone(&cluster));
    let shown = name.clone();
    let changed = state.clusters.update(&name, move |record| {
        if record.uid != uid || record.attestation.as_ref() != Some(&attestation) {
            return Err(not_attested(&shown, "the record has changed meanwhile"));
        }
        refuse_revoked(record)?;
        enrol(record, &shared.seen(), new)
    });
    changed.await.map_err(not_changed)?;
    let how = "the token of its service account".to_owned();
    state.events.emit(&cluster, Happening::Enrolled { how, fingerprint: new.fingerprint });
    Ok(answer(state, name, made.certificate_pem))
}

/// Bounds of what a record says of an issuer, as the custom resource has them.
const MAX_ISSUER: usize = 2048;
const MAX_AUDIENCE: usize = 253;
const MAX_JWKS: usize = 48 * 1024;

/// Whether an attestation can let anybody in at all.
///
/// # Errors
/// The field, and what is wrong with it.
pub(crate) fn acceptable(attestation: &Attestation) -> Result<(), (&'static str, String)> {
    let Attestation { issuer, audience, subject, jwks } = attestation;
    let sized = |text: &str, most| !text.is_empty() && text.len() <= most;
    if !sized(issuer, MAX_ISSUER) {
        return Err(("issuer", format!("must have 1 to {MAX_ISSUER} characters")));
    }
    if !sized(audience, MAX_AUDIENCE) {
        return Err(("audience", format!("must have 1 to {MAX_AUDIENCE} characters")));
    }
    let account = subject.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    if account.is_none_or(|(namespace, name)| !sized(namespace, 63) || !sized(name, 253)) {
        return Err(("subject", "must be system:serviceaccount:NAMESPACE:NAME".to_owned()));
    }
    match jwks.as_deref().filter(|jwks| jwks.len() <= MAX_JWKS) {
        None => Err(("jwks", format!("must be the issuer's key set, of at most {MAX_JWKS} bytes"))),
        Some(jwks) => moorline_oidc::usable_keys(jwks).map_err(|why| ("jwks", why)),
    }
}

fn check(attestation: &Attestation, token: &str) -> Result<(), String> {
    let Attestation { issuer, audience, subject, jwks } = attestation;
    let jwks = jwks.as_deref().ok_or("its record holds no keys of the issuer")?;
    Expected { issuer, audience, subject, jwks }.check(token).map_err(|error| error.to_string())
}

fn refuse_revoked(record: &ClusterRecord) -> Result<(), Refused> {
    let Some(revoked) = record.revoked else { return Ok(()) };
    let name = &record.name;
    let message = format!(
        "the certificates of the cluster {name} were revoked at {revoked}: it comes back by a join token only: moorline \
         token create {name}"
    );
    Err(Refused { reason: JoinRefusal::ClusterRevoked, message })
}

/// Which of all it was goes to the log: whoever holds no good token is not told which clusters there are.
fn not_attested(name: &ClusterName, why: &str) -> Refused {
    tracing::info!(cluster = %name, why, "a service-account token does not let an agent join");
    let message = format!(
        "the service-account token does not let an agent join as the cluster {name}: its record must name the issuer, \
         the audience, the service account and the issuer's keys (kubectl get --raw /openid/v1/jwks), the token must be \
         of these and in its time. The management cluster's log says which of it is wrong"
    );
    Refused { reason: JoinRefusal::NotAttested, message }
}

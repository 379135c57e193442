//! Who gets a certificate: holds what was shown against the clusters' records, and makes the one change that joining is.
//!
//! Called by `request`. The token is consumed and the certificate stands for the cluster in one change of its record, or
//! neither happens.

use std::sync::Arc;

use moorline_model::{ActiveFingerprint, ClusterName, Dialect};
use moorline_pki::CertificateRequest;
use moorline_wire::{JoinAnswer, JoinProof, JoinRefusal, JoinRequest};

use super::attested;
use crate::{
    clock,
    clusters::ChangeError,
    enrolment::tokens::{Claim, Presented, Refused, enrol, hash},
    events::Happening,
    state::State,
};

/// A certificate for whoever may join.
///
/// # Errors
/// [`Refused`]; nothing has changed then.
pub(super) async fn decide(state: &State, asked: JoinRequest) -> Result<JoinAnswer, Refused> {
    let request = CertificateRequest::from_pem(asked.request.as_bytes()).map_err(|error| Refused {
        reason: JoinRefusal::BadRequest,
        message: format!("the certificate request {error}"),
    })?;
    match asked.proof {
        JoinProof::Token { id, secret } => {
            let presented = Presented { id, hash: hash(&secret) };
            by_token(state, asked.name, presented, request).await
        }
        JoinProof::Attestation(token) => attested::join(state, asked.name, &token, &request).await,
    }
}

async fn by_token(
    state: &State,
    name: ClusterName,
    presented: Presented,
    request: CertificateRequest,
) -> Result<JoinAnswer, Refused> {
    // All clusters are looked at, whichever it is: neither the time that this takes nor the answer tells who is there.
    let mut owner = None;
    for cluster in state.registry.clusters() {
        if presented.is_of(&cluster.record()) {
            owner = Some(cluster);
        }
    }
    let cluster = owner.ok_or_else(Refused::unknown)?;
    let record = cluster.record();
    if record.name != name {
        let message = format!(
            "this join token is for the cluster {}, not for {name}; use it there, or make one for {name}: moorline \
             token create {name}",
            record.name
        );
        return Err(Refused { reason: JoinRefusal::WrongName, message });
    }
    // Asked before anything is signed, and again where it counts.
    let certificate = match presented.claim(&record, &request, clock::now())? {
        Claim::Again(certificate) => certificate,
        Claim::Fresh => {
            let signed = state.issuer.issue_for(&record.name, &record.uid, &request);
            let (made, _roots) = signed.map_err(|error| broken("sign the certificate", &error))?;
            let new = ActiveFingerprint {
                fingerprint: made.fingerprint,
                not_after: made.not_after,
                dialect: Dialect::Moorline,
                renews: None,
            };
            let (uid, shared) = (record.uid, Arc::clone(&cluster));
            let how = format!("join token {}", presented.id);
            let changed = state.clusters.update(&name, move |record| {
                if record.uid != uid {
                    return Err(Refused::unknown());
                }
                let now = clock::now();
                match presented.claim(record, &request, now)? {
                    Claim::Again(certificate) => Ok(certificate),
                    Claim::Fresh => {
                        // As it is in this turn: an agent may have connected with a renewed certificate while we waited for it.
                        enrol(record, &shared.seen(), new)?;
                        presented.consume(record, request.key_fingerprint(), made.certificate_pem.clone(), now);
                        Ok(made.certificate_pem.clone())
                    }
                }
            });
            let (_record, certificate) = changed.await.map_err(not_changed)?;
            state.events.emit(&cluster, Happening::Enrolled { how, fingerprint: new.fingerprint });
            certificate
        }
    };
    Ok(answer(state, name, certificate))
}

/// What whoever has joined is told.
pub(super) fn answer(state: &State, name: ClusterName, certificate: String) -> JoinAnswer {
    let (roots, _hashes) = state.issuer.roots();
    JoinAnswer { name, address: state.issuer.address().to_owned(), certificate, roots }
}

pub(super) fn not_changed(error: ChangeError<Refused>) -> Refused {
    match error {
        ChangeError::Refused(refused) => refused,
        ChangeError::NotFound(_) => Refused::unknown(),
        ChangeError::Unavailable(_)
        | ChangeError::Exists(_)
        | ChangeError::FingerprintTaken { .. }
        | ChangeError::Failed(_) => broken("keep the certificate in its store", &error),
    }
}

/// The cause goes to the log, not to a stranger.
pub(super) fn broken(what: &str, error: &dyn std::error::Error) -> Refused {
    tracing::warn!(%error, "nobody can join: the server cannot {what}");
    let message = format!(
        "the management cluster cannot {what} now; its log says why. The join token was not used up: try again"
    );
    Refused { reason: JoinRefusal::Unavailable, message }
}

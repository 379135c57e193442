//! The next certificate of a cluster's agent, and the end of the one before.
//!
//! A renewal adds a certificate beside the one that asks; which of them counts is shown by the agent, which connects with
//! the new one when it has kept it. Only then, and when no session of an older one is left, does the older one go
//! ([`settle`]). So an agent or a server that dies at any moment finds a certificate that works: the old one until the new
//! one was seen, and the new one from the moment in which it was handed out.

use std::{sync::Arc, time::Duration};

use moorline_model::{ActiveFingerprint, ClusterRecord, Dialect, Fingerprint, Reason, Status};
use moorline_pki::{CertificateRequest, InvalidRequest};
use moorline_process::Phase;
use moorline_wire::{RenewAnswer, RenewRequest};
use thiserror::Error;
use tokio::time::Instant;

use super::dialects;
use crate::{
    clock, clusters::ChangeError, events::Happening, registry::Cluster, state::State, tunnel::session::Session,
};

/// How long another session's renewal is left alone: its agent is keeping the certificate and connecting with it.
/// A sixth of a life where that is shorter, so that short lives can be renewed in time.
const REST: Duration = Duration::from_secs(10);

/// How soon the same session may ask again, or a sixth of a life: each renewal is a write to the store, and other clusters
/// wait for their turn there.
const AGAIN: Duration = Duration::from_secs(30);

/// Certificates of one cluster at once: the one in use, the next, and those of sessions that are still being left.
const MOST: usize = 12;

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    /// The body is no request.
    #[error("the body is no renewal request")]
    Unreadable,
    /// What it holds is no certificate request.
    #[error("the certificate request {0}")]
    Request(#[from] InvalidRequest),
    /// Too soon after the last one.
    #[error("another renewal of this cluster is under way")]
    TooSoon(Duration),
    /// The certificate that asks lost its standing meanwhile.
    #[error("the certificate of this session stands for the cluster no more")]
    Disowned,
    /// There is nothing to renew.
    #[error("the certificate of this cluster was brought by its owner, who renews it")]
    Brought,
    /// Too many are in use.
    #[error("the cluster has {MOST} certificates in use already")]
    TooMany,
    /// Something here is broken.
    #[error("the server cannot renew the certificate now")]
    Internal(String),
}

/// Signs another certificate for the cluster of this session.
///
/// # Errors
/// [`Refused`]; nothing has changed then.
pub(crate) async fn renew(
    state: &State,
    cluster: &Arc<Cluster>,
    session: &Session,
    body: &[u8],
) -> Result<RenewAnswer, Refused> {
    let RenewRequest { request } = serde_json::from_slice(body).map_err(|_no_json| Refused::Unreadable)?;
    let request = CertificateRequest::from_pem(request.as_bytes())?;
    let record = cluster.record();
    let sixth = state.issuer.life() / 6;
    cluster.take_turn(session.id(), (REST.min(sixth), AGAIN.min(sixth)), Instant::now()).map_err(Refused::TooSoon)?;
    let signed = state.issuer.issue_for(&record.name, &record.uid, &request);
    let (certified, roots) = signed.map_err(|error| Refused::Internal(error.to_string()))?;
    let asking = session.about().fingerprint;
    let new = ActiveFingerprint {
        fingerprint: certified.fingerprint,
        not_after: certified.not_after,
        dialect: Dialect::Moorline,
        renews: Some(asking),
    };
    let (shared, uid) = (Arc::clone(cluster), record.uid);
    let changed = state.clusters.update(&record.name, move |record| {
        if record.uid != uid {
            return Err(Refused::Disowned);
        }
        add(record, &shared.seen(), asking, new)
    });
    match changed.await {
        Ok(_) => {}
        Err(ChangeError::Refused(refused)) => return Err(refused),
        Err(ChangeError::NotFound(_)) => return Err(Refused::Disowned),
        Err(other) => return Err(Refused::Internal(other.to_string())),
    }
    session.renewed();
    let (fingerprint, not_after) = (new.fingerprint, new.not_after);
    state.events.emit(cluster, Happening::Renewed { fingerprint, not_after });
    tracing::info!(
        cluster = %record.name, session = %session.id(), fingerprint = %new.fingerprint, not_after = %new.not_after,
        "certificate renewed"
    );
    Ok(RenewAnswer { certificate: certified.certificate_pem, roots })
}

/// Puts a certificate beside those in use. One that the same holder was given before, and that is not among those `seen`,
/// makes room: it asks again. What was handed out and waits for its first use stays, and stays newer: whoever comes with
/// that takes over from all.
fn add(
    record: &mut ClusterRecord,
    seen: &[Fingerprint],
    asking: Fingerprint,
    new: ActiveFingerprint,
) -> Result<(), Refused> {
    if !record.accepts(&asking) {
        return Err(Refused::Disowned);
    }
    if brought(record) == Some(asking) {
        return Err(Refused::Brought);
    }
    let unseen = |active: &ActiveFingerprint| active.fingerprint != asking && !seen.contains(&active.fingerprint);
    record.retire(|active| active.renews != Some(asking) || !unseen(active));
    if record.fingerprints.len() >= MOST {
        return Err(Refused::TooMany);
    }
    let waits = |active: &ActiveFingerprint| active.renews.is_none() && unseen(active);
    let at = record.fingerprints.iter().rposition(|active| !waits(active)).map_or(0, |last| last + 1);
    record.fingerprints.insert(at, new);
    Ok(())
}

/// The certificate that the cluster's owner brought.
fn brought(record: &ClusterRecord) -> Option<Fingerprint> {
    let pem = record.certificate.as_deref()?;
    let certificates = moorline_pki::certificates_from_pem(pem.as_bytes()).ok()?;
    certificates.first().map(|leaf| moorline_pki::fingerprint(leaf))
}

/// Lets go of certificates that were renewed: those older than the newest that has connected, and without a session; and
/// of those of a dialect that is left, also with one. Called whenever a session began or ended, or began to carry requests.
pub(crate) async fn settle(state: &State, cluster: &Arc<Cluster>) {
    if over(&cluster.record(), cluster).is_empty() || state.phases.current() >= Phase::Draining {
        return;
    }
    let (shared, uid) = (Arc::clone(cluster), cluster.record().uid);
    let changed = state.clusters.update(cluster.name(), move |record| {
        let old = over(record, &shared);
        if record.uid != uid || old.is_empty() {
            return Err(());
        }
        let others = record.fingerprints.iter().filter(|active| active.dialect != record.dialect);
        let others = others.filter(|active| old.contains(&active.fingerprint)).count();
        record.retire(|active| !old.contains(&active.fingerprint));
        Ok((old.len(), others))
    });
    match changed.await {
        Ok((record, (count, others))) => {
            tracing::info!(cluster = %cluster.name(), count, "certificates retired: newer ones took over");
            if others > 0 && !record.fingerprints.iter().any(|active| active.dialect != record.dialect) {
                state.events.emit(cluster, Happening::Migrated { to: record.dialect, retired: others });
            }
        }
        Err(ChangeError::Refused(()) | ChangeError::NotFound(_)) => {}
        // At the next session's beginning or end it is tried again.
        Err(error) => tracing::warn!(cluster = %cluster.name(), %error, "cannot retire certificates that were renewed"),
    }
}

fn over(record: &ClusterRecord, cluster: &Cluster) -> Vec<Fingerprint> {
    let mut over = superseded(record, cluster);
    over.extend(dialects::left(record, cluster));
    over
}

fn superseded(record: &ClusterRecord, cluster: &Cluster) -> Vec<Fingerprint> {
    let position = |fingerprint| record.fingerprints.iter().position(|active| Some(active.fingerprint) == fingerprint);
    let newest = position(cluster.proven()).unwrap_or_default();
    let dialect = record.fingerprints.get(newest).map(|active| active.dialect);
    let in_use = cluster.in_use();
    let older = record.fingerprints.iter().take(newest).filter(|active| Some(active.dialect) == dialect);
    let older = older.map(|active| active.fingerprint);
    older.filter(|fingerprint| !in_use.contains(fingerprint)).collect()
}

/// Whether a session whose own certificate has ended goes on, since its agent renewed over it: what it asked for is what
/// the cluster is known by now. Revocation ends it all the same.
pub(crate) fn outlives_its_certificate(cluster: &Cluster, session: &Session) -> bool {
    let now = clock::now();
    session.has_renewed() && cluster.record().fingerprints.iter().any(|active| active.not_after > now)
}

impl Refused {
    /// As the agent reads it.
    pub(crate) fn status(&self) -> Status {
        let (code, reason) = match self {
            Self::Unreadable => (400, Reason::BadRequest),
            Self::Request(_) => (422, Reason::Invalid),
            Self::TooSoon(wait) => {
                let seconds = u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
                return Status::failure(429, Reason::TooManyRequests, self.to_string()).retry_after(seconds);
            }
            Self::Disowned | Self::Brought => (403, Reason::Forbidden),
            Self::TooMany => (409, Reason::Conflict),
            Self::Internal(why) => {
                tracing::warn!(why, "cannot renew a certificate");
                (500, Reason::InternalError)
            }
        };
        Status::failure(code, reason, self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::{ClusterUid, Timestamp};

    use super::*;

    fn active(number: u8) -> ActiveFingerprint {
        ActiveFingerprint {
            fingerprint: Fingerprint::from_bytes([number; 32]),
            not_after: Timestamp::from_unix_seconds(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: None,
        }
    }

    fn renewed(record: &mut ClusterRecord, seen: &[u8], asking: u8, new: u8) -> Result<(), Refused> {
        let seen: Vec<_> = seen.iter().map(|number| active(*number).fingerprint).collect();
        let asking = active(asking).fingerprint;
        add(record, &seen, asking, ActiveFingerprint { renews: Some(asking), ..active(new) })
    }

    fn record(numbers: &[u8]) -> ClusterRecord {
        let created = Timestamp::from_unix_seconds(1_000_000_000);
        ClusterRecord {
            fingerprints: numbers.iter().copied().map(active).collect(),
            ..ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([7; 16]), created)
        }
    }

    fn numbers(record: &ClusterRecord) -> Vec<u8> {
        record.fingerprints.iter().map(|active| active.fingerprint.as_bytes()[0]).collect()
    }

    #[test]
    fn a_renewal_replaces_one_that_was_never_used_and_nothing_else() {
        let mut record = record(&[1]);
        renewed(&mut record, &[], 1, 2).unwrap();
        assert_eq!(numbers(&record), [1, 2]);
        renewed(&mut record, &[], 1, 3).unwrap();
        assert_eq!(numbers(&record), [1, 3], "the second was never seen");
        assert_eq!(record.retired, [active(2).fingerprint]);
        renewed(&mut record, &[1, 3], 3, 4).unwrap();
        assert_eq!(numbers(&record), [1, 3, 4], "one is still being left");
    }

    #[test]
    fn what_waits_for_its_first_use_outlives_a_renewal_of_what_it_is_to_replace() {
        let mut record = record(&[1, 9]);
        renewed(&mut record, &[1], 1, 2).unwrap();
        assert_eq!(numbers(&record), [1, 2, 9]);
        renewed(&mut record, &[1], 1, 3).unwrap();
        assert_eq!(numbers(&record), [1, 3, 9]);
        renewed(&mut record, &[1, 3], 3, 4).unwrap();
        assert_eq!(numbers(&record), [1, 3, 4, 9]);
        // Once it was used it is one of several.
        renewed(&mut record, &[4, 9], 4, 5).unwrap();
        assert_eq!(numbers(&record), [1, 3, 4, 9, 5]);
    }

    #[test]
    fn only_who_stands_for_the_cluster_renews() {
        let mut one = record(&[1]);
        assert!(matches!(renewed(&mut one, &[], 9, 2), Err(Refused::Disowned)));
        assert_eq!(numbers(&one), [1]);
        let all: Vec<u8> = (1..=12).collect();
        let mut full = record(&all);
        assert!(matches!(renewed(&mut full, &all, 1, 99), Err(Refused::TooMany)));
    }
}

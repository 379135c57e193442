//! Clusters that the store does not know are taken in by their certificates, for a time that somebody set: after a store
//! was restored from an older backup.
//!
//! Called by the tunnel door. What counts is what an authority of ours signed: the name and the uid. A name that is in use
//! by another cluster stays with that one, and what was revoked or replaced stays so.

use std::sync::Arc;

use moorline_model::{ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Dialect};
use moorline_mtls::VerifiedPeer;

use super::authorities;
use crate::{clock, state::State};

/// Takes in the cluster of this certificate, if that is allowed now and everything fits.
pub(crate) async fn adopt(state: &Arc<State>, peer: &VerifiedPeer) {
    let open = state.adopt_until.is_some_and(|until| clock::now() <= until);
    if !open || state.registry.by_fingerprint(&peer.fingerprint()).is_some() {
        return;
    }
    let Some((name, uid)) = named(peer) else { return };
    if is_guardians(peer) {
        tracing::warn!(cluster = %name, %uid, "not adopted: the certificate was issued for Calico's Guardian, and is shown by another agent");
        return;
    }
    let active = ActiveFingerprint {
        fingerprint: peer.fingerprint(),
        not_after: peer.not_after(),
        dialect: Dialect::Moorline,
        renews: None,
    };
    let known = state.registry.by_name(&name);
    let outcome = match known {
        None if name.is_reserved() => return,
        None => {
            let record =
                ClusterRecord { fingerprints: vec![active], ..ClusterRecord::new(name.clone(), uid, clock::now()) };
            state.clusters.create(record).await.map_err(|error| error.to_string())
        }
        Some(_) => {
            let adding = state.clusters.update(&name, move |record| {
                let refused = record.uid != uid || record.revoked.is_some() || record.certificate.is_some();
                if refused || record.retired.contains(&active.fingerprint) {
                    return Err(());
                }
                // The store is older than this certificate: whatever it has is of before.
                if !record.accepts(&active.fingerprint) {
                    record.fingerprints.push(active);
                }
                Ok(())
            });
            adding.await.map(drop).map_err(|error| error.to_string())
        }
    };
    match outcome {
        Ok(()) => {
            tracing::warn!(cluster = %name, %uid, fingerprint = %active.fingerprint, "a cluster was adopted by its certificate");
            let issuer = peer.info().map(|info| info.issuer).unwrap_or_default();
            let current = state.issuer.current();
            if current.leaving().is_some_and(|leaving| leaving.authority.info().subject == issuer) {
                authorities::also_left(state, active.fingerprint).await;
            }
        }
        Err(why) => tracing::warn!(cluster = %name, %uid, why, "a cluster was not adopted by its certificate"),
    }
}

/// Whether one of our certificates says that it is for Calico's Guardian: it opens the door of that dialect alone, where
/// nobody is adopted.
fn is_guardians(peer: &VerifiedPeer) -> bool {
    peer.info().is_ok_and(|info| info.uris.iter().any(|uri| uri == "moorline:dialect:guardian"))
}

/// The cluster that one of our certificates names.
pub(crate) fn named(peer: &VerifiedPeer) -> Option<(ClusterName, ClusterUid)> {
    let info = peer.info().ok()?;
    let of = |prefix: &str| info.uris.iter().find_map(|uri| uri.strip_prefix(prefix));
    Some((of("moorline:cluster:")?.parse().ok()?, of("moorline:cluster-uid:")?.parse().ok()?))
}

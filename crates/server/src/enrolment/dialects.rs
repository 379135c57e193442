//! A cluster's change from one dialect to the other: its next agent is let in while the one before stays connected, and
//! that one goes when the new one carries requests.
//!
//! Begun by `control`, ended by [`super::renew::settle`], which `tunnel::check` asks for whenever a request got through. A
//! record says which dialect is wanted; certificates of the other stand beside those of this one, each opening the door of
//! its own dialect alone. So whoever dies at any moment finds an agent that is let in, and to begin again is harmless.

use std::sync::Arc;

use moorline_model::{ActiveFingerprint, ClusterRecord, Dialect, Fingerprint};
use moorline_process::Phase;
use thiserror::Error;

use super::renew;
use crate::{
    clusters::brought,
    registry::Cluster,
    state::State,
    tunnel::{
        check::Carriage,
        session::{Session, Upstream},
    },
};

/// Certificates that one cluster may have at once, those of sessions that are still being left among them.
const MOST: usize = 12;

/// All certificates are in use: there is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the cluster has {MOST} certificates in use already")]
pub(crate) struct TooMany;

/// The certificate that its owner brought becomes one like others, so that it stays what it is while the record begins to
/// want another dialect. To be kept before [`begin`]: what is asked for and what is remembered may be written one after
/// the other.
pub(crate) fn take_in_brought(record: &mut ClusterRecord) {
    if record.revoked.is_none() {
        *record = brought::effective(record);
    }
}

/// The cluster is to speak as this certificate's holder does, who may connect from now on. Certificates of that dialect
/// that were handed out and never seen make room; `seen` are those that were.
///
/// # Errors
/// [`TooMany`].
pub(crate) fn begin(record: &mut ClusterRecord, seen: &[Fingerprint], new: ActiveFingerprint) -> Result<(), TooMany> {
    if record.revoked.take().is_some() {
        record.retire(|_none| false);
    }
    let of_this = |active: &ActiveFingerprint| active.dialect == new.dialect;
    let first = record.fingerprints.iter().find(|active| of_this(active)).map(|active| active.fingerprint);
    // While the cluster changes to this dialect already, those of it were all handed out for this very change. Else the first
    // is the one in use, also before it was seen since this server started.
    let changes = record.dialect == new.dialect && !record.fingerprints.iter().all(of_this);
    let first = first.filter(|_first| !changes);
    record.retire(|active| {
        // A renewed one is what its agent has kept, whether it came back with it already or not.
        let kept = !of_this(active) || Some(active.fingerprint) == first || active.renews.is_some();
        kept || seen.contains(&active.fingerprint)
    });
    if record.fingerprints.len() >= MOST {
        return Err(TooMany);
    }
    record.fingerprints.push(new);
    record.dialect = new.dialect;
    record.certificate = None;
    if new.dialect == Dialect::Guardian {
        // Guardian cannot join, and nobody else is wanted.
        record.join_tokens.clear();
    }
    Ok(())
}

/// Certificates of the dialect that is being left, once an agent of the wanted one carries requests.
pub(super) fn left(record: &ClusterRecord, cluster: &Cluster) -> Vec<Fingerprint> {
    let speaks = brought::effective(record);
    let wanted = |session: &&Arc<Session>| speaks.dialect_of(&session.about().fingerprint) == Some(record.dialect);
    if !cluster.sessions().iter().filter(wanted).any(|session| carries(session)) {
        return Vec::new();
    }
    let other = record.fingerprints.iter().filter(|active| active.dialect != record.dialect);
    other.map(|active| active.fingerprint).collect()
}

/// A request got through a session of this cluster: what it leaves by that may go.
pub(crate) fn carried(state: &Arc<State>, cluster: &Arc<Cluster>) {
    let record = cluster.record();
    let changes = record.fingerprints.iter().any(|active| active.dialect != record.dialect);
    if changes && state.phases.current() < Phase::Draining && !left(&record, cluster).is_empty() {
        let (shared, cluster) = (Arc::clone(state), Arc::clone(cluster));
        state.tasks.spawn("settle-dialect", async move { renew::settle(&shared, &cluster).await });
    }
}

/// Whether requests reach the kube-apiserver through it, as far as anybody can tell.
fn carries(session: &Session) -> bool {
    let asked = matches!(session.checked().carriage, Carriage::Carries | Carriage::Unasked);
    asked && session.is_usable() && session.told().upstream == Upstream::Well
}

#[cfg(test)]
mod tests {
    use moorline_model::{ClusterUid, Timestamp};

    use super::*;

    fn active(number: u8, dialect: Dialect) -> ActiveFingerprint {
        let not_after = Timestamp::from_unix_seconds(2_000_000_000);
        ActiveFingerprint { fingerprint: Fingerprint::from_bytes([number; 32]), not_after, dialect, renews: None }
    }

    fn ours(number: u8) -> ActiveFingerprint {
        active(number, Dialect::Moorline)
    }

    fn guardians(number: u8) -> ActiveFingerprint {
        active(number, Dialect::Guardian)
    }

    fn record(dialect: Dialect, fingerprints: &[ActiveFingerprint]) -> ClusterRecord {
        let created = Timestamp::from_unix_seconds(1_000_000_000);
        ClusterRecord {
            dialect,
            fingerprints: fingerprints.to_vec(),
            ..ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([7; 16]), created)
        }
    }

    fn numbers(record: &ClusterRecord) -> Vec<u8> {
        record.fingerprints.iter().map(|active| active.fingerprint.as_bytes()[0]).collect()
    }

    #[test]
    fn to_begin_again_leaves_one_certificate_for_each_dialect() {
        let mut record = record(Dialect::Moorline, &[ours(1), ours(2)]);
        begin(&mut record, &[], guardians(3)).unwrap();
        assert_eq!((record.dialect, numbers(&record)), (Dialect::Guardian, vec![1, 2, 3]), "those before stay");
        begin(&mut record, &[ours(2).fingerprint], guardians(4)).unwrap();
        assert_eq!(numbers(&record), [1, 2, 4], "the answer was lost");
        assert_eq!(record.retired, [guardians(3).fingerprint]);
        begin(&mut record, &[ours(2).fingerprint, guardians(4).fingerprint], guardians(5)).unwrap();
        assert_eq!(numbers(&record), [1, 2, 4, 5], "one is in use already");
        begin(&mut record, &[], ours(6)).unwrap();
        assert_eq!((record.dialect, numbers(&record)), (Dialect::Moorline, vec![1, 4, 5, 6]), "and back, to the first");
        for (new, left) in [(guardians(7), [1, 4, 6, 7]), (ours(9), [1, 4, 7, 9])] {
            begin(&mut record, &[], new).unwrap();
            assert_eq!(numbers(&record), left, "to and fro, and bounded");
        }
    }

    #[test]
    fn what_an_agent_has_renewed_is_not_what_was_handed_out() {
        let renewed = ActiveFingerprint { renews: Some(ours(1).fingerprint), ..ours(2) };
        let mut record = record(Dialect::Moorline, &[ours(1), renewed, ours(3)]);
        begin(&mut record, &[], ours(4)).unwrap();
        assert_eq!(numbers(&record), [1, 2, 4], "nobody has shown any of them since the server started");
        begin(&mut record, &[], guardians(5)).unwrap();
        begin(&mut record, &[], ours(6)).unwrap();
        assert_eq!(numbers(&record), [1, 2, 5, 6]);
    }

    #[test]
    fn a_fresh_one_of_the_same_dialect_stands_beside_the_first() {
        let mut record = record(Dialect::Guardian, &[guardians(1)]);
        for number in [2, 3] {
            begin(&mut record, &[], guardians(number)).unwrap();
            assert_eq!(numbers(&record), [1, number]);
        }
        let all: Vec<_> = (1..=12).map(guardians).collect();
        let seen: Vec<_> = all.iter().map(|active| active.fingerprint).collect();
        record.fingerprints = all;
        assert_eq!(begin(&mut record, &seen, guardians(99)), Err(TooMany));
    }

    #[test]
    fn what_was_revoked_stays_so() {
        let mut record = record(Dialect::Moorline, &[ours(1)]);
        record.revoked = Some(Timestamp::from_unix_seconds(1_500_000_000));
        take_in_brought(&mut record);
        begin(&mut record, &[], guardians(2)).unwrap();
        assert_eq!((numbers(&record), record.revoked), (vec![2], None));
        assert_eq!(record.retired, [ours(1).fingerprint]);
    }

    #[test]
    fn what_was_brought_keeps_its_dialect_and_goes_like_others() {
        let pem = include_str!("../../tests/fixtures/version-1.crt");
        let mut record = ClusterRecord { certificate: Some(pem.to_owned()), ..record(Dialect::Guardian, &[]) };
        let before = record.clone();
        take_in_brought(&mut record);
        assert_eq!((record.fingerprints.len(), &record.certificate), (1, &before.certificate));
        assert_eq!(brought::effective(&record), record, "once, as it counted before");
        begin(&mut record, &[], ours(2)).unwrap();
        assert_eq!((record.fingerprints[0].dialect, record.fingerprints.len()), (Dialect::Guardian, 2));
        // Somebody's manifest of the object brings it back: it does not become one of the other dialect.
        record.certificate = before.certificate;
        assert_eq!(brought::effective(&record), record);
        record.retire(|active| active.dialect == Dialect::Moorline);
        assert_eq!(brought::effective(&record), record);
    }
}

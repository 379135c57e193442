//! Whose certificate brings a session in, and when it no longer does.

use std::net::SocketAddr;

use moorline_model::{ActiveFingerprint, ClusterUid, Dialect};
use moorline_mux::{Config, Role};
use moorline_process::Tasks;

use super::*;
use crate::{
    clock,
    front::{
        guardian::places::Places,
        line::Line,
        pool::{Pool, PoolContext},
    },
    tunnel::session::Introduction,
};

const OVERDUE: Duration = Duration::from_secs(60);

fn certificate(number: u8) -> Fingerprint {
    Fingerprint::from_bytes([number; 32])
}

fn record(name: &str, number: u8) -> ClusterRecord {
    ClusterRecord {
        fingerprints: vec![ActiveFingerprint {
            fingerprint: certificate(number),
            not_after: clock::now(),
            dialect: Dialect::Moorline,
            renews: None,
        }],
        ..ClusterRecord::new(name.parse().unwrap(), ClusterUid::from_bytes([number; 16]), clock::now())
    }
}

fn session(cluster: &str) -> Arc<Session> {
    session_by(cluster, certificate(1)).0
}

/// With what keeps its connection open.
fn session_by(cluster: &str, fingerprint: Fingerprint) -> (Arc<Session>, impl Sized) {
    let metrics = moorline_process::Registry::new("test", "0");
    let pools = PoolContext {
        tasks: Tasks::new(&metrics),
        metrics: Arc::new(crate::front::metrics::Metrics::new(&metrics)),
        places: Places::within(1 << 20),
    };
    let (handle, incoming, driver) = moorline_mux::session(tokio::io::empty(), Config::new(Role::Server));
    let about = Introduction {
        id: SessionId::from_bytes([9; 16]),
        cluster: cluster.parse().unwrap(),
        remote: SocketAddr::from(([127, 0, 0, 1], 2)),
        fingerprint,
        certificate_ends: clock::now(),
        since: clock::now(),
        agent_version: "0".to_owned(),
        kubernetes_version: None,
        cluster_uid: None,
        abilities: crate::tunnel::session::Abilities::default(),
        trusts: Vec::new(),
    };
    (Arc::new(Session::new(about, handle.clone(), Line::Moorline(Pool::new(handle, pools)))), (driver, incoming))
}

/// Between the look at a certificate and the attachment the hello is judged: whatever changes meanwhile counts.
#[tokio::test]
async fn a_certificate_that_lost_its_cluster_meanwhile_brings_no_session_in() {
    let registry = Registry::new(vec![record("east", 1), record("west", 2)]);
    let attach = |number, to| registry.attach(&certificate(number), &session(to), 4, OVERDUE).map(|(owner, _)| owner);
    let east = registry.by_fingerprint(&certificate(1)).unwrap();
    assert!(Arc::ptr_eq(&attach(1, "east").unwrap(), &east));
    assert_eq!(attach(2, "east").err(), Some(AttachError::Disowned), "the certificate of another cluster");

    registry.remove(east.name()).unwrap().retire();
    assert_eq!(attach(1, "east").err(), Some(AttachError::Disowned), "deleted");
    assert!(east.sessions().iter().all(|session| !session.is_usable()));

    registry.insert(record("east", 3));
    assert_eq!(attach(1, "east").err(), Some(AttachError::Disowned), "another cluster of the same name");
    let reborn = attach(3, "east").unwrap();
    assert_eq!((reborn.sessions().len(), east.sessions().len()), (1, 1));
}

/// A renewal has two certificates for a while; the one that is taken away takes its sessions with it, and no others.
#[tokio::test]
async fn a_new_record_keeps_the_sessions_whose_certificate_it_has() {
    let registry = Registry::new(vec![record("east", 1)]);
    let attach = |number| {
        let (session, open) = session_by("east", certificate(number));
        registry.attach(&certificate(number), &session, 4, OVERDUE).map(|_| (session, open))
    };
    let (old, _open) = attach(1).unwrap();
    assert_eq!(attach(2).err(), Some(AttachError::Disowned));
    let mut renewed = record("east", 1);
    renewed.fingerprints.extend(record("east", 2).fingerprints);
    registry.update(&renewed);
    let (new, _open_too) = attach(2).unwrap();
    assert!(old.is_usable() && new.is_usable());

    registry.update(&record("east", 2));
    assert!(registry.by_fingerprint(&certificate(1)).is_some(), "another uid: another cluster, which is not here");
    renewed.retire(|active| active.fingerprint == certificate(2));
    registry.update(&renewed);
    assert!(registry.by_fingerprint(&certificate(1)).is_none());
    assert!(!old.is_usable() && new.is_usable());
    assert_eq!(*registry.by_name(&renewed.name).unwrap().record(), renewed);
}

/// A certificate opens the door of its dialect, and a session goes on for as long as it would be let in there.
#[tokio::test]
async fn a_session_ends_with_the_dialect_of_its_certificate() {
    let registry = Registry::new(vec![record("east", 1)]);
    let (ours, _open) = session_by("east", certificate(1));
    assert!(registry.attach(&certificate(1), &ours, 4, OVERDUE).is_ok());
    assert!(registry.by_certificate(&certificate(1), Dialect::Guardian).is_none());
    assert!(!registry.knows_guardians());

    let mut changed = record("east", 1);
    changed.fingerprints[0].dialect = Dialect::Guardian;
    registry.update(&changed);
    assert!(!ours.is_usable(), "cut");
    assert!(registry.by_certificate(&certificate(1), Dialect::Moorline).is_none());
    assert!(registry.knows_guardians());
    let (another, _open) = session_by("east", certificate(1));
    let attached = registry.attach(&certificate(1), &another, 4, OVERDUE);
    assert_eq!(attached.err(), Some(AttachError::Disowned), "by the wrong door");
    registry.remove(&changed.name).unwrap();
    assert!(!registry.knows_guardians());
}

#[test]
fn that_a_cluster_was_revoked_is_told_once_whoever_did_it() {
    let registry = Registry::new(vec![record("east", 1)]);
    let mut revoked = record("east", 1);
    revoked.revoked = Some(clock::now());
    registry.update(&revoked);
    registry.update(&revoked);
    let events = registry.by_name(&revoked.name).unwrap().events();
    assert_eq!(events.iter().map(|event| (event.reason.as_str(), event.count)).collect::<Vec<_>>(), [("Revoked", 1)]);
}

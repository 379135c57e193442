//! Whose certificate brings a session in, and when it no longer does.

use std::{collections::BTreeMap, net::SocketAddr};

use moorline_model::{ActiveFingerprint, ClusterUid, Dialect};
use moorline_mux::{Config, Role};
use moorline_process::Tasks;

use super::*;
use crate::{clock, front::pool::PoolContext, tunnel::session::Introduction};

const OVERDUE: Duration = Duration::from_secs(60);

fn certificate(number: u8) -> Fingerprint {
    Fingerprint::from_bytes([number; 32])
}

fn record(name: &str, number: u8) -> ClusterRecord {
    ClusterRecord {
        name: name.parse().unwrap(),
        uid: ClusterUid::from_bytes([number; 16]),
        labels: BTreeMap::new(),
        dialect: Dialect::default(),
        fingerprints: vec![ActiveFingerprint { fingerprint: certificate(number), not_after: clock::now() }],
        created: clock::now(),
    }
}

fn session(cluster: &str) -> Arc<Session> {
    let metrics = moorline_process::Registry::new("test", "0");
    let pools =
        PoolContext { tasks: Tasks::new(&metrics), metrics: Arc::new(crate::front::metrics::Metrics::new(&metrics)) };
    let (handle, _incoming, _driver) = moorline_mux::session(tokio::io::empty(), Config::new(Role::Server));
    let about = Introduction {
        id: SessionId::from_bytes([9; 16]),
        cluster: cluster.parse().unwrap(),
        remote: SocketAddr::from(([127, 0, 0, 1], 2)),
        certificate_ends: clock::now(),
        since: clock::now(),
        agent_version: "0".to_owned(),
        kubernetes_version: None,
        cluster_uid: None,
    };
    Arc::new(Session::new(about, handle.clone(), Pool::new(handle, pools)))
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

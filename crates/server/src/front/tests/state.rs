//! A whole [`State`] around what the gateway needs of it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use moorline_ca::Authority;
use moorline_model::{ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Dialect, Fingerprint, SessionId};
use moorline_mux::{Handle, MemoryBudget};
use moorline_process::{Registry as MetricRegistry, Shutdown};
use moorline_store::Embedded;
use tokio::sync::Semaphore;

use super::house::Parts;
use crate::{
    bootstrap::{StateDir, overlap::TunnelAuthorities},
    clock,
    clusters::{Clusters, store::embedded::OnThreads},
    config::{GatewayConfig, TunnelConfig},
    control::issue::{CertificateLives, Issuer},
    front::{authn::Chain, line::Line},
    metrics::Metrics,
    registry::Registry,
    state::State,
    tunnel::session::{Abilities, Introduction, Session},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn gateway() -> GatewayConfig {
    GatewayConfig {
        anonymous: false,
        max_connections: 16,
        max_handshakes: 4,
        handshake_timeout: Duration::from_secs(10),
        head_timeout: Duration::from_secs(120),
        open_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(90),
        recheck_interval: Duration::from_secs(10),
        max_requests_per_user: 64,
        max_requests_per_cluster: 128,
        user_rate: None,
        cluster_rate: None,
    }
}

fn tunnel() -> TunnelConfig {
    TunnelConfig {
        max_handshakes: 4,
        max_handshakes_per_address: 4,
        handshake_rate: 100,
        handshake_timeout: Duration::from_secs(10),
        hello_timeout: Duration::from_secs(10),
        max_sessions: 16,
        max_sessions_per_cluster: 4,
        heartbeat_interval: Duration::from_secs(5),
        probe_timeout: Duration::from_secs(2),
        check_interval: Duration::from_secs(15),
        check_timeout: Duration::from_secs(10),
        max_streams: 1024,
        memory_budget: 64 << 20,
    }
}

/// `east` with this session, `west` without any.
pub(crate) fn build(parts: Parts, handle: Handle, line: Line) -> (Arc<State>, Shutdown) {
    let dialect = match line {
        Line::Moorline(_) => Dialect::Moorline,
        Line::Guardian(_) => Dialect::Guardian,
    };
    let registry = Arc::new(Registry::new(vec![record("east", 1, dialect), record("west", 2, dialect)]));
    let session = Arc::new(Session::new(introduction(), handle, line));
    assert!(registry.attach(&certificate(1), &session, 1, DAY).is_ok());
    let directory = tempfile::tempdir().unwrap();
    let memory = MemoryBudget::new(64 << 20);
    let metrics = Metrics::new(&MetricRegistry::new("test", "0"), &memory);
    let store = Embedded::open(&directory.path().join("clusters.redb")).unwrap();
    let store = OnThreads::new(store, parts.tasks.clone());
    let state = State {
        clusters: Clusters::new(Box::new(store), Arc::clone(&registry), metrics.clusters.clone(), parts.tasks.clone()),
        events: registry.events().clone(),
        registry,
        started: clock::now(),
        issuer: Arc::new(
            Issuer::new(
                TunnelAuthorities { staying: Authority::generate("test", clock::now(), DAY).unwrap(), leaving: None },
                CertificateLives { moorline: DAY, guardian: DAY },
                "here:1".to_owned(),
            )
            .unwrap(),
        ),
        state_dir: StateDir::new(directory.path()),
        rotating: Semaphore::new(1),
        adopt_until: None,
        policy: ArcSwap::from_pointee(parts.policy),
        tokens: ArcSwap::from_pointee(parts.tokens),
        token_file: std::sync::Mutex::new((directory.path().join("tokens.csv"), moorline_pki::fingerprint(&[]))),
        authenticators: Chain::default(),
        access_reviews: None,
        audit: parts.audit,
        api_group: "moorline.io".to_owned(),
        gateway: parts.gateway,
        tunnel: tunnel(),
        checks: Semaphore::new(1),
        services: parts.services,
        metrics,
        memory,
        pools: parts.pools,
        tasks: parts.tasks,
        phases: parts.shutdown.phases(),
    };
    (Arc::new(state), parts.shutdown)
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn record(cluster: &str, number: u8, dialect: Dialect) -> ClusterRecord {
    ClusterRecord {
        fingerprints: vec![ActiveFingerprint {
            fingerprint: certificate(number),
            not_after: clock::now(),
            dialect,
            renews: None,
        }],
        ..ClusterRecord::new(name(cluster), ClusterUid::from_bytes([number; 16]), clock::now())
    }
}

fn certificate(number: u8) -> Fingerprint {
    Fingerprint::from_bytes([number; 32])
}

fn introduction() -> Introduction {
    Introduction {
        id: SessionId::from_bytes([9; 16]),
        cluster: name("east"),
        remote: ([127, 0, 0, 1], 2).into(),
        fingerprint: certificate(1),
        certificate_ends: clock::now(),
        since: clock::now(),
        agent_version: "0".to_owned(),
        kubernetes_version: None,
        cluster_uid: None,
        abilities: Abilities::default(),
        trusts: Vec::new(),
    }
}

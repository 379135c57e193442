//! A gateway with one connected cluster, `east`, one that is not connected, `west`, and users.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper_util::rt::TokioIo;
use moorline_access::{Policy, StaticTokens};
use moorline_ca::Authority;
use moorline_model::Dialect;
use moorline_mtls::{InnerConnector, KeyPair};
use moorline_mux::{Config, Role};
use moorline_process::{Plan, Registry, Shutdown, Tasks, shutdown::Outcome};
use tokio::{io::DuplexStream, task::JoinHandle};

use super::{agent::Agent, state, user::User};
use crate::{
    audit::{Audit, tests::Book},
    config::GatewayConfig,
    front::{
        Caller,
        doors::Doors,
        fairness::Fairness,
        guardian::{channels::Channels, places::Places},
        line::Line,
        listener,
        listener::Shared,
        metrics::Metrics,
        pool::{Pool, PoolContext},
        serve::Served,
    },
    services::{self, Services},
    state::State,
};

/// `alice` may reach every cluster and act as `bob` or as a member of `ops`; `mallory` may do nothing.
pub(super) const TOKENS: &str = "alice-token,alice,,\"dev\"\nmallory-token,mallory,,\n";

const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reach}
rules:
- {apiGroups: [moorline.io], resources: [managedclusters], verbs: [get]}
- {apiGroups: [""], resources: [users], resourceNames: [bob], verbs: [impersonate]}
- {apiGroups: [""], resources: [groups], resourceNames: [ops], verbs: [impersonate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reach}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}
"#;

pub(super) struct House {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    doors: Doors,
    pub(super) pool: Arc<Pool>,
    pub(super) places: Places,
    pub(super) agent: Agent,
    pub(super) tasks: Tasks,
    pub(super) shutdown: Shutdown,
}

/// What a [`State`] is made of, as far as the gateway is concerned.
pub(crate) struct Parts {
    pub(crate) policy: Policy,
    pub(crate) tokens: StaticTokens,
    pub(crate) gateway: GatewayConfig,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) pools: PoolContext,
    pub(crate) services: Services,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

impl House {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::build(change, None, Dialect::Moorline)
    }

    /// A house whose cluster has Calico's Guardian for an agent.
    pub(super) fn guardian(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::build(change, None, Dialect::Guardian)
    }

    /// A house whose requests leave a trail in that book.
    pub(super) fn audited(book: &Book) -> Self {
        Self::build(|_| {}, Some(Arc::clone(&book.audit)), Dialect::Moorline)
    }

    fn build(change: impl FnOnce(&mut GatewayConfig), audit: Option<Arc<Audit>>, dialect: Dialect) -> Self {
        let registry = Registry::new("test", "0");
        let tasks = Tasks::new(&registry);
        let mut gateway = state::gateway();
        change(&mut gateway);
        let metrics = Arc::new(Metrics::new(&registry));
        let places = Places::within(64 << 20);
        let pools = PoolContext { tasks: tasks.clone(), metrics: Arc::clone(&metrics), places: places.clone() };
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (handle, _incoming, driver) = moorline_mux::session(ours, Config::new(Role::Server).build().unwrap());
        tasks.spawn("server-session", driver);
        let pool = Pool::new(handle.clone(), pools.clone());
        let (agent, line) = match dialect {
            Dialect::Moorline => (Agent::start(theirs, &tasks), Line::Moorline(Arc::clone(&pool))),
            Dialect::Guardian => {
                let keys = keys();
                let inner = InnerConnector::new(keys.fingerprint()).unwrap();
                let channels = Channels::new(handle.clone(), inner, pools.clone());
                (Agent::guardian(theirs, &tasks, keys), Line::Guardian(channels))
            }
        };
        let parts = Parts {
            policy: Policy::parse(POLICY).unwrap(),
            tokens: StaticTokens::parse(TOKENS).unwrap(),
            gateway,
            audit,
            pools,
            services: services::tests::none(),
            tasks: tasks.clone(),
            shutdown: Shutdown::new(),
        };
        let (state, shutdown) = state::build(parts, handle, line);
        let control = axum::Router::new().fallback(async |request: Request<axum::body::Body>| {
            let caller: &Caller = request.extensions().get().unwrap();
            assert!(!request.headers().contains_key("authorization"));
            format!("{} as {:?}", caller.identity.user(), caller.as_whom.as_ref().map(|whom| whom.user()))
        });
        let shared =
            Arc::new(Shared { metrics, control, fairness: Fairness::new(&state.gateway), state: Arc::clone(&state) });
        Self { state, shared, doors: Doors::new(1024), pool, places, agent, tasks, shutdown }
    }

    /// What serves a connection to the gateway.
    pub(super) fn served(&self) -> Arc<Served> {
        let peer: SocketAddr = ([127, 0, 0, 1], 1).into();
        let place = self.doors.enter(peer.ip(), &self.shared.metrics).unwrap();
        Served::new(Arc::clone(&self.shared), None, peer, place)
    }

    /// A connection to the gateway as raw bytes.
    pub(super) fn raw(&self) -> (DuplexStream, JoinHandle<()>) {
        let (user, gateway) = tokio::io::duplex(64 * 1024);
        let shared = Arc::clone(&self.shared);
        let served = self.served();
        let serving = self.tasks.spawn("served", async move { listener::serve_h1(gateway, served, &shared).await });
        (user, serving)
    }

    pub(super) async fn h1(&self) -> User {
        User::h1(self.raw().0, &self.tasks).await
    }

    pub(super) async fn h2(&self) -> User {
        let (user, gateway) = tokio::io::duplex(64 * 1024);
        let shared = Arc::clone(&self.shared);
        let served = self.served();
        self.tasks.spawn("served", async move { listener::serve_h2(TokioIo::new(gateway), served, &shared).await });
        User::h2(user, &self.tasks).await
    }

    /// Lets every task run until it has nothing left to do.
    pub(super) async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn shut_down(self) -> (JoinHandle<Outcome>, Arc<State>, Agent) {
        let Self { shutdown, tasks, state, agent, .. } = self;
        let (driver, waited) = (tasks.clone(), tasks);
        let running = driver
            .spawn("shutdown", async move { shutdown.run(Plan::default(), &waited, std::future::pending()).await });
        (running, state, agent)
    }
}

/// What a Guardian shows on both sides of its streams.
fn keys() -> KeyPair {
    let (now, life) = (crate::clock::now(), Duration::from_secs(3600));
    let authority = Authority::generate("test", now, life).unwrap();
    let issued = authority.issue_user("east", &[], now, life).unwrap();
    KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

//! The composition root: names every part of the server, binds every socket, and ends everything in order.

mod background;
mod load;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use moorline_kube::ClusterObjects;
use moorline_model::ClusterRecord;
use moorline_mux::MemoryBudget;
use moorline_process::{
    Readiness, Registry as MetricRegistry, Shutdown, Tasks,
    admin::{self, Admin},
    shutdown::Outcome,
};
use moorline_store::{OpenError, StoreError};
use thiserror::Error;
use tokio::{net::TcpListener, sync::Semaphore};

use background::{Background, farewell};
use load::Doors;

use crate::{
    audit::{Sinks, WebhookSink},
    bootstrap::StateDir,
    clock,
    clusters::{
        Clusters, brought,
        store::{Store, embedded::OnThreads},
    },
    config::{Config, Problem, Problems},
    control::{self, issue::Issuer},
    front::{self, Gateway, authn::Chain, guardian::places::Places, pool::PoolContext},
    kubernetes::Reviews,
    metrics::Metrics,
    notify::Notifier,
    registry::Registry,
    reload,
    services::Services,
    state::State,
    tunnel::{self, listener::Door},
};

/// Why a server could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppError {
    /// What the configuration names is not as it should be.
    #[error("{0}")]
    Problems(#[from] Problems),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Records(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("{flag}: cannot listen on {address}: {error}")]
    Bind {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The operating system refuses.
    #[error("cannot run work on a thread of its own")]
    Runtime,
}

impl AppError {
    /// The exit code that goes with it: 2 for what the operator has to mend before the server can start, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Problems(_) | Self::Store(_) => 2,
            Self::Records(_) | Self::Bind { .. } | Self::Runtime => 1,
        }
    }
}

/// A server whose sockets are bound and which serves nobody yet.
pub struct App {
    state: Arc<State>,
    gateway: Gateway,
    door: Door,
    listeners: Listeners,
    background: Background,
    sinks: Option<Sinks>,
    /// Clusters that others may make as well, to be followed.
    objects: Option<ClusterObjects>,
    readiness: Readiness,
    metrics: MetricRegistry,
    shutdown: Shutdown,
    plan: moorline_process::Plan,
}

struct Listeners {
    tunnel: TcpListener,
    gateway: TcpListener,
    admin: TcpListener,
    addresses: [SocketAddr; 3],
}

impl App {
    /// Fills the state directory where it is empty, reads everything, binds every socket. Nothing is served before
    /// [`App::run`].
    ///
    /// # Errors
    /// [`AppError`], with every problem of the files at once.
    pub async fn build(mut config: Config) -> Result<Self, AppError> {
        let open_files = moorline_process::open_files::raise_limit();
        let Config { tunnel, gateway, services, .. } = &mut config;
        if let Some(lowered) = crate::config::fit(tunnel, gateway, services, open_files) {
            tracing::warn!("{lowered}");
        }
        let listeners = Listeners::bind(&config).await?;
        let registry = MetricRegistry::new("moorline-server", tunnel::admit::VERSION);
        let (tasks, shutdown) = (Tasks::new(&registry), Shutdown::new());
        let webhook = match &config.audit.webhook {
            Some(webhook) => Some(WebhookSink::open(webhook).await?),
            None => None,
        };
        let notifier = match &config.notify {
            Some(notify) => Some(Notifier::open(notify).await?),
            None => None,
        };
        let (reading, metrics) = (config.clone(), registry.clone());
        let loading = tasks.spawn_blocking("load", move || load::load(&reading, &metrics, webhook));
        let (loaded, embedded) = loading.await.map_err(|_panicked| AppError::Runtime)??;

        let reviews = Reviews::open(&config.kubernetes, config.cluster_store).await?;
        let (store, records) = kept(embedded, reviews.clusters.as_ref(), &tasks)?;

        let memory = MemoryBudget::new(config.tunnel.memory_budget);
        let metrics = Metrics::new(&registry, &memory);
        metrics.clusters.set(i64::try_from(records.len()).unwrap_or(i64::MAX));
        metrics.expires("tunnel-ca", loaded.tunnel_authorities.staying.info().not_after);
        if let Some(serving) = &loaded.gateway_serving {
            metrics.expires("gateway", serving.not_after());
        }
        let address = config.public_tunnel_address.as_ref();
        let address = address.map_or_else(|| listeners.addresses[0].to_string(), ToString::to_string);
        let pools = PoolContext {
            tasks: tasks.clone(),
            metrics: Arc::new(front::metrics::Metrics::new(&registry)),
            places: Places::within(config.tunnel.memory_budget),
        };
        let issuer = Issuer::new(loaded.tunnel_authorities, config.certificate_lives, address).map_err(|error| {
            let remedy = "restore the state directory from a backup".to_owned();
            Problems::from(Problem { at: "tunnel-ca.crt".to_owned(), what: error.to_string(), remedy })
        })?;
        let tunnel_names = load::tunnel_names(&config);
        let (services, services_in_use) = loaded.services;
        let background = Background {
            files: reload::Files {
                policy: (config.policy_file.clone(), loaded.policy.hash()),
                audit_policy: loaded.audit_policy,
                services: services_in_use,
            },
            interval: config.reload_interval,
            serving: Vec::new(),
            gateway_keys: None,
            roots: loaded.user_roots,
            state_dir: StateDir::new(&config.state_dir),
            oidc: loaded.oidc.clone(),
            notifier,
        };
        let mut authenticators = Chain::default();
        if let Some(oidc) = loaded.oidc {
            authenticators.push(oidc);
        }
        if let Some(tokens) = reviews.tokens {
            authenticators.push(tokens);
        }
        let (audit, sinks) = loaded.audit.unzip();
        let clusters = Arc::new(Registry::new(records));
        let state = Arc::new(State {
            audit,
            clusters: Clusters::new(store, Arc::clone(&clusters), metrics.clusters.clone(), tasks.clone()),
            events: clusters.events().clone(),
            registry: clusters,
            started: clock::now(),
            issuer: Arc::new(issuer),
            state_dir: StateDir::new(&config.state_dir),
            rotating: Semaphore::new(1),
            adopt_until: config.adopt_until,
            policy: ArcSwap::from_pointee(loaded.policy.value),
            token_file: Mutex::new((config.token_file, loaded.tokens.hash())),
            tokens: ArcSwap::from_pointee(loaded.tokens.value),
            authenticators,
            access_reviews: reviews.decisions,
            api_group: config.api_group,
            gateway: config.gateway,
            tunnel: config.tunnel,
            memory,
            pools,
            checks: Semaphore::new(tunnel::check::AT_ONCE),
            services: Services::new(config.services, services, &registry),
            metrics,
            tasks,
            phases: shutdown.phases(),
        });
        let doors = Doors::open(&state, &background.roots, tunnel_names, loaded.gateway_serving, loaded.gateway_keys)?;
        let Doors { tunnel, gateway, serving, gateway_keys } = doors;
        Ok(Self {
            gateway: Gateway::new(Arc::clone(&state), gateway, control::router(Arc::clone(&state))),
            door: Door::new(Arc::clone(&state), tunnel),
            background: Background { serving, gateway_keys, ..background },
            sinks,
            state,
            listeners,
            objects: reviews.clusters,
            readiness: Readiness::new(),
            metrics: registry,
            shutdown,
            plan: config.plan,
        })
    }

    /// Where agents are accepted.
    #[must_use]
    pub fn tunnel_addr(&self) -> SocketAddr {
        self.listeners.addresses[0]
    }

    /// Where users are accepted.
    #[must_use]
    pub fn gateway_addr(&self) -> SocketAddr {
        self.listeners.addresses[1]
    }

    /// Where probes and scrapes are accepted.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.listeners.addresses[2]
    }

    /// Serves until `stop` resolves, then lets what runs finish and ends in order. A second wish to stop is the
    /// caller's: dropping the future cuts everything.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Outcome {
        let Self { state, gateway, door, listeners, background, sinks, objects, readiness, metrics, shutdown, plan } =
            self;
        let (tasks, phases) = (state.tasks.clone(), state.phases.clone());
        let [tunnel_addr, gateway_addr, admin_addr] = listeners.addresses;
        let ready = readiness.check("doors");
        let admin = Admin { registry: metrics, readiness, phases: phases.clone(), tasks: tasks.clone() };
        tasks.spawn("admin", admin::serve(listeners.admin, admin));
        let mut stop = std::pin::pin!(stop);
        if let Some(objects) = objects {
            // Nobody is let in or turned away before it is known which clusters there are.
            let complete = background::follow(&state, objects);
            ready.unready("the clusters of the management cluster are not known yet");
            let known = tokio::select! {
                known = complete => known,
                () = &mut stop => false,
            };
            if !known {
                return shutdown.run(plan, &tasks, std::future::pending()).await;
            }
        }
        tasks.spawn("tunnel-door", door.serve(listeners.tunnel));
        tasks.spawn("gateway-door", gateway.serve(listeners.gateway));
        background.start(&state);
        if let (Some(sinks), Some(audit)) = (sinks, &state.audit) {
            sinks.start(audit, &tasks, &phases);
        }
        tasks.spawn("farewell", farewell(Arc::clone(&state)));
        ready.ready();
        let clusters = state.registry.clusters().len();
        tracing::info!(tunnel = %tunnel_addr, gateway = %gateway_addr, admin = %admin_addr, clusters, "serving");
        stop.await;
        shutdown.run(plan, &tasks, std::future::pending()).await
    }
}

/// The store of clusters, and the records that are known of before anything is served. Those of Kubernetes come by the
/// watch.
fn kept(
    embedded: Option<load::Opened>,
    objects: Option<&ClusterObjects>,
    tasks: &Tasks,
) -> Result<(Box<dyn Store>, Vec<ClusterRecord>), AppError> {
    match (embedded, objects) {
        (Some((store, records)), _) => {
            let records = records.iter().map(brought::effective).collect();
            Ok((Box::new(OnThreads::new(store, tasks.clone())), records))
        }
        (None, Some(objects)) => Ok((Box::new(objects.clone()), Vec::new())),
        (None, None) => Err(AppError::Runtime),
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("addresses", &self.listeners.addresses).finish_non_exhaustive()
    }
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, AppError> {
        let bind = async |flag: &'static str, address: SocketAddr| {
            let wrong = |error| AppError::Bind { flag, address, error };
            let listener = TcpListener::bind(address).await.map_err(wrong)?;
            let bound = listener.local_addr().map_err(wrong)?;
            Ok::<_, AppError>((listener, bound))
        };
        let (tunnel, tunnel_addr) = bind("--tunnel-listen", config.tunnel_listen).await?;
        let (gateway, gateway_addr) = bind("--gateway-listen", config.gateway_listen).await?;
        let (admin, admin_addr) = bind("--admin-listen", config.admin_listen).await?;
        Ok(Self { tunnel, gateway, admin, addresses: [tunnel_addr, gateway_addr, admin_addr] })
    }
}

//! The composition root: names every part of the server, binds every socket, and ends everything in order.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use moorline_ca::SubjectName;
use moorline_mtls::{GatewayAcceptor, KeyPair, Reloading, Roots, Source, TunnelAcceptor};
use moorline_mux::MemoryBudget;
use moorline_process::{
    Phases, Readiness, Registry as MetricRegistry, Shutdown, Tasks,
    admin::{self, Admin},
    shutdown::Outcome,
};
use moorline_store::{Embedded, OpenError, StoreError};
use moorline_wire::CloseReason;
use rand::RngExt as _;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    bootstrap::{StateDir, Which},
    clock,
    config::{Config, Problem, Problems},
    control::{self, issue::Issuer},
    front::{self, Gateway, pool::PoolContext},
    metrics::Metrics,
    registry::Registry,
    reload,
    serving::{self, Serving},
    state::State,
    tunnel::{self, listener::Door, orders::Order},
};

/// The longest time over which agents are told to come back when this server stops: a second for every
/// [`crate::config::TunnelConfig::handshake_rate`] of them, at most this.
const MAX_SPREAD: std::time::Duration = std::time::Duration::from_secs(60);

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

/// What follows files and clocks while the server runs.
struct Background {
    serving: Vec<Serving>,
    gateway_keys: Option<Reloading<KeyPair>>,
    roots: [Reloading<Roots>; 2],
    tokens: (std::path::PathBuf, moorline_model::Fingerprint),
    policy: (std::path::PathBuf, moorline_model::Fingerprint),
    interval: std::time::Duration,
}

/// Everything that is read from the state directory and from the files that the configuration names.
struct Loaded {
    tokens: reload::Read<moorline_access::StaticTokens>,
    policy: reload::Read<moorline_access::Policy>,
    issuer_authority: moorline_ca::Authority,
    tunnel_serving: Serving,
    gateway_serving: Option<Serving>,
    gateway_keys: Option<Reloading<KeyPair>>,
    tunnel_roots: Reloading<Roots>,
    user_roots: Reloading<Roots>,
}

impl App {
    /// Fills the state directory where it is empty, reads everything, binds every socket. Nothing is served before
    /// [`App::run`].
    ///
    /// # Errors
    /// [`AppError`], with every problem of the files at once.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let listeners = Listeners::bind(&config).await?;
        let registry = MetricRegistry::new("moorline-server", tunnel::admit::VERSION);
        let (tasks, shutdown) = (Tasks::new(&registry), Shutdown::new());
        let reading = config.clone();
        let loading = tasks.spawn_blocking("load", move || Self::load(&reading));
        let (loaded, store, records) = loading.await.map_err(|_panicked| AppError::Runtime)??;

        let memory = MemoryBudget::new(config.tunnel.memory_budget);
        let metrics = Metrics::new(&registry, &memory);
        metrics.clusters.set(i64::try_from(records.len()).unwrap_or(i64::MAX));
        metrics.expires("tunnel-ca", loaded.issuer_authority.info().not_after);
        metrics.expires("tunnel", loaded.tunnel_serving.not_after());
        if let Some(serving) = &loaded.gateway_serving {
            metrics.expires("gateway", serving.not_after());
        }
        let address = config.public_tunnel_address.as_ref();
        let address = address.map_or_else(|| listeners.addresses[0].to_string(), ToString::to_string);
        let pools = PoolContext { tasks: tasks.clone(), metrics: Arc::new(front::metrics::Metrics::new(&registry)) };
        let background = Background {
            tokens: (config.token_file.clone(), loaded.tokens.hash()),
            policy: (config.policy_file.clone(), loaded.policy.hash()),
            interval: config.reload_interval,
            serving: Vec::new(),
            gateway_keys: None,
            roots: [loaded.tunnel_roots, loaded.user_roots],
        };
        let state = Arc::new(State {
            registry: Registry::new(records),
            store: Arc::new(store),
            changes: Mutex::new(()),
            started: clock::now(),
            issuer: Issuer::new(loaded.issuer_authority, config.agent_certificate_life, address),
            policy: ArcSwap::from_pointee(loaded.policy.value),
            tokens: ArcSwap::from_pointee(loaded.tokens.value),
            api_group: config.api_group,
            gateway: config.gateway,
            tunnel: config.tunnel,
            memory,
            pools,
            metrics,
            tasks,
            phases: shutdown.phases(),
        });
        let doors =
            Doors::open(&state, &background.roots, loaded.tunnel_serving, loaded.gateway_serving, loaded.gateway_keys)?;
        let Doors { tunnel, gateway, serving, gateway_keys } = doors;
        Ok(Self {
            gateway: Gateway::new(Arc::clone(&state), gateway, control::router(Arc::clone(&state))),
            door: Door::new(Arc::clone(&state), tunnel),
            background: Background { serving, gateway_keys, ..background },
            state,
            listeners,
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
        let Self { state, gateway, door, listeners, background, readiness, metrics, shutdown, plan } = self;
        let (tasks, phases) = (state.tasks.clone(), state.phases.clone());
        let [tunnel_addr, gateway_addr, admin_addr] = listeners.addresses;
        let ready = readiness.check("doors");
        let admin = Admin { registry: metrics, readiness, phases: phases.clone(), tasks: tasks.clone() };
        tasks.spawn("admin", admin::serve(listeners.admin, admin));
        tasks.spawn("tunnel-door", door.serve(listeners.tunnel));
        tasks.spawn("gateway-door", gateway.serve(listeners.gateway));
        background.start(&state);
        tasks.spawn("farewell", farewell(Arc::clone(&state)));
        ready.ready();
        let clusters = state.registry.clusters().len();
        tracing::info!(tunnel = %tunnel_addr, gateway = %gateway_addr, admin = %admin_addr, clusters, "serving");
        stop.await;
        shutdown.run(plan, &tasks, std::future::pending()).await
    }

    /// Blocks on the disk.
    fn load(config: &Config) -> Result<(Loaded, Embedded, Vec<moorline_model::ClusterRecord>), AppError> {
        let dir = StateDir::new(&config.state_dir);
        dir.fill(&config.api_group, clock::now())?;
        let loaded = Loaded::read(config, &dir)?;
        let store = Embedded::open(&dir.store())?;
        let records = store.list()?;
        Ok((loaded, store, records))
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("addresses", &self.listeners.addresses).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads everything, and reports everything that is wrong.
    fn read(config: &Config, dir: &StateDir) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let tokens = keep_all(&mut problems, reload::tokens(&config.token_file));
        let policy = keep_all(&mut problems, reload::policy(&config.policy_file));
        let issuer_authority = problems.keep(dir.authority(Which::Tunnel));
        let tunnel_names = tunnel_names(config);
        let tunnel_serving = problems.keep(serve_by(dir, Which::Tunnel, "tunnel", tunnel_names));
        let tunnel_roots = problems.keep(roots(&dir.certificate(Which::Tunnel)));
        let user_roots = problems.keep(roots(&config.client_ca_file));
        let mut gateway_serving = None;
        let mut gateway_keys = None;
        match &config.gateway_keys {
            Some(files) => {
                let loaded = Reloading::key_pair(&files.certificate, &files.key);
                gateway_keys = problems.keep(loaded.map_err(|error| named("--tls-cert-file", &error)));
            }
            None => {
                let names = serving::names(&config.gateway_names, config.gateway_listen.ip());
                gateway_serving = problems.keep(serve_by(dir, Which::Gateway, "gateway", names));
            }
        }
        let all = (tokens, policy, issuer_authority, tunnel_serving, tunnel_roots, user_roots);
        let (
            Some(tokens),
            Some(policy),
            Some(issuer_authority),
            Some(tunnel_serving),
            Some(tunnel_roots),
            Some(user_roots),
        ) = all
        else {
            return Err(problems);
        };
        problems.into_result()?;
        Ok(Self {
            tokens,
            policy,
            issuer_authority,
            tunnel_serving,
            gateway_serving,
            gateway_keys,
            tunnel_roots,
            user_roots,
        })
    }
}

fn keep_all<T>(problems: &mut Problems, outcome: Result<T, Problems>) -> Option<T> {
    outcome.map_err(|found| problems.0.extend(found.0)).ok()
}

fn named(at: &str, error: &dyn std::error::Error) -> Problem {
    Problem { at: at.to_owned(), what: error.to_string(), remedy: String::new() }
}

fn roots(path: &std::path::Path) -> Result<Reloading<Roots>, Problem> {
    Reloading::roots(path).map_err(|error| named("trust bundle", &error))
}

fn serve_by(dir: &StateDir, which: Which, door: &'static str, names: Vec<SubjectName>) -> Result<Serving, Problem> {
    let authority = dir.authority(which)?;
    Serving::new(door, authority, names).map_err(|error| named(&dir.certificate(which).display().to_string(), &error))
}

/// The fixed name comes first: it is the one that agents verify.
fn tunnel_names(config: &Config) -> Vec<SubjectName> {
    let mut names = vec![SubjectName::Dns(tunnel::SERVER_NAME.to_owned())];
    let public: Vec<_> = config.public_tunnel_address.iter().map(|address| address.host.clone()).collect();
    names.extend(serving::names(&public, config.tunnel_listen.ip()));
    names
}

/// The acceptors of both doors, and what keeps their keys fresh.
struct Doors {
    tunnel: TunnelAcceptor,
    gateway: GatewayAcceptor,
    serving: Vec<Serving>,
    gateway_keys: Option<Reloading<KeyPair>>,
}

impl Doors {
    fn open(
        state: &State,
        [tunnel_roots, user_roots]: &[Reloading<Roots>; 2],
        tunnel_serving: Serving,
        gateway_serving: Option<Serving>,
        gateway_keys: Option<Reloading<KeyPair>>,
    ) -> Result<Self, Problems> {
        let refuse = |door: &str, error: &dyn std::error::Error| Problems::from(named(door, error));
        let keys: Source<KeyPair> = match (&gateway_serving, &gateway_keys) {
            (Some(serving), _) => serving.source(),
            (None, Some(files)) => files.source(),
            (None, None) => {
                return Err(Problem {
                    at: "gateway".to_owned(),
                    what: "has no certificate".to_owned(),
                    remedy: String::new(),
                }
                .into());
            }
        };
        if let Some(files) = &gateway_keys {
            state.metrics.expires("gateway", files.source().current().not_after());
        }
        Ok(Self {
            tunnel: TunnelAcceptor::new(tunnel_serving.source(), tunnel_roots.source(), moorline_wire::ALPN)
                .map_err(|error| refuse("tunnel", &error))?,
            gateway: GatewayAcceptor::new(keys, Some(user_roots.source()))
                .map_err(|error| refuse("gateway", &error))?,
            serving: std::iter::once(tunnel_serving).chain(gateway_serving).collect(),
            gateway_keys,
        })
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

impl Background {
    /// Starts what goes on until the process is cancelled.
    fn start(self, state: &Arc<State>) {
        let until_cancelled = |name: &'static str, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let phases = state.phases.clone();
            state.tasks.spawn(name, async move {
                tokio::select! {
                    () = work => {}
                    () = phases.cancelled() => {}
                }
            });
        };
        let interval = self.interval;
        for serving in self.serving {
            until_cancelled("renew", Box::pin(serving.renew(Arc::clone(state))));
        }
        for roots in self.roots {
            until_cancelled("reload", Box::pin(roots.watch(interval)));
        }
        if let Some(keys) = self.gateway_keys {
            until_cancelled("reload", Box::pin(keys.watch(interval)));
        }
        until_cancelled("reload", Box::pin(reload::watch(Arc::clone(state), self.tokens, self.policy, interval)));
    }
}

/// Tells every agent that this server stops, spread over the time in which another one can take them all in, and cuts
/// what is left at the end.
async fn farewell(state: Arc<State>) {
    let phases: &Phases = &state.phases;
    phases.reached(moorline_process::Phase::GoAway).await;
    let sessions = state.registry.sessions();
    let seconds = 1.0 + sessions.len() as f64 / f64::from(state.tunnel.handshake_rate);
    let spread = std::time::Duration::from_secs_f64(seconds).min(MAX_SPREAD);
    tracing::info!(sessions = sessions.len(), spread_ms = spread.as_millis(), "telling agents to go elsewhere");
    for session in sessions {
        let after = spread.mul_f64(rand::rng().random());
        session.orders().give(Order::GoAway { reason: CloseReason::Draining, after });
    }
    phases.cancelled().await;
    for session in state.registry.sessions() {
        session.orders().give(Order::Cut(CloseReason::Shutdown));
    }
}

//! The composition root: names every part of the agent, binds what is bound, spawns what runs, and ends it in order.
//!
//! Called by `main`, by the command line's quickstart and by tests.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use moorline_model::Timestamp;
use moorline_mtls::{KeyPair, Source};
use moorline_process::{Plan, Readiness, Registry, Shutdown, Tasks, admin};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    config::{Config, Followed},
    connection,
    credentials::{Credentials, TokenError},
    health::Prober,
    identity::Identity,
    kubernetes::Client,
    metrics::Metrics,
    serve::{Service, upstream::Upstream},
    services::Services,
    standing::Reason,
    tunnel::{Standing, Tunnel},
};

/// How often certificates and authorities are looked at on disk. kubelet updates mounted Secrets about once a minute.
const CERTIFICATE_REREAD: Duration = Duration::from_secs(30);

/// How often the identity is looked at while there is no session.
const REPAIR_REREAD: Duration = Duration::from_secs(5);

/// From the go-away to the drain: the server reads it within a round trip, and opens nothing new from then on.
const GO_AWAY: Duration = Duration::from_millis(500);

/// What cancelled tasks get to clean up.
const CANCEL: Duration = Duration::from_secs(3);

/// Descriptors for everything that carries no request: sessions, the admin door, files, connections kept for later.
const OTHER_FILES: usize = 128;

/// An agent that is built and not running yet.
pub struct App {
    listener: TcpListener,
    admin: admin::Admin,
    shutdown: Shutdown,
    plan: Plan,
    tunnel: Arc<Tunnel>,
    prober: Prober,
    upstream: Arc<Upstream>,
    credentials: Arc<Credentials>,
    identity: Arc<Identity>,
    services: Services,
    connection: Option<(connection::Reader, connection::Reporter)>,
    followed: Vec<Followed>,
    metrics: Arc<Metrics>,
}

/// Why an agent cannot be built from a good configuration.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The admin address is taken or not ours.
    #[error("cannot listen on {0} for /livez, /readyz and /metrics (--admin-addr)")]
    Listen(SocketAddr, #[source] io::Error),
    /// The address of a service is taken or not ours.
    #[error("cannot listen on {0} for a service (--service, --http-service)")]
    Service(SocketAddr, #[source] io::Error),
    /// The token went away since the configuration was read.
    #[error("the token for the kube-apiserver")]
    Token(#[from] TokenError),
}

/// Why an agent could not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The admin listener cannot be used.
    #[error("cannot serve /livez, /readyz and /metrics")]
    Admin(#[source] io::Error),
    /// The listener of a service cannot be used.
    #[error("cannot offer a service")]
    Service(#[source] io::Error),
}

impl App {
    /// Makes all parts and binds the admin address. Nothing runs and nothing is dialled yet.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(mut config: Config) -> Result<Self, BuildError> {
        let open_files = moorline_process::open_files::raise_limit();
        fit(&mut config.serve.max_requests, open_files.saturating_sub(config.services.all_connections()));
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let listener = bind(config.admin_addr).map_err(|error| BuildError::Listen(config.admin_addr, error))?;
        let services =
            Services::bind(config.services).map_err(|(address, error)| BuildError::Service(address, error))?;
        let registry = Registry::new("moorline-agent", env!("CARGO_PKG_VERSION"));
        let (tasks, readiness, shutdown) = (Tasks::new(&registry), Readiness::new(), Shutdown::new());
        let metrics = Arc::new(Metrics::new(&registry));
        let credentials = Arc::new(Credentials::new(config.token, Arc::clone(&metrics))?);
        let upstream = Arc::new(Upstream::new(config.upstream, Arc::clone(&credentials), Arc::clone(&metrics)));
        let connected = readiness.check("tunnel");
        let client = Client::new(Arc::clone(&upstream));
        let (prober, health) = Prober::new(client.clone(), readiness.check("kube-apiserver"), Arc::clone(&metrics));
        let phases = shutdown.phases();
        let service = Service::new(
            config.serve,
            (Arc::clone(&upstream), client.readiness()),
            phases.clone(),
            Arc::clone(&metrics),
        );
        let living = (tasks.clone(), phases.clone(), Arc::clone(&metrics));
        let identity = Arc::clone(&config.tunnel.identity);
        let tunnel = Arc::new(Tunnel::new(config.tunnel, Arc::new(service), health, connected, living));
        let unkept = match &config.secret {
            None => watch::Sender::default().subscribe(),
            Some(secret) => {
                secret.attach(client.clone(), Arc::clone(&metrics));
                secret.trouble()
            }
        };
        let connection = connection::follow(config.connection, &client, (tunnel.standing(), unkept), &metrics);
        let admin = admin::Admin { registry, readiness, phases, tasks };
        let plan = Plan { notice: Duration::ZERO, go_away: GO_AWAY, drain: config.drain_grace, cancel: CANCEL };
        let followed = config.followed;
        Ok(Self {
            listener,
            admin,
            shutdown,
            plan,
            tunnel,
            prober,
            upstream,
            credentials,
            identity,
            services,
            connection,
            followed,
            metrics,
        })
    }

    /// Where probes and metrics are served.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where programs find each service of the management cluster that is offered here, by its name.
    #[must_use]
    pub fn service_addrs(&self) -> Vec<(String, SocketAddr)> {
        self.services.addresses().into_iter().map(|(name, address)| (name.to_string(), address)).collect()
    }

    /// Serves until `shutdown` resolves, then lets running requests finish within the grace, and returns.
    ///
    /// # Errors
    /// [`RunError`] when it cannot begin.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(RunError::Admin)?;
        let (tasks, phases) = (self.admin.tasks.clone(), self.admin.phases.clone());
        let forever = |name, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let phases = phases.clone();
            tasks.spawn(name, async move {
                tokio::select! {
                    () = work => {}
                    () = phases.cancelled() => {}
                }
            });
        };
        if let Ok(address) = listener.local_addr() {
            tracing::info!(admin = %address, server = self.tunnel.server().as_deref(), version = env!("CARGO_PKG_VERSION"), "serving");
        }
        tasks.spawn("admin", admin::serve(listener, self.admin));
        let here = (self.tunnel.live(), self.tunnel.standing());
        self.services.start(here, (&tasks, &phases), &self.metrics).map_err(RunError::Service)?;
        forever("expiry", Box::pin(watch_expiry(self.identity.keys(), self.metrics)));
        forever("identity-repair", Box::pin(look_for_repair(self.identity, self.tunnel.standing())));
        for files in self.followed {
            forever("certificate-reload", Box::pin(files.watch(CERTIFICATE_REREAD)));
        }
        forever("token-reload", Box::pin(self.credentials.watch()));
        forever("upstream-reap", Box::pin(self.upstream.reap()));
        forever("upstream-probe", Box::pin(self.prober.run()));
        if let Some((reader, reporter)) = self.connection {
            forever("connection-watch", Box::pin(reader.run()));
            forever("connection-status", Box::pin(reporter.run()));
        }
        let renewing = Arc::clone(&self.tunnel);
        forever("renewal", Box::pin(async move { renewing.renew().await }));
        for _session in 0..self.tunnel.sessions() {
            tasks.spawn("tunnel", Arc::clone(&self.tunnel).keep());
        }
        drop(self.tunnel);
        shutdown.await;
        let outcome = self.shutdown.run(self.plan, &tasks, std::future::pending()).await;
        if outcome.cut > 0 {
            tracing::warn!(requests = outcome.cut, "requests that did not finish within --drain-grace were cut");
        }
        Ok(())
    }
}

/// Looks at the identity at once, and often while the server cannot be reached: whoever repairs it is not to wait.
async fn look_for_repair(identity: Arc<Identity>, mut standing: watch::Receiver<Standing>) {
    identity.refresh().await;
    let bad =
        |standing: &Standing| standing.outcome.as_ref().is_some_and(|outcome| outcome.reason != Reason::Connected);
    while standing.wait_for(bad).await.is_ok() {
        tokio::time::sleep(REPAIR_REREAD).await;
        identity.refresh().await;
    }
}

/// Each request has a connection: without descriptors for more, an agent could not even answer its probes.
fn fit(max_requests: &mut usize, open_files: usize) {
    let room = open_files.saturating_sub(OTHER_FILES).max(1);
    if *max_requests > room {
        tracing::warn!(
            open_files,
            max_requests = room,
            "fewer requests run at once than --max-requests says: raise the \
            limit on open files (ulimit -n)"
        );
        *max_requests = room;
    }
}

/// Shows when the certificate ends, and says so in time.
async fn watch_expiry(keys: Source<KeyPair>, metrics: Arc<Metrics>) {
    const DAILY: Duration = Duration::from_secs(24 * 60 * 60);
    const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
    let mut told: Option<(Timestamp, tokio::time::Instant)> = None;
    loop {
        let not_after = keys.current().not_after();
        metrics.certificate_ends(not_after.unix_seconds());
        let fresh = told.is_none_or(|(which, when)| which != not_after || when.elapsed() >= DAILY);
        if fresh && not_after.saturating_sub(SOON) <= crate::config::now() {
            tracing::warn!(%not_after, "the agent's certificate ends soon: issue a new one");
            told = Some((not_after, tokio::time::Instant::now()));
        }
        tokio::time::sleep(CERTIFICATE_REREAD).await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

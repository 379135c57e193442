//! Services of the management cluster, for programs inside this one: local listeners whose connections go to the server
//! over streams that the agent opens.
//!
//! The agent is a wire here and no more. Each listener stands for one service by name; which services there are, whom they
//! are for and where they lead is the server's decision, made anew for each connection. Of what a caller sends nothing is
//! believed, changed or added to; the agent dials nothing. Without a session a caller is told at once.
//!
//! Bound and started by `app`. `listen` accepts, `connect` asks the server, `carry` passes bytes, `refuse` tells a caller
//! why not.

mod caller;
mod carry;
mod connect;
mod listen;
mod refuse;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use moorline_process::{Phases, Tasks};
use moorline_wire::services::ServiceName;
use tokio::sync::{Semaphore, watch};

use crate::{
    metrics::Metrics,
    socket,
    tunnel::{Live, Standing},
};
use listen::Door;

/// Callers for whom there is no place who are told so at once; one more is cut.
const ANSWERS: usize = 64;

/// Which services are offered here, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Bounded by the configuration ([`MOST`]).
    pub(crate) locals: Vec<Local>,
    /// How many connections there may be at once to each of them: one that is slow or stuck leaves the others theirs.
    pub(crate) max_connections: usize,
}

/// The most listeners of one agent.
pub(crate) const MOST: usize = 64;

/// A service, and where programs find it.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) name: ServiceName,
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
}

/// What callers of a service understand, when there is bad news for them. Nothing else depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A reset connection.
    Tcp,
    /// An HTTP answer with a Kubernetes `Status`.
    Http,
}

/// The listeners, bound and not accepting yet.
pub(crate) struct Services {
    bound: Vec<(Local, TcpListener)>,
    max_connections: usize,
}

/// What the listeners share.
struct Shared {
    live: Arc<Live>,
    standing: watch::Receiver<Standing>,
    /// One for each caller who is told that there is no place.
    answers: Arc<Semaphore>,
    tasks: Tasks,
    phases: Phases,
}

impl Config {
    /// How many connections there may be at once, over all services.
    pub(crate) fn all_connections(&self) -> usize {
        self.max_connections.saturating_mul(self.locals.len())
    }
}

impl Services {
    /// Takes all addresses.
    ///
    /// # Errors
    /// The address that is taken, or not ours.
    pub(crate) fn bind(config: Config) -> Result<Self, (SocketAddr, io::Error)> {
        let bind = |local: Local| match socket::listen(local.address) {
            Ok(listener) => Ok((local, listener)),
            Err(error) => Err((local.address, error)),
        };
        let bound = config.locals.into_iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { bound, max_connections: config.max_connections })
    }

    /// Where each service is found.
    pub(crate) fn addresses(&self) -> Vec<(ServiceName, SocketAddr)> {
        let found = |(local, listener): &(Local, TcpListener)| {
            (local.name.clone(), listener.local_addr().unwrap_or(local.address))
        };
        self.bound.iter().map(found).collect()
    }

    /// Starts a task for each listener. They end when nothing new is accepted any more.
    ///
    /// # Errors
    /// A listener cannot be used.
    pub(crate) fn start(
        self,
        (live, standing): (Arc<Live>, watch::Receiver<Standing>),
        (tasks, phases): (&Tasks, &Phases),
        metrics: &Metrics,
    ) -> io::Result<()> {
        let shared = Arc::new(Shared {
            live,
            standing,
            answers: Arc::new(Semaphore::new(ANSWERS)),
            tasks: tasks.clone(),
            phases: phases.clone(),
        });
        for (local, listener) in self.bound {
            let address = listener.local_addr().unwrap_or(local.address);
            tracing::info!(service = %local.name, kind = %local.kind, %address, "a service of the management cluster is offered");
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let metrics = metrics.of_service(local.name.as_str());
            let door =
                Arc::new(Door::new((local.name, local.kind), self.max_connections, metrics, Arc::clone(&shared)));
            tasks.spawn("service-listener", door.listen(listener));
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        })
    }
}

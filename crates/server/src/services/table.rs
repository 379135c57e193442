//! Which management services there are, and for whom. Pure: a text in, answers out.
//!
//! Read by `catalog`, asked by `origin` for every stream and every request. Nothing is for anybody unless the table says
//! so, and a name means one service.

mod document;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use moorline_access::Problems;
use moorline_model::{ClusterName, ClusterRecord};
use moorline_wire::services::ServiceName;

use crate::config::{HostPort, KeyFiles};

/// Services of one table. Each may have a certificate, and all of them are looked at when one has changed.
const MAX_SERVICES: usize = 256;

/// Names in TLS of one service.
const MAX_SERVER_NAMES: usize = 64;

/// One service, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// What our own agents call it.
    pub(crate) name: ServiceName,
    /// What programs call it in TLS, lower case, without a final dot.
    pub(crate) server_names: Vec<String>,
    /// For which clusters it is.
    pub(crate) audience: Audience,
    /// Where it is.
    pub(crate) upstream: HostPort,
    /// What is done with what passes.
    pub(crate) mode: Mode,
    /// How many connections to it may be open at once, of all clusters together.
    pub(crate) max_connections: usize,
}

/// What is done with what passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing: bytes are bytes.
    PassThrough,
    /// It is HTTP: every request is taken apart, and says from which cluster it comes.
    Http {
        /// What programs are shown that come with TLS.
        shown: Option<KeyFiles>,
        /// How the service itself is spoken to.
        upstream: Option<UpstreamTls>,
    },
}

/// How a service is spoken to that speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpstreamTls {
    /// Whom to believe; none stands for the operating system's authorities.
    pub(crate) ca: Option<PathBuf>,
    /// For which name its certificate must be; none stands for the host of its address.
    pub(crate) server_name: Option<String>,
    /// What it is shown, where it wants to know who comes.
    pub(crate) keys: Option<KeyFiles>,
}

/// For which clusters a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All of them, those to come as well.
    Everybody,
    /// These.
    Named(BTreeSet<ClusterName>),
    /// Those that have all of these labels now. Never empty.
    Labelled(BTreeMap<String, String>),
}

/// All services, found by what they are called. `S` is a service and what else is kept with it.
#[derive(Debug)]
pub(crate) struct Table<S> {
    services: Vec<S>,
    by_name: HashMap<ServiceName, usize>,
    by_server_name: HashMap<String, usize>,
}

/// Reads a table, as it is in a file.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse(yaml: &str) -> Result<Vec<Service>, Problems> {
    document::read(yaml)
}

impl Audience {
    /// Whether a cluster is in it, as its record says now.
    pub(crate) fn has(&self, cluster: &ClusterRecord) -> bool {
        match self {
            Self::Everybody => true,
            Self::Named(names) => names.contains(&cluster.name),
            Self::Labelled(labels) => labels.iter().all(|(key, value)| cluster.labels.get(key) == Some(value)),
        }
    }
}

impl Service {
    /// What its upstream calls itself: for its certificate, and in requests.
    pub(crate) fn upstream_name(&self) -> &str {
        match &self.mode {
            Mode::Http { upstream: Some(UpstreamTls { server_name: Some(name), .. }), .. } => name,
            Mode::Http { .. } | Mode::PassThrough => &self.upstream.host,
        }
    }
}

impl<S: AsRef<Service>> Table<S> {
    /// A table of services with different names.
    pub(crate) fn new(services: Vec<S>) -> Self {
        let (mut by_name, mut by_server_name) = (HashMap::new(), HashMap::new());
        for (index, service) in services.iter().enumerate() {
            let service = service.as_ref();
            by_name.insert(service.name.clone(), index);
            for name in &service.server_names {
                by_server_name.insert(name.clone(), index);
            }
        }
        Self { services, by_name, by_server_name }
    }

    /// The service of this name.
    pub(crate) fn by_name(&self, name: &ServiceName) -> Option<&S> {
        self.services.get(*self.by_name.get(name)?)
    }

    /// The service that programs call so in TLS: exactly so, but for the case of letters.
    pub(crate) fn by_server_name(&self, name: &str) -> Option<&S> {
        self.services.get(*self.by_server_name.get(&name.to_ascii_lowercase())?)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { services: Vec::new(), by_name: HashMap::new(), by_server_name: HashMap::new() }
    }
}

impl AsRef<Self> for Service {
    fn as_ref(&self) -> &Self {
        self
    }
}

#[cfg(test)]
mod tests;

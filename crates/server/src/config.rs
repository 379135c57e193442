//! The configuration: as typed ([`RawConfig`]), then as meant ([`Config`]). Nothing else reads flags or the environment.
//!
//! Turning the one into the other is the only step that can fail, and it reports every problem at once.

mod audit;
mod fit;
mod raw;
mod resolve;
mod units;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use moorline_kube::Lives;
use moorline_model::Timestamp;
use moorline_process::Plan;
use thiserror::Error;

use crate::{control::issue::CertificateLives, notify::NotifyConfig};

pub(crate) use audit::AuditConfig;
pub use audit::RawAudit;
pub(crate) use fit::fit;
pub use raw::{RawConfig, RawOidc};

/// The server's configuration as meant: complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that must last is kept.
    pub(crate) state_dir: PathBuf,
    /// Where agents are accepted.
    pub(crate) tunnel_listen: SocketAddr,
    /// Where users are accepted.
    pub(crate) gateway_listen: SocketAddr,
    /// Where probes and scrapes are accepted.
    pub(crate) admin_listen: SocketAddr,
    /// What agents are told to dial; none stands for the address that the tunnel door is bound to.
    pub(crate) public_tunnel_address: Option<HostPort>,
    /// The gateway's own certificate and key; none stands for one that the gateway CA of the state directory signs.
    pub(crate) gateway_keys: Option<KeyFiles>,
    /// Further names and addresses in the certificate that is signed here.
    pub(crate) gateway_names: Vec<String>,
    /// Whom users' client certificates must chain to.
    pub(crate) client_ca_file: PathBuf,
    /// Users' static tokens.
    pub(crate) token_file: PathBuf,
    /// Issuers whose OpenID Connect tokens are believed.
    pub(crate) oidc: Option<moorline_oidc::Configuration>,
    /// How long a verified token is remembered.
    pub(crate) oidc_cache_time: Duration,
    /// Who may do what.
    pub(crate) policy_file: PathBuf,
    /// Where clusters are kept.
    pub(crate) cluster_store: ClusterStore,
    /// What the management cluster's Kubernetes is asked.
    pub(crate) kubernetes: KubernetesConfig,
    /// What becomes of audit events.
    pub(crate) audit: AuditConfig,
    /// Who is told what happens to clusters, if anybody.
    pub(crate) notify: Option<NotifyConfig>,
    /// The API group of `managedclusters` in policies.
    pub(crate) api_group: String,
    /// How long certificates of agents live.
    pub(crate) certificate_lives: CertificateLives,
    /// Until when clusters that the store does not know are taken in by their certificates.
    pub(crate) adopt_until: Option<Timestamp>,
    /// How often files that may change are read again.
    pub(crate) reload_interval: Duration,
    /// Limits and timeouts of the tunnel.
    pub(crate) tunnel: TunnelConfig,
    /// Limits and timeouts of the gateway.
    pub(crate) gateway: GatewayConfig,
    /// Services of the management cluster that managed clusters may reach.
    pub(crate) services: ServicesConfig,
    /// How long each phase of the way out may take.
    pub(crate) plan: Plan,
}

/// Services of the management cluster that programs in managed clusters may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicesConfig {
    /// Which there are, and for whom; none stands for nothing for anybody.
    pub(crate) file: Option<PathBuf>,
    /// Streams that lead to services, or are about to, open at once on one session.
    pub(crate) max_streams: usize,
    /// Connections to services open at once, of all clusters and to all services.
    pub(crate) max_connections: usize,
    /// Streams and requests that may begin a second on one session, and twice that at once.
    pub(crate) rate: u32,
    /// From the look-up of a service's name to a connection that can be used.
    pub(crate) dial_timeout: Duration,
}

/// Where clusters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClusterStore {
    /// In a file of the state directory.
    #[default]
    Embedded,
    /// As `ManagedCluster` objects of the management cluster.
    Kubernetes,
}

/// A certificate and its key, by file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT`, of which HOST is a DNS name, an IPv4 address or an IPv6 address in brackets.
    ///
    /// # Errors
    /// What is wrong, with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        units::host_port(text)
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What the management cluster's Kubernetes is asked, and how.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesConfig {
    /// Whose token it is.
    pub(crate) authn: bool,
    /// Who may do what.
    pub(crate) authz: bool,
    /// How to reach it; none stands for the service account of the pod.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Whom tokens must be for; none stands for the kube-apiserver itself.
    pub(crate) audiences: Vec<String>,
    /// For one question.
    pub(crate) timeout: Duration,
    /// How long it is remembered whose token it is.
    pub(crate) token_lives: Lives,
    /// How long decisions are remembered.
    pub(crate) decision_lives: Lives,
}

/// Limits and timeouts of the agents' side.
#[derive(Clone, Debug)]
pub(crate) struct TunnelConfig {
    /// Handshakes (TLS and hello) in progress at once; further connections wait in the listener's backlog.
    pub(crate) max_handshakes: usize,
    /// Handshakes in progress at once from one source address.
    pub(crate) max_handshakes_per_address: usize,
    /// Handshakes begun a second, with a burst of two seconds' worth.
    pub(crate) handshake_rate: u32,
    /// The TLS handshake.
    pub(crate) handshake_timeout: Duration,
    /// From the end of the handshake to a complete hello.
    pub(crate) hello_timeout: Duration,
    /// Sessions of all clusters.
    pub(crate) max_sessions: usize,
    /// Sessions of one cluster.
    pub(crate) max_sessions_per_cluster: usize,
    /// Between two heartbeats. Three without an answer end the session.
    pub(crate) heartbeat_interval: Duration,
    /// What the other sessions of a cluster get to show a sign of life when a new one arrives.
    pub(crate) probe_timeout: Duration,
    /// Between two probes of a session, from here to the kube-apiserver and back.
    pub(crate) check_interval: Duration,
    /// For one of them.
    pub(crate) check_timeout: Duration,
    /// Streams open at once on one session.
    pub(crate) max_streams: usize,
    /// Bytes of all sessions together that arrived and were not read.
    pub(crate) memory_budget: usize,
}

/// Limits and timeouts of the users' side.
#[derive(Clone, Debug)]
pub(crate) struct GatewayConfig {
    /// Whether who shows no credential is the user `system:anonymous`, and not just refused.
    pub(crate) anonymous: bool,
    /// Connections open at once; one more is hung up on. Some 50 KiB each, and well below usual limits on open files.
    pub(crate) max_connections: usize,
    /// Handshakes in progress at once; more wait. A handshake costs a core some 200 µs.
    pub(crate) max_handshakes: usize,
    /// The TLS handshake.
    pub(crate) handshake_timeout: Duration,
    /// For the head of a request, and between requests of a kept connection: more than the idle time of client-go
    /// (90 s) and of common load balancers (60 s), so that it is not this side that closes first.
    pub(crate) head_timeout: Duration,
    /// How long opening a stream may take.
    pub(crate) open_timeout: Duration,
    /// From the last byte of a short request to the head of its response: kube-apiserver gives up after 60 s. Watches,
    /// followed logs and what runs long otherwise have no such limit; upgrades do.
    pub(crate) response_timeout: Duration,
    /// How often it is asked again whether a watch, a followed log or an upgraded connection may go on.
    pub(crate) recheck_interval: Duration,
    /// Requests of one user that run at once; one more gets 429.
    pub(crate) max_requests_per_user: usize,
    /// Requests to one cluster that run at once; one more gets 429. Each session has a limit of streams besides.
    pub(crate) max_requests_per_cluster: usize,
    /// Requests of one user that begin a second, to whatever cluster; one more gets 429.
    pub(crate) user_rate: Option<Rate>,
    /// Requests to one cluster that begin a second; one more gets 429.
    pub(crate) cluster_rate: Option<Rate>,
}

/// Requests that may begin a second, and at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Each second.
    pub(crate) a_second: NonZeroU32,
    /// At once.
    pub(crate) burst: NonZeroU32,
}

/// One thing that is wrong with the configuration or with what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag or file, with a place in it where there is one.
    pub at: String,
    /// What is wrong, with the value unless it is secret.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Everything that is wrong; never empty where it is an error. Displayed one problem a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Error)]
#[error("{}", self.lines())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, at: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem { at: at.into(), what: what.into(), remedy: remedy.into() });
    }

    /// Notes the problem of a failed step and goes on without its value.
    pub(crate) fn keep<T>(&mut self, outcome: Result<T, Problem>) -> Option<T> {
        outcome.map_err(|problem| self.0.push(problem)).ok()
    }

    /// The error, if there is any problem.
    pub(crate) fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    fn lines(&self) -> String {
        let each: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        each.join("\n")
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

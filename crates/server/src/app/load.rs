//! What the server reads before it starts: the state directory, the files that the configuration names, the store.
//!
//! Called by `App::build`. Everything that is wrong is reported at once.

use std::{error::Error, path::Path, sync::Arc};

use moorline_access::{Policy, StaticTokens};
use moorline_ca::SubjectName;
use moorline_model::ClusterRecord;
use moorline_mtls::{GatewayAcceptor, KeyPair, Reloading, Roots, Source, TunnelAcceptor};
use moorline_oidc::Oidc;
use moorline_process::Registry as MetricRegistry;
use moorline_store::Embedded;

use super::AppError;
use crate::{
    audit::{Audit, Sinks, WebhookSink},
    bootstrap::{StateDir, Which, overlap::TunnelAuthorities},
    clock,
    config::{ClusterStore, Config, Problem, Problems},
    reload,
    services::catalog::{self, Catalog},
    serving::{self, Serving, Signer},
    state::State,
    tunnel,
};

/// Everything that is read from the state directory and from the files that the configuration names.
pub(super) struct Loaded {
    pub(super) tokens: reload::Read<StaticTokens>,
    pub(super) policy: reload::Read<Policy>,
    pub(super) audit: Option<(Arc<Audit>, Sinks)>,
    pub(super) audit_policy: Option<reload::InUse>,
    pub(super) tunnel_authorities: TunnelAuthorities,
    pub(super) gateway_serving: Option<Serving>,
    pub(super) gateway_keys: Option<Reloading<KeyPair>>,
    pub(super) user_roots: Reloading<Roots>,
    pub(super) oidc: Option<Arc<Oidc>>,
    pub(super) services: ServiceTable,
}

/// The embedded store, where clusters are kept in one, and all records in it.
pub(super) type Opened = (Embedded, Vec<ClusterRecord>);

/// Fills the state directory where it is empty and reads everything. Blocks on the disk.
///
/// # Errors
/// Every problem of the files at once, or the store's.
pub(super) fn load(
    config: &Config,
    metrics: &MetricRegistry,
    webhook: Option<WebhookSink>,
) -> Result<(Loaded, Option<Opened>), AppError> {
    let dir = StateDir::new(&config.state_dir);
    dir.fill(&config.api_group, clock::now())?;
    let loaded = Loaded::read(config, &dir, metrics, webhook)?;
    if config.cluster_store == ClusterStore::Kubernetes {
        return Ok((loaded, None));
    }
    let store = Embedded::open(&dir.store())?;
    let records = store.list()?;
    Ok((loaded, Some((store, records))))
}

impl Loaded {
    /// Reads everything, and reports everything that is wrong.
    fn read(
        config: &Config,
        dir: &StateDir,
        metrics: &MetricRegistry,
        webhook: Option<WebhookSink>,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let tokens = keep_all(&mut problems, reload::tokens(&config.token_file));
        let policy = keep_all(&mut problems, reload::policy(&config.policy_file));
        let audit = keep_all(&mut problems, audit(config, metrics, webhook));
        let tunnel_authorities = problems.keep(dir.tunnel_authorities());
        let services = keep_all(&mut problems, services(config));
        let user_roots = problems.keep(roots(&config.client_ca_file));
        let oidc = config.oidc.clone().map(|oidc| Oidc::new(oidc, config.oidc_cache_time)).transpose();
        let oidc = problems.keep(oidc.map_err(|error| named("OpenID Connect", &error))).flatten().map(Arc::new);
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
        let all = (tokens, policy, audit, tunnel_authorities, user_roots, services);
        let (
            Some(tokens),
            Some(policy),
            Some((audit, audit_policy)),
            Some(tunnel_authorities),
            Some(user_roots),
            Some(services),
        ) = all
        else {
            return Err(problems);
        };
        problems.into_result()?;
        Ok(Self {
            tokens,
            policy,
            audit,
            audit_policy,
            tunnel_authorities,
            gateway_serving,
            gateway_keys,
            user_roots,
            oidc,
            services,
        })
    }
}

/// The audit trail's end, and the file of its policy, if one is named.
type AuditTrail = (Option<(Arc<Audit>, Sinks)>, Option<reload::InUse>);

fn audit(config: &Config, metrics: &MetricRegistry, webhook: Option<WebhookSink>) -> Result<AuditTrail, Problems> {
    let (policy, in_use) = match &config.audit.policy_file {
        Some(path) => {
            let read = reload::audit_policy(path)?;
            let in_use = (path.clone(), read.hash());
            (read.value, Some(in_use))
        }
        None => (Audit::default_policy(), None),
    };
    Ok((Audit::open(&config.audit, webhook, policy, &config.api_group, metrics)?, in_use))
}

/// The services that are offered, and the file that says so, if one is named.
type ServiceTable = (Catalog, Option<reload::InUse>);

fn services(config: &Config) -> Result<ServiceTable, Problems> {
    let Some(path) = &config.services.file else { return Ok((Catalog::default(), None)) };
    let read = catalog::load(path)?;
    let in_use = (path.clone(), read.hash());
    Ok((read.value, Some(in_use)))
}

fn keep_all<T>(problems: &mut Problems, outcome: Result<T, Problems>) -> Option<T> {
    outcome.map_err(|found| problems.0.extend(found.0)).ok()
}

fn named(at: &str, error: &dyn Error) -> Problem {
    Problem { at: at.to_owned(), what: error.to_string(), remedy: String::new() }
}

fn roots(path: &Path) -> Result<Reloading<Roots>, Problem> {
    Reloading::roots(path).map_err(|error| named("trust bundle", &error))
}

fn serve_by(dir: &StateDir, which: Which, door: &'static str, names: Vec<SubjectName>) -> Result<Serving, Problem> {
    let signer = Signer::Fixed(Box::new(dir.authority(which)?));
    Serving::new(door, signer, names).map_err(|error| named(&dir.certificate(which).display().to_string(), &error))
}

/// The fixed name comes first: it is the one that agents verify.
pub(super) fn tunnel_names(config: &Config) -> Vec<SubjectName> {
    let mut names = vec![SubjectName::Dns(tunnel::SERVER_NAME.to_owned())];
    let public: Vec<_> = config.public_tunnel_address.iter().map(|address| address.host.clone()).collect();
    names.extend(serving::names(&public, config.tunnel_listen.ip()));
    names
}

/// The acceptors of both doors, and what keeps their keys fresh.
pub(super) struct Doors {
    pub(super) tunnel: TunnelAcceptor,
    pub(super) gateway: GatewayAcceptor,
    pub(super) serving: Vec<Serving>,
    pub(super) gateway_keys: Option<Reloading<KeyPair>>,
}

impl Doors {
    /// Makes the acceptors of what was loaded.
    ///
    /// # Errors
    /// Keys or roots that TLS cannot use.
    pub(super) fn open(
        state: &State,
        user_roots: &Reloading<Roots>,
        tunnel_names: Vec<SubjectName>,
        gateway_serving: Option<Serving>,
        gateway_keys: Option<Reloading<KeyPair>>,
    ) -> Result<Self, Problems> {
        let refuse = |door: &str, error: &dyn Error| Problems::from(named(door, error));
        let tunnel_serving = Serving::new("tunnel", Signer::Tunnel(Arc::clone(&state.issuer)), tunnel_names)
            .map_err(|error| refuse("tunnel-ca.crt", &error))?;
        state.metrics.expires("tunnel", tunnel_serving.not_after());
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
        let registry = Arc::clone(&state.registry);
        Ok(Self {
            tunnel: TunnelAcceptor::new(tunnel_serving.source(), state.issuer.believed(), moorline_wire::ALPN)
                .and_then(|acceptor| acceptor.with_join(moorline_wire::JOIN_ALPN))
                .and_then(|acceptor| acceptor.with_guardian(move || registry.knows_guardians()))
                .map_err(|error| refuse("tunnel", &error))?,
            gateway: GatewayAcceptor::new(keys, Some(user_roots.source()))
                .map_err(|error| refuse("gateway", &error))?,
            serving: std::iter::once(tunnel_serving).chain(gateway_serving).collect(),
            gateway_keys,
        })
    }
}

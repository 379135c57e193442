//! From as typed to as meant: every default, every check of a single value and of values against each other.
//!
//! Called by the programs before anything starts. It reads the files that are named, and changes none.

mod oidc;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use moorline_kube::Lives;
use moorline_process::Plan;

use super::{
    ClusterStore, Config, GatewayConfig, HostPort, KeyFiles, KubernetesConfig, Problem, Problems, Rate, RawConfig,
    ServicesConfig, TunnelConfig, audit, units,
};
use crate::{bootstrap::StateDir, control::issue::CertificateLives, notify::NotifyConfig, reload};

const DURATION_REMEDY: &str = "write a number and its unit: 500ms, 30s, 2m, 1h, 365d";
const LISTEN_REMEDY: &str = "write ADDRESS:PORT with an IP address, or :PORT";

/// Shorter would cost more than it finds: a beat is a packet both ways on each session.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// Longer than the usual idle timeouts of firewalls, and a dead session would be found too late to matter.
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);

impl Config {
    /// Turns what was typed into what is meant.
    ///
    /// # Errors
    /// Every problem, with flag, value and remedy.
    pub fn resolve(raw: RawConfig) -> Result<Self, Problems> {
        let mut found = Found::default();
        let state_dir = raw.state_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/moorline"));
        let state = StateDir::new(&state_dir);
        let before = found.0.0.len();
        let tunnel_listen = found.listen("--tunnel-listen", raw.tunnel_listen.as_deref(), 9449);
        // What cannot be read may well name the one address that is looked for.
        let readable = (found.0.0.len() == before).then_some(tunnel_listen);
        let public = found.public_address(raw.public_tunnel_address.as_deref(), readable);
        let (tunnel, gateway) = (tunnel(&mut found, &raw), gateway(&mut found, &raw));
        let cluster_store = found.store(raw.cluster_store.as_deref());
        let kubernetes = kubernetes(&mut found, &raw, cluster_store);
        let notify = notify(&mut found, &raw);
        let services = services(&mut found, &raw);
        let gateway_keys = found.keys(raw.tls_cert_file, raw.tls_private_key_file);
        let config = Self {
            public_tunnel_address: public,
            gateway_listen: found.listen("--gateway-listen", raw.gateway_listen.as_deref(), 9443),
            admin_listen: found.listen("--admin-listen", raw.admin_listen.as_deref(), 9091),
            gateway_keys,
            gateway_names: found.names(raw.tls_sans),
            client_ca_file: found.file(
                "--client-ca-file",
                raw.client_ca_file,
                state.user_ca_certificate(),
                reload::check_roots,
            ),
            token_file: found.file("--token-auth-file", raw.token_auth_file, state.tokens(), reload::check_tokens),
            oidc_cache_time: found.span("--oidc-cache-time", raw.oidc.oidc_cache_time.as_deref(), "10s"),
            oidc: found.oidc(raw.oidc),
            policy_file: found.file(
                "--authorization-policy-file",
                raw.authorization_policy_file,
                state.policy(),
                reload::check_policy,
            ),
            cluster_store,
            kubernetes,
            notify,
            audit: audit::resolve(&mut found, raw.audit, &state),
            api_group: found.group(raw.api_group),
            adopt_until: raw.adopt_until.as_deref().and_then(|text| {
                let parsed = text.parse::<moorline_model::Timestamp>().map_err(|error| error.to_string());
                found.read("--adopt-until", parsed, "write a moment in UTC: 2026-11-21T16:00:00Z")
            }),
            certificate_lives: CertificateLives {
                moorline: found.span("--agent-certificate-life", raw.agent_certificate_life.as_deref(), "365d"),
                guardian: found.span("--guardian-certificate-life", raw.guardian_certificate_life.as_deref(), "1826d"),
            },
            reload_interval: found.span("--reload-interval", raw.reload_interval.as_deref(), "10s"),
            plan: Plan {
                notice: found.wait("--shutdown-notice", raw.shutdown_notice.as_deref(), "2s"),
                drain: found.wait("--drain-grace", raw.drain_grace.as_deref(), "20s"),
                ..Plan::default()
            },
            state_dir,
            tunnel_listen,
            tunnel,
            gateway,
            services,
        };
        found.0.into_result()?;
        Ok(config)
    }
}

fn tunnel(found: &mut Found, raw: &RawConfig) -> TunnelConfig {
    TunnelConfig {
        max_handshakes: found.count("--max-handshakes", raw.max_handshakes, 256),
        max_handshakes_per_address: found.count("--max-handshakes-per-address", raw.max_handshakes_per_address, 64),
        handshake_rate: found.rate("--handshake-rate", raw.handshake_rate, 500),
        handshake_timeout: found.span("--handshake-timeout", raw.handshake_timeout.as_deref(), "10s"),
        hello_timeout: found.span("--hello-timeout", raw.hello_timeout.as_deref(), "10s"),
        max_sessions: found.count("--max-sessions", raw.max_sessions, 20_000),
        max_sessions_per_cluster: found.count("--max-sessions-per-cluster", raw.max_sessions_per_cluster, 4),
        heartbeat_interval: found.heartbeat(raw.heartbeat_interval.as_deref()),
        probe_timeout: found.span("--probe-timeout", raw.probe_timeout.as_deref(), "2500ms"),
        check_interval: found.span("--check-interval", raw.check_interval.as_deref(), "15s"),
        check_timeout: found.span("--check-timeout", raw.check_timeout.as_deref(), "10s"),
        max_streams: found.count("--max-streams", raw.max_streams, 1024),
        memory_budget: found.size("--memory-budget", raw.memory_budget.as_deref(), "256MiB"),
    }
}

fn services(found: &mut Found, raw: &RawConfig) -> ServicesConfig {
    if let Some(path) = &raw.services_file {
        found.check("--services-file", path, reload::check_services);
    }
    ServicesConfig {
        file: raw.services_file.clone(),
        max_streams: found.count("--max-service-streams", raw.max_service_streams, 1000),
        max_connections: found.count("--max-service-connections", raw.max_service_connections, 4096),
        rate: found.rate("--service-qps", raw.service_qps, 1000),
        dial_timeout: found.span("--service-dial-timeout", raw.service_dial_timeout.as_deref(), "10s"),
    }
}

fn notify(found: &mut Found, raw: &RawConfig) -> Option<NotifyConfig> {
    let settle = found.wait("--event-webhook-settle", raw.event_webhook_settle.as_deref(), "10s");
    let Some(kubeconfig) = raw.event_webhook_config_file.clone() else {
        if raw.event_webhook_settle.is_some() {
            let what = "is not given, but --event-webhook-settle is";
            found.add("--event-webhook-config-file", what, "name a kubeconfig, or leave that out");
        }
        return None;
    };
    Some(NotifyConfig { kubeconfig, settle })
}

fn gateway(found: &mut Found, raw: &RawConfig) -> GatewayConfig {
    GatewayConfig {
        anonymous: raw.anonymous_auth,
        max_connections: found.count("--max-connections", raw.max_connections, 8192),
        max_handshakes: found.count("--max-gateway-handshakes", raw.max_gateway_handshakes, 256),
        handshake_timeout: found.span("--gateway-handshake-timeout", raw.gateway_handshake_timeout.as_deref(), "10s"),
        head_timeout: found.span("--head-timeout", raw.head_timeout.as_deref(), "120s"),
        open_timeout: found.span("--open-timeout", raw.open_timeout.as_deref(), "10s"),
        response_timeout: found.span("--response-timeout", raw.response_timeout.as_deref(), "90s"),
        recheck_interval: found.span("--recheck-interval", raw.recheck_interval.as_deref(), "10s"),
        max_requests_per_user: found.count("--max-requests-per-user", raw.max_requests_per_user, 1000),
        max_requests_per_cluster: found.count("--max-requests-per-cluster", raw.max_requests_per_cluster, 1000),
        user_rate: found.rate_of(["--user-qps", "--user-burst"], [raw.user_qps, raw.user_burst]),
        cluster_rate: found.rate_of(["--cluster-qps", "--cluster-burst"], [raw.cluster_qps, raw.cluster_burst]),
    }
}

fn kubernetes(found: &mut Found, raw: &RawConfig, store: ClusterStore) -> KubernetesConfig {
    let (authn, authz) = (raw.kubernetes_authn, raw.kubernetes_authz);
    if raw.kubeconfig.is_some() && !authn && !authz && store == ClusterStore::Embedded {
        let what = "is given, but nothing is to be asked of Kubernetes";
        let remedy = "add --kubernetes-authn, --kubernetes-authz or --cluster-store kubernetes, or leave it out";
        found.0.add("--kubeconfig", what, remedy);
    }
    if !raw.api_audiences.is_empty() && !authn {
        let what = "is given, but Kubernetes is not asked about tokens";
        found.0.add("--api-audiences", what, "add --kubernetes-authn, or leave it out");
    }
    if raw.authorization_policy_file.is_some() && authz {
        let what = "is given, but Kubernetes decides";
        found.0.add("--authorization-policy-file", what, "leave out this or --kubernetes-authz");
    }
    let mut ttl = |flag: &str, text: &Option<String>, default| found.wait(flag, text.as_deref(), default);
    let token_lives = Lives {
        yes: ttl("--authentication-cache-ttl", &raw.authentication_cache_ttl, "10s"),
        no: ttl("--authentication-cache-unauthenticated-ttl", &raw.authentication_cache_unauthenticated_ttl, "5s"),
    };
    let decision_lives = Lives {
        yes: ttl("--authorization-cache-authorized-ttl", &raw.authorization_cache_authorized_ttl, "10s"),
        no: ttl("--authorization-cache-unauthorized-ttl", &raw.authorization_cache_unauthorized_ttl, "5s"),
    };
    KubernetesConfig {
        authn,
        authz,
        kubeconfig: raw.kubeconfig.clone(),
        audiences: raw.api_audiences.clone(),
        timeout: found.span("--kubernetes-timeout", raw.kubernetes_timeout.as_deref(), "5s"),
        token_lives,
        decision_lives,
    }
}

/// Problems as they are found. Every reader gives some value back, so that the rest is looked at, too.
#[derive(Default)]
pub(super) struct Found(Problems);

impl Found {
    /// Notes one more.
    pub(super) fn add(&mut self, flag: &str, what: &str, remedy: &str) {
        self.0.add(flag, what, remedy);
    }

    pub(super) fn read<T>(&mut self, flag: &str, outcome: Result<T, String>, remedy: &str) -> Option<T> {
        self.0.keep(outcome.map_err(|what| Problem { at: flag.to_owned(), what, remedy: remedy.to_owned() }))
    }

    fn listen(&mut self, flag: &str, text: Option<&str>, port: u16) -> SocketAddr {
        let default = SocketAddr::from(([0, 0, 0, 0], port));
        text.and_then(|text| self.read(flag, units::listen(text), LISTEN_REMEDY)).unwrap_or(default)
    }

    fn public_address(&mut self, text: Option<&str>, listen: Option<SocketAddr>) -> Option<HostPort> {
        const FLAG: &str = "--public-tunnel-address";
        if let Some(text) = text {
            return self.read(FLAG, units::host_port(text), "write the HOST:PORT that agents reach the tunnel at");
        }
        if let Some(listen) = listen.filter(|listen| listen.ip().is_unspecified()) {
            self.0.add(
                FLAG,
                format!("is not given, and --tunnel-listen {listen} is every address of this machine"),
                "write the HOST:PORT that agents reach the tunnel at",
            );
        }
        None
    }

    fn keys(&mut self, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Option<KeyFiles> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let keys = KeyFiles { certificate, key };
                self.0.keep(reload::check_keys(&keys))?;
                Some(keys)
            }
            (Some(_), None) => {
                self.0.add("--tls-private-key-file", "is not given, but --tls-cert-file is", "give both or neither");
                None
            }
            (None, Some(_)) => {
                self.0.add("--tls-cert-file", "is not given, but --tls-private-key-file is", "give both or neither");
                None
            }
            (None, None) => None,
        }
    }

    /// A file that is named must be there and good; the default one, which the first start makes, only good.
    fn file(
        &mut self,
        flag: &str,
        named: Option<PathBuf>,
        default: PathBuf,
        check: fn(&std::path::Path) -> Result<(), Problems>,
    ) -> PathBuf {
        let path = match named {
            Some(path) => path,
            None if default.exists() => default,
            None => return default,
        };
        self.check(flag, &path, check);
        path
    }

    /// Notes everything that is wrong with a file that is named.
    pub(super) fn check(
        &mut self,
        flag: &str,
        path: &std::path::Path,
        check: fn(&std::path::Path) -> Result<(), Problems>,
    ) {
        if let Err(problems) = check(path) {
            self.0.0.extend(
                problems.0.into_iter().map(|problem| Problem { at: format!("{flag} {}", problem.at), ..problem }),
            );
        }
    }

    fn names(&mut self, names: Vec<String>) -> Vec<String> {
        for name in &names {
            if moorline_mtls::client::check_server_name(name).is_err() {
                self.0.add(
                    "--tls-san",
                    format!("{name:?} is neither a DNS name nor an IP address"),
                    "write a name without port",
                );
            }
        }
        names
    }

    fn store(&mut self, text: Option<&str>) -> ClusterStore {
        match text {
            None | Some("embedded") => ClusterStore::Embedded,
            Some("kubernetes") => ClusterStore::Kubernetes,
            Some(other) => {
                self.0.add("--cluster-store", format!("{other:?} is none"), "write embedded or kubernetes");
                ClusterStore::Embedded
            }
        }
    }

    fn group(&mut self, group: Option<String>) -> String {
        let group = group.unwrap_or_else(|| "moorline.io".to_owned());
        let label = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !group.split('.').all(label) {
            self.0.add(
                "--api-group",
                format!("{group:?} is no API group"),
                "write a DNS name in lower case, such as moorline.io",
            );
        }
        group
    }

    pub(super) fn count(&mut self, flag: &str, given: Option<usize>, default: usize) -> usize {
        /// Beyond this a limit no longer limits anything, and the runtime's semaphores do not count.
        const MOST: usize = 1_000_000;
        let count = given.unwrap_or(default);
        if !(1..=MOST).contains(&count) {
            self.0.add(flag, format!("{count} is not allowed"), format!("write a number from 1 to {MOST}"));
        }
        count.clamp(1, MOST)
    }

    fn rate(&mut self, flag: &str, given: Option<u32>, default: u32) -> u32 {
        let rate = given.unwrap_or(default);
        if rate == 0 {
            self.0.add(flag, "0 would let nobody in", "write a number above 0");
        }
        rate.max(1)
    }

    /// Requests a second with a burst, if there is such a limit.
    fn rate_of(&mut self, flags: [&str; 2], given: [Option<u32>; 2]) -> Option<Rate> {
        let [qps, burst] = flags;
        let remedy = format!("write a number above 0, or leave out {qps} for no limit");
        let mut number = |flag, given: Option<u32>| {
            given.map(|number| {
                self.read(
                    flag,
                    NonZeroU32::new(number).ok_or_else(|| "0 would let nothing through".to_owned()),
                    &remedy,
                )
            })
        };
        let [a_second, at_once] = [number(qps, given[0]), number(burst, given[1])];
        let Some(a_second) = a_second else {
            if at_once.is_some() {
                self.0.add(burst, format!("is given, but {qps} is not"), format!("add {qps}, or leave this out"));
            }
            return None;
        };
        let a_second = a_second?;
        let burst = at_once.unwrap_or_else(|| Some(a_second.saturating_add(a_second.get())))?;
        Some(Rate { a_second, burst })
    }

    fn size(&mut self, flag: &str, text: Option<&str>, default: &str) -> usize {
        let remedy = "write bytes, or a number with KiB, MiB or GiB";
        self.read(flag, units::bytes(text.unwrap_or(default)), remedy).unwrap_or_default()
    }

    /// A duration above zero.
    pub(super) fn span(&mut self, flag: &str, text: Option<&str>, default: &str) -> Duration {
        let before = self.0.0.len();
        let span = self.wait(flag, text, default);
        if span.is_zero() && self.0.0.len() == before {
            self.0.add(flag, "0 would leave no time at all", DURATION_REMEDY);
        }
        span
    }

    /// A duration that may be zero.
    pub(super) fn wait(&mut self, flag: &str, text: Option<&str>, default: &str) -> Duration {
        self.read(flag, units::duration(text.unwrap_or(default)), DURATION_REMEDY).unwrap_or_default()
    }

    fn heartbeat(&mut self, text: Option<&str>) -> Duration {
        const FLAG: &str = "--heartbeat-interval";
        let before = self.0.0.len();
        let span = self.span(FLAG, text, "5s");
        if self.0.0.len() == before && !(MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&span) {
            self.0.add(
                FLAG,
                format!("{span:?} is not allowed"),
                format!("write {MIN_HEARTBEAT:?} to {MAX_HEARTBEAT:?}"),
            );
        }
        span
    }
}

#[cfg(test)]
mod tests;

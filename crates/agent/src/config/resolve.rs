//! From the configuration as written to the configuration as meant: the only step that can fail, and it tells all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use moorline_mtls::{Connector, HttpsConnector, HttpsTrust, Reloading, Roots};
use moorline_wire::ALPN;
use tokio::sync::watch;

use super::{Config, ConfigError, Followed, Problems, RawConfig, Surroundings, narrowing, services, upstream};
use crate::{
    connection,
    identity::{self, Directory, Files, Home, HomeError, Identity, Secret},
    kubernetes::{CONNECTIONS, Object, SECRETS},
    serve,
    tunnel::{self, Address, Proxy, ProxyVariables, Router, Trust},
};

pub(super) const DEFAULT_CERT_DIR: &str = "/certs";
const DEFAULT_ADMIN: &str = ":9092";
const DEFAULT_MAX_REQUESTS: usize = 1000;
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(30);

/// Above this a typing error is likelier than a wish, and file descriptors run out first.
const MOST_REQUESTS: usize = 100_000;

/// The number of the way that a flag names.
const FIRST_ROUTE: u64 = 1;

/// A host that no `NO_PROXY` names.
const ANY_HOST: &str = "example.invalid";

const NEW_FILES: &str = "register this cluster (moorline cluster add) and install the files that it gives";

pub(super) fn resolve(
    raw: &RawConfig,
    around: &Surroundings<'_>,
    identity: Option<Files>,
) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let home = Directory::new(raw.cert_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CERT_DIR)));
    let loaded = identity.map_or_else(|| home.load_blocking(), Ok);
    let told = loaded.as_ref().ok().and_then(|files| files.address.clone());
    let resource = connection(raw, &mut problems);
    let server = server(raw, told.as_deref(), &mut problems);
    let secret = secret(raw, &home, &mut problems);
    let identity = certificates((home, secret.clone()), loaded, around, &mut warnings, &mut problems);
    let mut followed = Vec::new();
    let proxies = proxies(raw, around, (server.as_ref(), resource.is_some()), &mut followed, &mut problems);
    let sessions = sessions(raw, &mut problems);
    let upstream = upstream::resolve(raw, around, &mut followed, &mut warnings, &mut problems);
    let mut serve = serving(raw, &mut warnings, &mut problems);
    // Whoever acts as the agent itself would read its key, and could send it elsewhere: nobody may, whatever is configured.
    let own = upstream.as_ref().and_then(|(_, token)| token.account());
    serve.narrowing.deny_users.extend(own);
    let admin_addr = admin(raw, &mut problems);
    let services = services::resolve(raw, admin_addr, &mut problems);
    let drain_grace =
        duration("--drain-grace", raw.drain_grace.as_deref(), &mut problems).unwrap_or(DEFAULT_DRAIN_GRACE);
    if let (Some(identity), Some((upstream, token)), Some(admin_addr), true) =
        (identity, upstream, admin_addr, problems.0.is_empty())
    {
        let connector = Connector::new(identity.keys(), identity.roots(), ALPN);
        let public = public(&connector, resource.is_some());
        let router = Router::new(connector, public, proxies.0, proxies.1);
        let connection = way(router, server, resource, &mut problems)?;
        let routes = connection.routes.subscribe();
        let tunnel = tunnel::Config {
            routes,
            identity: Arc::clone(&identity),
            sessions,
            service_connections: services.all_connections(),
        };
        followed.push(Followed::Identity(identity));
        return Ok(Config {
            tunnel,
            connection,
            secret,
            serve,
            services,
            upstream,
            token,
            followed,
            admin_addr,
            drain_grace,
            warnings,
        });
    }
    Err(ConfigError(problems.0))
}

/// The name of the connection resource.
fn connection(raw: &RawConfig, problems: &mut Problems) -> Option<Object> {
    let name = raw.management_cluster_connection.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
    let name = name.parse().map_err(|error| {
        let remedy = "give the name of a ManagementClusterConnection, such as default";
        problems.add("--management-cluster-connection", format!("{error}"), remedy);
    });
    Some(Object::of_cluster(CONNECTIONS, name.ok()?))
}

/// As it was written, or else as it was told together with the certificate. A resource may say it later.
fn server(raw: &RawConfig, told: Option<&str>, problems: &mut Problems) -> Option<Address> {
    const FIELD: &str = "--management-cluster-addr";
    let written = raw.management_cluster_addr.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let Some(text) = written.or(told) else {
        if raw.management_cluster_connection.is_none() {
            let remedy = "name the tunnel server, such as hub.example.com:9449, or the resource that does \
                          (--management-cluster-connection)";
            problems.add(FIELD, "is missing", remedy);
        }
        return None;
    };
    let parsed = text.parse::<Address>().map_err(|error| {
        let remedy = "write HOST or HOST:PORT without a scheme, and an IPv6 address in brackets";
        problems.add(FIELD, error.to_string(), remedy);
    });
    parsed.ok()
}

/// The connector that believes the operating system's authorities as well, where it may be asked for.
fn public(connector: &Connector, wanted: bool) -> Result<Connector, String> {
    if !wanted {
        return Err("no resource asks for them".to_owned());
    }
    let system = Roots::system().map_err(|error| error.to_string())?;
    Ok(connector.clone().believing_also(system))
}

/// The first way, if a flag names it, and who says the next.
fn way(
    router: Router,
    server: Option<Address>,
    resource: Option<Object>,
    problems: &mut Problems,
) -> Result<connection::Config, ConfigError> {
    let first = server.map(|address| router.route(FIRST_ROUTE, address, Trust::Moorline));
    let first = first.transpose().map_err(|error| {
        problems.add("--management-cluster-addr", error.to_string(), "correct it");
        ConfigError(std::mem::take(&mut problems.0))
    })?;
    let routes = watch::Sender::new(first.map(Arc::new));
    Ok(connection::Config { routes, router, resource })
}

/// The Secret that keeps the identity, which is read from the directory first.
pub(super) fn secret(raw: &RawConfig, mounted: &Directory, problems: &mut Problems) -> Option<Arc<Secret>> {
    let text = raw.identity_secret.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
    let object = text
        .split_once('/')
        .and_then(|(namespace, name)| Some(Object::of_namespace(SECRETS, namespace.parse().ok()?, name.parse().ok()?)));
    if object.is_none() {
        let remedy = "write NAMESPACE/NAME, such as moorline/moorline-agent-certs";
        problems.add("--identity-secret", format!("{text:?} names no Secret"), remedy);
    }
    Some(Arc::new(Secret::new(object?, mounted.clone())))
}

fn certificates(
    (home, secret): (Directory, Option<Arc<Secret>>),
    loaded: Result<Files, HomeError>,
    around: &Surroundings<'_>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Arc<Identity>> {
    let place = PathBuf::from(home.place());
    let certificate = place.join(identity::CERTIFICATE).display().to_string();
    let identity = loaded.and_then(|files| {
        let home: Arc<dyn Home> = match secret {
            Some(secret) => secret,
            None => Arc::new(home),
        };
        let made = Identity::new(home, &files);
        made.map_err(|reason| HomeError::Invalid { place: place.display().to_string(), reason })
    });
    let identity = match identity {
        Ok(identity) => Arc::new(identity),
        Err(error) => {
            let roots = place.join(identity::ROOTS);
            let told = error.to_string();
            problems.add("--cert-dir", &told, NEW_FILES);
            if let Err(also) = Reloading::roots(roots)
                && !told.contains(identity::ROOTS)
            {
                problems.add("--cert-dir", also.to_string(), NEW_FILES);
            }
            return None;
        }
    };
    let leaf = identity.keys().current();
    if let Err(time) = leaf.check_validity(around.now) {
        problems.add("--cert-dir", format!("the certificate in {certificate} is {time}"), NEW_FILES);
        return None;
    }
    if !leaf.info().for_clients {
        problems.add("--cert-dir", format!("the certificate in {certificate} is not made for TLS clients"), NEW_FILES);
        return None;
    }
    let trusted = identity.roots().current();
    if !trusted.authorities().iter().any(|authority| authority.subject == leaf.info().issuer) {
        warnings.push(format!(
            "{certificate} was issued by {:?}, which is not in management-cluster.crt beside it: if the server refuses \
             it, the files come from two installations",
            leaf.info().issuer
        ));
    }
    Some(identity)
}

/// The proxy variables, and what verifies a proxy that is spoken to over TLS, where there may be one in the way.
fn proxies(
    raw: &RawConfig,
    around: &Surroundings<'_>,
    (server, told_later): (Option<&Address>, bool),
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> (ProxyVariables, Option<HttpsConnector>) {
    let first = |names: &[&str]| {
        let mut set = names.iter().filter_map(|name| (around.variable)(name));
        set.find(|value| !value.trim().is_empty()).unwrap_or_default()
    };
    let variables = ProxyVariables {
        proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        no_proxy: first(&["NO_PROXY", "no_proxy"]),
    };
    let chosen = match server {
        Some(Address { host, port }) if !told_later => Proxy::choose(&variables, host, *port),
        // Any address may come: the proxy counts, whatever is exempted.
        _unknown => Proxy::choose(&ProxyVariables { no_proxy: String::new(), ..variables.clone() }, ANY_HOST, 443),
    };
    let tls = match chosen {
        Ok(chosen) => chosen.is_some_and(|proxy| proxy.tls),
        Err(error) => {
            problems.add("HTTPS_PROXY", error.to_string(), "correct it, or exempt the server by NO_PROXY");
            false
        }
    };
    let trust = if tls { trust("--proxy-ca-file", raw.proxy_ca_file.as_deref(), followed, problems) } else { None };
    (variables, trust.map(|trust| HttpsConnector::new(trust, None, &[b"http/1.1"])))
}

/// The authorities in a file, which is followed, or else those of the operating system.
pub(super) fn trust(
    field: &str,
    file: Option<&Path>,
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> Option<HttpsTrust> {
    let trust = match file {
        Some(file) => Reloading::roots(file)
            .map(|roots| {
                let trust = HttpsTrust::Roots(roots.source());
                followed.push(Followed::Roots(roots));
                trust
            })
            .map_err(|error| error.to_string()),
        None => HttpsTrust::system().map_err(|error| error.to_string()),
    };
    trust.map_err(|error| problems.add(field, error, "name a PEM file with the authority's certificate")).ok()
}

fn sessions(raw: &RawConfig, problems: &mut Problems) -> u8 {
    let sessions = raw.sessions.unwrap_or(1);
    if !(1..=tunnel::MAX_SESSIONS).contains(&sessions) {
        let most = tunnel::MAX_SESSIONS;
        problems.add("--sessions", format!("{sessions} is out of range"), format!("choose 1 to {most}"));
    }
    sessions
}

fn serving(raw: &RawConfig, warnings: &mut Vec<String>, problems: &mut Problems) -> serve::Config {
    let max_requests = raw.max_requests.unwrap_or(DEFAULT_MAX_REQUESTS);
    if !(1..=MOST_REQUESTS).contains(&max_requests) {
        let what = format!("{max_requests} is out of range");
        problems.add("--max-requests", what, format!("choose 1 to {MOST_REQUESTS}"));
    }
    serve::Config { narrowing: narrowing::resolve(&raw.acting, warnings, problems), max_requests }
}

fn admin(raw: &RawConfig, problems: &mut Problems) -> Option<SocketAddr> {
    let text = raw.admin_addr.as_deref().unwrap_or(DEFAULT_ADMIN).trim();
    let parsed = listening(text);
    if parsed.is_none() {
        problems.add(
            "--admin-addr",
            format!("{text:?} is no address"),
            "write ADDRESS:PORT with an IP address, or :PORT",
        );
    }
    parsed
}

/// `ADDRESS:PORT`, or `:PORT` of every address.
pub(super) fn listening(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        None => text.parse().ok(),
    }
}

/// `90s`, `2m`, `500ms`, `1h`.
pub(super) fn duration(field: &str, text: Option<&str>, problems: &mut Problems) -> Option<Duration> {
    let text = text?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _unknown => None,
    };
    let span = millis.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit)).map(Duration::from_millis);
    let span = span.filter(|span| !span.is_zero());
    if span.is_none() {
        problems.add(
            field,
            format!("{text:?} is no duration"),
            "write a number above 0 and its unit: 500ms, 30s, 2m, 1h",
        );
    }
    span
}

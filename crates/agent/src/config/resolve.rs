//! From the configuration as written to the configuration as meant: the only step that can fail, and it tells all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use moorline_mtls::{Connector, HttpsConnector, HttpsTrust, Reloading};
use moorline_wire::ALPN;

use super::{Config, ConfigError, Followed, Problems, RawConfig, Surroundings, narrowing, upstream};
use crate::{
    identity::{self, Directory, Files, Home as _, HomeError, Identity},
    serve,
    tunnel::{self, Dialer, Proxy, ProxyVariables},
};

const DEFAULT_CERT_DIR: &str = "/certs";
const DEFAULT_TUNNEL_PORT: u16 = 9449;
const DEFAULT_ADMIN: &str = ":9092";
const DEFAULT_MAX_REQUESTS: usize = 1000;
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(30);

/// Above this a typing error is likelier than a wish, and file descriptors run out first.
const MOST_REQUESTS: usize = 100_000;

const NEW_FILES: &str = "register this cluster (moorline cluster add) and install the files that it gives";

pub(super) fn resolve(raw: &RawConfig, around: &Surroundings<'_>) -> Result<Config, ConfigError> {
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let home = Directory::new(raw.cert_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CERT_DIR)));
    let loaded = home.load_blocking();
    let told = loaded.as_ref().ok().and_then(|files| files.address.clone());
    let server = server(raw, told.as_deref(), &mut problems);
    let identity = certificates(home, loaded, around, &mut warnings, &mut problems);
    let mut followed = Vec::new();
    let proxy =
        server.as_ref().and_then(|(host, port)| proxy(raw, around, (host, *port), &mut followed, &mut problems));
    let sessions = sessions(raw, &mut problems);
    let upstream = upstream::resolve(raw, around, &mut followed, &mut warnings, &mut problems);
    let serve = serving(raw, &mut warnings, &mut problems);
    let admin_addr = admin(raw, &mut problems);
    let drain_grace =
        duration("--drain-grace", raw.drain_grace.as_deref(), &mut problems).unwrap_or(DEFAULT_DRAIN_GRACE);
    if let (Some((host, port)), Some(identity), Some((upstream, token)), Some(admin_addr), true) =
        (server, identity, upstream, admin_addr, problems.0.is_empty())
    {
        let connector = Connector::new(identity.keys(), identity.roots(), ALPN);
        let dialer = Dialer { host, port, proxy, connector };
        let tunnel = tunnel::Config { dialer, identity: Arc::clone(&identity), sessions };
        followed.push(Followed::Identity(identity));
        return Ok(Config { tunnel, serve, upstream, token, followed, admin_addr, drain_grace, warnings });
    }
    Err(ConfigError(problems.0))
}

/// As it was written, or else as it was told together with the certificate.
fn server(raw: &RawConfig, told: Option<&str>, problems: &mut Problems) -> Option<(String, u16)> {
    const FIELD: &str = "--management-cluster-addr";
    let written = raw.management_cluster_addr.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let Some(text) = written.or(told) else {
        problems.add(FIELD, "is missing", "name the tunnel server, such as hub.example.com:9449");
        return None;
    };
    let parsed = host_and_port(text, DEFAULT_TUNNEL_PORT);
    if parsed.is_none() {
        problems.add(
            FIELD,
            format!("{text:?} is no address"),
            "write HOST or HOST:PORT without a scheme, and an IPv6 address in brackets",
        );
    }
    parsed
}

/// Splits `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    let authority: http::uri::Authority = text.parse().ok()?;
    if authority.as_str().contains('@') || (text.matches(':').count() > 1 && !text.starts_with('[')) {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let after = authority.as_str().strip_prefix(authority.host())?;
    let port = match after.strip_prefix(':') {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    moorline_mtls::client::check_server_name(host).ok()?;
    Some((host.to_owned(), port))
}

fn certificates(
    home: Directory,
    loaded: Result<Files, HomeError>,
    around: &Surroundings<'_>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Arc<Identity>> {
    let place = PathBuf::from(home.place());
    let certificate = place.join(identity::CERTIFICATE).display().to_string();
    let identity = loaded.and_then(|files| {
        let made = Identity::new(Arc::new(home), &files);
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

fn proxy(
    raw: &RawConfig,
    around: &Surroundings<'_>,
    (host, port): (&str, u16),
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> Option<(Proxy, Option<HttpsConnector>)> {
    let first = |names: &[&str]| {
        let mut set = names.iter().filter_map(|name| (around.variable)(name));
        set.find(|value| !value.trim().is_empty()).unwrap_or_default()
    };
    let variables = ProxyVariables {
        proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        no_proxy: first(&["NO_PROXY", "no_proxy"]),
    };
    let chosen = match Proxy::choose(&variables, host, port) {
        Ok(chosen) => chosen?,
        Err(error) => {
            problems.add("HTTPS_PROXY", error.to_string(), "correct it, or exempt the server by NO_PROXY");
            return None;
        }
    };
    if !chosen.tls {
        return Some((chosen, None));
    }
    let trust = trust("--proxy-ca-file", raw.proxy_ca_file.as_deref(), followed, problems)?;
    Some((chosen, Some(HttpsConnector::new(trust, None, &[b"http/1.1"]))))
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
    let parsed = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        None => text.parse().ok(),
    };
    if parsed.is_none() {
        problems.add(
            "--admin-addr",
            format!("{text:?} is no address"),
            "write ADDRESS:PORT with an IP address, or :PORT",
        );
    }
    parsed
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

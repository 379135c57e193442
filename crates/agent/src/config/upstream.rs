//! How the kube-apiserver is reached: explicit flags, a kubeconfig, or the service account of the pod.
//!
//! One of the three, never a mixture: what the agent talks to must be plain from its command line.

use std::{net::IpAddr, path::Path, time::Duration};

use http::Uri;
use moorline_mtls::{HttpsConnector, HttpsTrust, KeyPair, Reloading, Source};

use super::{
    Followed, Problems, RawConfig, Surroundings, kubeconfig,
    resolve::{duration, trust},
};
use crate::{
    credentials::{TokenSource, read_bearer},
    serve::upstream::{Config, Target, Tls},
};

/// Where Kubernetes mounts a pod's service account.
pub(super) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Offered to the kube-apiserver: upgrades need HTTP/1.1.
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// Twice kube-apiserver's own `--request-timeout` of 60 s, so that it answers 504 itself before we give it up.
const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);

/// What a source says about the kube-apiserver, before it is put together.
pub(super) struct Found {
    /// The flag or file that said so.
    pub(super) source: &'static str,
    pub(super) url: String,
    pub(super) trust: Option<HttpsTrust>,
    pub(super) keys: Option<Source<KeyPair>>,
    pub(super) token: TokenSource,
    pub(super) server_name: Option<String>,
}

pub(super) fn resolve(
    raw: &RawConfig,
    around: &Surroundings<'_>,
    followed: &mut Vec<Followed>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<(Config, TokenSource)> {
    let response_timeout = duration("--kube-response-timeout", raw.kube_response_timeout.as_deref(), problems)
        .unwrap_or(DEFAULT_RESPONSE_TIMEOUT);
    let found = match (&raw.kube_apiserver, &raw.kubeconfig) {
        (Some(_), Some(_)) => {
            problems.add("--kube-apiserver", "is given together with --kubeconfig", "keep one: the flags, or the file");
            None
        }
        (Some(url), None) => {
            no_context(raw, problems);
            from_flags(url, raw, followed, problems)
        }
        (None, Some(file)) => {
            no_flags(raw, "--kubeconfig", problems);
            kubeconfig::read(file, raw.context.as_deref(), followed, warnings, problems)
        }
        (None, None) => {
            no_context(raw, problems);
            no_flags(raw, "the pod's service account", problems);
            in_cluster(around, followed, problems)
        }
    }?;
    let (host, port, tls) = address(&found, problems)?;
    let server_name = raw.kube_tls_server_name.clone().or(found.server_name).unwrap_or_else(|| host.clone());
    if moorline_mtls::client::check_server_name(&server_name).is_err() {
        let what = format!("{server_name:?} is neither a DNS name nor an IP address");
        problems.add("--kube-tls-server-name", what, "write the name in the kube-apiserver's certificate");
        return None;
    }
    let tls = if tls {
        let connector = HttpsConnector::new(found.trust?, found.keys, HTTP_1);
        Some(Tls { connector, server_name })
    } else {
        None
    };
    Some((Config { target: Target { host, port, tls }, response_timeout }, found.token))
}

/// Host, port and whether TLS is spoken.
fn address(found: &Found, problems: &mut Problems) -> Option<(String, u16, bool)> {
    let shown = format!("{:?}", found.url);
    let mut wrong = |what: &str, remedy: &str| {
        problems.add(found.source, format!("{shown} {what}"), remedy);
        None
    };
    let example = "write it as https://HOST:PORT";
    let Ok(uri) = found.url.trim().parse::<Uri>() else { return wrong("is no URL", example) };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("is no URL", example);
    };
    if authority.as_str().contains('@') {
        problems.add(found.source, "holds a user name", "use a token or a client certificate");
        return None;
    }
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return wrong("has a path: the agent talks to a kube-apiserver, not to a proxy in front of it", example);
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16();
    match scheme {
        "https" => Some((host, port.unwrap_or(443), true)),
        "http" if is_loopback(&host) => Some((host, port.unwrap_or(80), false)),
        "http" => wrong("is plain HTTP to another host: tokens and data could be read on the way", "use https://"),
        _other => wrong("has an unknown scheme", example),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn from_flags(url: &str, raw: &RawConfig, followed: &mut Vec<Followed>, problems: &mut Problems) -> Option<Found> {
    let plain = url.trim_start().starts_with("http://");
    let trust = if plain { None } else { trust("--kube-ca-file", raw.kube_ca_file.as_deref(), followed, problems) };
    let keys = match (&raw.kube_client_certificate_file, &raw.kube_client_key_file) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            key_pair("--kube-client-certificate-file", (certificate, key), followed, problems)
        }
        (Some(_), None) => {
            problems.add(
                "--kube-client-key-file",
                "is missing",
                "give it together with --kube-client-certificate-file",
            );
            None
        }
        (None, Some(_)) => {
            let remedy = "give it together with --kube-client-key-file";
            problems.add("--kube-client-certificate-file", "is missing", remedy);
            None
        }
    };
    let token = match &raw.kube_token_file {
        Some(file) => token_file("--kube-token-file", file, problems),
        None => TokenSource::None,
    };
    Some(Found { source: "--kube-apiserver", url: url.to_owned(), trust, keys, token, server_name: None })
}

fn in_cluster(around: &Surroundings<'_>, followed: &mut Vec<Followed>, problems: &mut Problems) -> Option<Found> {
    let variable = |name: &str| (around.variable)(name).filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) else {
        problems.add(
            "--kubeconfig",
            "is missing, as is --kube-apiserver, and this is no pod (KUBERNETES_SERVICE_HOST is not set)",
            "say how to reach the managed cluster's kube-apiserver",
        );
        return None;
    };
    let ca = around.service_account.join("ca.crt");
    let trust = trust("service account", Some(&ca), followed, problems);
    let token = token_file("service account", &around.service_account.join("token"), problems);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("https://{host}:{port}");
    Some(Found { source: "KUBERNETES_SERVICE_HOST", url, trust, keys: None, token, server_name: None })
}

/// A certificate and its key, which are followed.
pub(super) fn key_pair(
    field: &str,
    (certificate, key): (&Path, &Path),
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> Option<Source<KeyPair>> {
    match Reloading::key_pair(certificate, key) {
        Ok(pair) => {
            let source = pair.source();
            followed.push(Followed::Keys(pair));
            Some(source)
        }
        Err(error) => {
            problems.add(field, error.to_string(), "give a PEM certificate and its own key");
            None
        }
    }
}

pub(super) fn token_file(field: &str, file: &Path, problems: &mut Problems) -> TokenSource {
    if let Err(error) = read_bearer(file) {
        problems.add(field, format!("{} {error}", file.display()), "give a file with one token in it");
    }
    TokenSource::File(file.to_owned())
}

fn no_context(raw: &RawConfig, problems: &mut Problems) {
    if raw.context.is_some() {
        problems.add("--context", "means nothing without --kubeconfig", "add --kubeconfig, or leave it out");
    }
}

fn no_flags(raw: &RawConfig, instead: &str, problems: &mut Problems) {
    for (field, given) in [
        ("--kube-ca-file", raw.kube_ca_file.is_some()),
        ("--kube-token-file", raw.kube_token_file.is_some()),
        ("--kube-client-certificate-file", raw.kube_client_certificate_file.is_some()),
        ("--kube-client-key-file", raw.kube_client_key_file.is_some()),
    ] {
        if given {
            let what = format!("belongs to --kube-apiserver, but {instead} is used");
            problems.add(field, what, "add --kube-apiserver, or leave it out");
        }
    }
}

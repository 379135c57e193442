//! First step: which cluster a request is for, and the path it has there.
//!
//! Called by `serve` for every request. Pure: it decides on the request line and two headers. The bytes of the path
//! behind the cluster's name are passed on exactly as they came, neither decoded nor tidied: whatever they mean, they
//! mean to the kube-apiserver, and a second opinion here would be a way around a check somewhere.

use http::{HeaderMap, HeaderName, Method, Uri, Version, uri::PathAndQuery};
use moorline_model::{ClusterName, InvalidClusterName};
use thiserror::Error;

/// The header that names a cluster on plain Kubernetes paths.
pub(crate) const CLUSTER_HEADER: HeaderName = HeaderName::from_static("x-cluster-id");

/// Header lines in one request head; with more, 431. kubectl sends about ten; the rest is room for callers that
/// impersonate somebody in many groups, one line each. hyper lays out room for all of them at every request, so a
/// thousand would cost more than everything else that happens to a small request here.
pub(crate) const MAX_HEADERS: usize = 256;

/// Bytes of all header lines of one request head; with more, 431. Far above what a client needs (a large token has
/// 16 KiB), far below what could hurt.
pub(crate) const MAX_HEAD: usize = 128 * 1024;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the kube-apiserver of a cluster.
    Cluster {
        /// Which.
        cluster: ClusterName,
        /// The path and query that its kube-apiserver gets.
        path: PathAndQuery,
    },
    /// To this server's own API and pages.
    Control,
    /// A question of a load balancer, answered without asking who it is.
    Probe,
}

/// Why a request has no target.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum TargetError {
    /// More headers, or longer ones, than allowed.
    #[error("the request's headers are too large: at most {MAX_HEADERS} lines and {MAX_HEAD} bytes are allowed")]
    HeadTooLarge,
    /// `CONNECT`.
    #[error("the method CONNECT is not supported")]
    Connect,
    /// A request line that holds no path: a whole URL, an authority, `*`.
    #[error("the request must name a path that begins with a single \"/\", not a whole URL")]
    Form,
    /// The name is not one that a cluster can have.
    #[error("{0}")]
    Name(InvalidClusterName),
    /// A cluster header that is no text.
    #[error("the header x-cluster-id does not hold a cluster name")]
    NameText,
    /// Several cluster headers.
    #[error("the header x-cluster-id is given more than once")]
    Repeated,
    /// The path and the header disagree.
    #[error("the path names the cluster \"{path}\" and the header x-cluster-id \"{header}\"")]
    Disagree {
        /// The name in the path.
        path: ClusterName,
        /// The name in the header.
        header: ClusterName,
    },
    /// The path behind the name does not begin with exactly one slash.
    #[error("the path behind the cluster's name must begin with a single \"/\"")]
    Slashes,
}

/// Finds the target.
///
/// # Errors
/// [`TargetError`]; nothing is guessed.
pub(super) fn target(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Target, TargetError> {
    check_form(method, uri, version, headers)?;
    let path = uri.path();
    let named = header_name(headers)?;
    if let Some(behind) = path.strip_prefix("/clusters/") {
        let (name, rest) = behind.split_at(behind.find('/').unwrap_or(behind.len()));
        let cluster: ClusterName = name.parse().map_err(TargetError::Name)?;
        if let Some(header) = named.filter(|header| *header != cluster) {
            return Err(TargetError::Disagree { path: cluster, header });
        }
        return Ok(Target::Cluster { path: behind_name(rest, uri.query())?, cluster });
    }
    if path == "/v1" || path.starts_with("/v1/") {
        return Ok(Target::Control);
    }
    if let Some(cluster) = named {
        return Ok(Target::Cluster { cluster, path: whole(uri)? });
    }
    if matches!(path, "/livez" | "/readyz" | "/healthz") {
        return Ok(Target::Probe);
    }
    if is_kubernetes(path) {
        let cluster = ClusterName::MANAGEMENT.parse().map_err(TargetError::Name)?;
        return Ok(Target::Cluster { cluster, path: whole(uri)? });
    }
    Ok(Target::Control)
}

fn check_form(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), TargetError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEAD {
        return Err(TargetError::HeadTooLarge);
    }
    if method == Method::CONNECT {
        return Err(TargetError::Connect);
    }
    // HTTP/2 always names scheme and authority, beside the path. In HTTP/1.1 only a request to a proxy does, and then
    // two authorities could disagree.
    let whole_url = version < Version::HTTP_2 && (uri.scheme().is_some() || uri.authority().is_some());
    if whole_url || !uri.path().starts_with('/') || uri.path().starts_with("//") {
        return Err(TargetError::Form);
    }
    Ok(())
}

fn header_name(headers: &HeaderMap) -> Result<Option<ClusterName>, TargetError> {
    let mut values = headers.get_all(CLUSTER_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(TargetError::Repeated);
    }
    let Ok(text) = value.to_str() else { return Err(TargetError::NameText) };
    text.parse().map(Some).map_err(TargetError::Name)
}

fn behind_name(rest: &str, query: Option<&str>) -> Result<PathAndQuery, TargetError> {
    if rest.starts_with("//") {
        return Err(TargetError::Slashes);
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    let path = match query {
        None => PathAndQuery::try_from(rest),
        Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
    };
    path.or(Err(TargetError::Form))
}

fn whole(uri: &Uri) -> Result<PathAndQuery, TargetError> {
    uri.path_and_query().cloned().ok_or(TargetError::Form)
}

/// The paths that kubectl and client-go use at the root of a kube-apiserver.
fn is_kubernetes(path: &str) -> bool {
    let first = path.get(1..).unwrap_or_default().split('/').next().unwrap_or_default();
    matches!(first, "api" | "apis" | "openapi" | "version" | "metrics" | "logs" | ".well-known" | "openid")
}

#[cfg(test)]
mod tests;

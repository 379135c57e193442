//! Where the kube-apiserver is, and as whom it is called: from inside the cluster, or by a kubeconfig.
//!
//! Tokens in files are read again by kube-rs within a minute, authorities in files likewise. Nothing is dialled before
//! the first question is asked, so a kube-apiserver that is down does not keep the server from starting.

use std::{path::Path, time::Duration};

use http::uri::Scheme;
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _, middleware::BaseUriLayer},
    config::{Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;
use tower::ServiceBuilder;

/// Idle connections that are kept. They speak HTTP/1.1: one for each question under way.
const MAX_IDLE: usize = 32;

/// For how long: below the idle times of common load balancers, so that hardly ever is a dead one taken.
const IDLE: Duration = Duration::from_secs(30);

/// A way to one kube-apiserver. Clones share it.
#[derive(Clone)]
pub struct Connection {
    pub(crate) client: Client,
    pub(crate) timeout: Duration,
}

/// Why there is no way to a kube-apiserver. Messages hold no credential.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// This process does not run in a pod, or its pod has no service account.
    #[error("there is no service account of a pod here: {0}")]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig cannot be read or names no cluster.
    #[error("{0}")]
    Kubeconfig(KubeconfigError),
    /// It is no kubeconfig. What the parser met is not repeated: it may be a credential.
    #[error("it is no kubeconfig")]
    Malformed,
    /// A credential would go over a connection that anybody could read or answer.
    #[error("it names {0}")]
    Insecure(&'static str),
    /// It names a proxy, and connections are made directly.
    #[error("it names a proxy-url, which is not supported")]
    Proxy,
    /// The certificates cannot be used.
    #[error("its certificates cannot be used")]
    Certificates,
    /// The credential cannot be had. Why is not repeated: it may hold what a plugin printed.
    #[error("its credential cannot be read, or the plugin for it failed")]
    Credential,
}

impl Connection {
    /// As the service account of the pod that this process runs in. `timeout` is for one question, from its beginning
    /// to the last byte of its answer.
    ///
    /// To be called in a tokio runtime, in which its connections then live.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn in_cluster(timeout: Duration) -> Result<Self, ConnectionError> {
        Self::open(&Config::incluster().map_err(ConnectionError::NotInCluster)?, timeout)
    }

    /// As the current context of a kubeconfig says. `timeout` as for [`Connection::in_cluster`].
    ///
    /// To be called in a tokio runtime, in which its connections then live.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn from_kubeconfig(path: &Path, timeout: Duration) -> Result<Self, ConnectionError> {
        Self::open(&config(path).await?, timeout)
    }

    pub(crate) fn open(config: &Config, timeout: Duration) -> Result<Self, ConnectionError> {
        let client = client(config, timeout, Some(config.base_uri_layer()))?;
        Ok(Self { client, timeout })
    }

    /// Over anything that answers requests.
    #[cfg(test)]
    pub(crate) fn over<S>(service: S, timeout: Duration) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>> + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<tower::BoxError>,
    {
        Self { client: Client::new(service, "default"), timeout }
    }
}

/// What the current context of a kubeconfig says.
pub(crate) async fn config(path: &Path) -> Result<Config, ConnectionError> {
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let cluster = cluster(&kubeconfig);
    let authority = cluster.and_then(authority_file);
    let proxied = cluster.is_some_and(|cluster| cluster.proxy_url.is_some());
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(unusable)?;
    config.root_cert_file = authority.map(Into::into);
    if config.accept_invalid_certs {
        return Err(ConnectionError::Insecure("a cluster whose certificate is not to be verified"));
    }
    if config.cluster_url.scheme() != Some(&Scheme::HTTPS) {
        return Err(ConnectionError::Insecure("a cluster without TLS"));
    }
    if proxied {
        return Err(ConnectionError::Proxy);
    }
    // kube-rs also takes what the environment says of proxies: for other connections than this direct one.
    config.proxy_url = None;
    Ok(config)
}

/// kube-rs' own stack, without its retries (there is a deadline, and the caller asks again) and without its log lines (a
/// failed question is told where it is decided). Requests name the whole URL where there is no `base`.
pub(crate) fn client(
    config: &Config,
    timeout: Duration,
    base: Option<BaseUriLayer>,
) -> Result<Client, ConnectionError> {
    let mut connector = legacy::connect::HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(timeout));
    let https = config.rustls_https_connector_with_connector(connector);
    let https = https.ok().ok_or(ConnectionError::Certificates)?;
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(MAX_IDLE)
        .pool_idle_timeout(IDLE)
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .build(https);
    let service = ServiceBuilder::new()
        .option_layer(base)
        .option_layer(config.auth_layer().ok().ok_or(ConnectionError::Credential)?)
        .layer(config.extra_headers_layer().ok().ok_or(ConnectionError::Credential)?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others speak of names and files")]
fn unusable(error: KubeconfigError) -> ConnectionError {
    match error {
        KubeconfigError::Parse(_) => ConnectionError::Malformed,
        other => ConnectionError::Kubeconfig(other),
    }
}

/// The cluster of the current context.
fn cluster(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| named.name == *current)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()
}

/// The file of the authority that a cluster is verified by, where it is a file.
fn authority_file(cluster: &Cluster) -> Option<String> {
    if cluster.certificate_authority_data.is_some() { None } else { cluster.certificate_authority.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = r"
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
users: [{name: u, user: {token: SECRET}}]
clusters: [{name: k, cluster: {CLUSTER}}]
";

    async fn refusal(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        match Connection::from_kubeconfig(file.path(), Duration::from_secs(1)).await {
            Ok(_) => "none".to_owned(),
            Err(error) => format!("{error} {error:?}"),
        }
    }

    #[tokio::test]
    async fn no_credential_goes_where_others_could_read_it_or_into_a_message() {
        for (cluster, why) in [
            ("server: 'http://127.0.0.1:1'", "without TLS"),
            ("server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true", "not to be verified"),
            ("server: 'https://127.0.0.1:1', proxy-url: 'http://p:1'", "proxy-url"),
            ("server: 'https://127.0.0.1:1', certificate-authority: /nowhere", "certificate authority"),
        ] {
            let said = refusal(&KUBECONFIG.replace("CLUSTER", cluster)).await;
            assert!(said.contains(why) && !said.contains("SECRET"), "{cluster}: {said}");
        }
        for malformed in ["SECRET", "users: [SECRET]", "users: [{name: u, user: {token: [SECRET]}}]", "\u{0}SECRET: ["]
        {
            let said = refusal(malformed).await;
            assert!(said != "none" && !said.contains("SECRET"), "{malformed}: {said}");
        }
    }
}

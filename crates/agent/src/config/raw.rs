//! The configuration as written: flags, each with its environment variable. Nothing is checked here.
//!
//! Lists of names are one a line in a variable, and a flag for each: names of directories hold commas.

use std::path::PathBuf;

use clap::Args;

use super::ActingFlags;

/// What the operator wrote. Absent values get their documented defaults when the configuration is resolved.
#[derive(Args, Clone, Debug, Default)]
pub struct RawConfig {
    /// Address of the tunnel server, as HOST or HOST:PORT (port 9449 if none is given)
    #[arg(long, value_name = "HOST:PORT", env = "MOORLINE_MANAGEMENT_CLUSTER_ADDR")]
    pub management_cluster_addr: Option<String>,

    /// ManagementClusterConnection of this cluster that says where the tunnel server is, and whose status says how the
    /// agent stands with it. Followed while the agent runs; --management-cluster-addr counts until it has been read
    #[arg(long, value_name = "NAME", env = "MOORLINE_MANAGEMENT_CLUSTER_CONNECTION")]
    pub management_cluster_connection: Option<String>,

    /// Secret of this cluster in which the agent keeps its certificate, key and authorities as they are renewed; it is
    /// also mounted at --cert-dir, where the first ones are read [default: they are kept in --cert-dir]
    #[arg(long, value_name = "NAMESPACE/NAME", env = "MOORLINE_IDENTITY_SECRET")]
    pub identity_secret: Option<String>,

    /// Directory with management-cluster.crt, managed-cluster.crt and managed-cluster.key [default: /certs]
    #[arg(long, value_name = "DIR", env = "MOORLINE_CERT_DIR")]
    pub cert_dir: Option<PathBuf>,

    /// File with a join token, by which the agent gets its certificate at the first start; where it has one, the file is
    /// not looked at, and may be gone
    #[arg(long, value_name = "FILE", env = "MOORLINE_JOIN_TOKEN_FILE")]
    pub join_token_file: Option<PathBuf>,

    /// Sessions with the server to keep at once, 1 or 2 [default: 1]
    #[arg(long, value_name = "N", env = "MOORLINE_SESSIONS")]
    pub sessions: Option<u8>,

    /// Kubeconfig by which the managed cluster's kube-apiserver is reached, instead of the pod's service account
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME", env = "MOORLINE_CONTEXT")]
    pub context: Option<String>,

    /// URL of the managed cluster's kube-apiserver; plain http only towards loopback
    #[arg(long, value_name = "URL", env = "MOORLINE_KUBE_APISERVER")]
    pub kube_apiserver: Option<String>,

    /// Authorities that --kube-apiserver is verified by [default: those of the operating system]
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBE_CA_FILE")]
    pub kube_ca_file: Option<PathBuf>,

    /// File with the token for --kube-apiserver, read again as it is rotated
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBE_TOKEN_FILE")]
    pub kube_token_file: Option<PathBuf>,

    /// Client certificate for --kube-apiserver
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBE_CLIENT_CERTIFICATE_FILE")]
    pub kube_client_certificate_file: Option<PathBuf>,

    /// Key of the client certificate for --kube-apiserver
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBE_CLIENT_KEY_FILE")]
    pub kube_client_key_file: Option<PathBuf>,

    /// Name that the kube-apiserver's certificate must carry, where it is not the URL's
    #[arg(long, value_name = "NAME", env = "MOORLINE_KUBE_TLS_SERVER_NAME")]
    pub kube_tls_server_name: Option<String>,

    /// How long the kube-apiserver may be silent before it answers; watches, logs and proxies are exempt.
    /// Twice kube-apiserver's own request timeout by default, so that it speaks first [default: 2m]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_KUBE_RESPONSE_TIMEOUT")]
    pub kube_response_timeout: Option<String>,

    /// Whom the server may act as.
    #[command(flatten)]
    pub acting: ActingFlags,

    /// Requests served at once, each with a connection of its own to the kube-apiserver [default: 1000]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_REQUESTS")]
    pub max_requests: Option<usize>,

    /// A service of the management cluster that programs of this one reach at ADDRESS:PORT here, or at :PORT of every
    /// address: whatever they send goes through the tunnel, if the server lets this cluster have it. Who is refused sees a
    /// reset connection. May be repeated [default: none]
    #[arg(long = "service", value_name = "NAME=ADDRESS:PORT", env = "MOORLINE_SERVICES", value_delimiter = '\n')]
    pub services: Vec<String>,

    /// The same for a service that speaks HTTP: who is refused gets an HTTP answer that says why. May be repeated
    /// [default: none]
    #[arg(
        long = "http-service",
        value_name = "NAME=ADDRESS:PORT",
        env = "MOORLINE_HTTP_SERVICES",
        value_delimiter = '\n'
    )]
    pub http_services: Vec<String>,

    /// Connections at once to each of those services [default: 256]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_SERVICE_CONNECTIONS")]
    pub max_service_connections: Option<usize>,

    /// Authorities that an https:// proxy is verified by [default: those of the operating system]
    #[arg(long, value_name = "FILE", env = "MOORLINE_PROXY_CA_FILE")]
    pub proxy_ca_file: Option<PathBuf>,

    /// Where /livez, /readyz and /metrics are served, as ADDRESS:PORT or :PORT [default: :9092]
    #[arg(long, value_name = "ADDRESS:PORT", env = "MOORLINE_ADMIN_ADDR")]
    pub admin_addr: Option<String>,

    /// How long running requests may go on after SIGTERM [default: 30s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_DRAIN_GRACE")]
    pub drain_grace: Option<String>,
}

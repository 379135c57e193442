//! What is typed of an agent's installation: by `cluster add` and `cluster manifest` alike.

use std::path::PathBuf;

use clap::Args;
use moorline_manifest::agent::Written;

use super::{ConnectArgs, Dialect, GuardianArgs};

/// How an enrolment is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Everything that the cluster is to install, for kubectl apply -f -.
    Yaml,
    /// The same as a directory for kubectl apply -k; needs --output-dir.
    Kustomize,
    /// The same as values of the chart deploy/helm/moorline-agent.
    Helm,
    /// Only the Secret with certificate and key.
    Secret,
    /// Only certificate and key, as files; needs --output-dir.
    Files,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterManifestArgs {
    /// The name of the cluster
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterMigrateArgs {
    /// The name of the cluster
    pub(crate) name: String,
    /// What its next agent speaks; the same as now gives its agent a fresh certificate and the present authorities
    /// [default: the dialect that it does not speak; while it changes already, the one that it changes to]
    #[arg(long, value_name = "DIALECT")]
    pub(crate) dialect: Option<Dialect>,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// The form of the result, and what the installation is to be.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// How to hand it on [default: yaml; with --output-dir, files]
    #[arg(long, short, value_name = "FORM")]
    pub(crate) output: Option<Form>,
    /// Write into this directory (0700, files 0600) instead of printing
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) install: InstallArgs,
    #[command(flatten)]
    pub(crate) guardian: GuardianArgs,
    #[command(flatten, next_help_heading = "Whom the server may act as there")]
    pub(crate) acting: moorline_agent::ActingFlags,
}

/// What the installation is to be.
#[derive(Args, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Installation")]
pub(crate) struct InstallArgs {
    /// The namespace of the agent [default: moorline]
    #[arg(long, short = 'n', value_name = "NAME")]
    namespace: Option<String>,
    /// The image of the agent [default: moorline/moorline-agent of this version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A Secret of that namespace by which the image is pulled; may be repeated
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    image_pull_secrets: Vec<String>,
    /// How many agents [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// Sessions that each of them keeps [default: 1]
    #[arg(long, value_name = "N")]
    sessions: Option<u8>,
    /// The proxy on the way to the management cluster, http[s]://HOST:PORT [default: none]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// A Secret of that namespace whose key HTTPS_PROXY has the proxy's URL with its password
    #[arg(long, value_name = "NAME")]
    proxy_secret: Option<String>,
    /// Addresses at which the cluster's kube-apiserver is reached, as ADDRESS/BITS; the NetworkPolicy lets the agent reach
    /// no others on its ports [default: any]; may be repeated
    #[arg(long = "kube-apiserver-cidr", value_name = "CIDR")]
    apiserver_cidrs: Vec<String>,
    /// Port at which it is reached [default: 443 and 6443]; may be repeated
    #[arg(long = "kube-apiserver-port", value_name = "PORT")]
    apiserver_ports: Vec<u16>,
    /// A service of the management cluster that pods of this one reach at this port of the Service moorline-agent, if the
    /// server lets the cluster have it; may be repeated
    #[arg(long = "service", value_name = "NAME=:PORT")]
    services: Vec<String>,
    /// The same for a service that speaks HTTP: who is refused gets an HTTP answer that says why; may be repeated
    #[arg(long = "http-service", value_name = "NAME=:PORT")]
    http_services: Vec<String>,
    /// A label of the nodes to run on; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    node_selector: Vec<String>,
    /// A taint of nodes that does not matter; may be repeated
    #[arg(long = "toleration", value_name = "KEY[=VALUE][:EFFECT]")]
    tolerations: Vec<String>,
    /// CPU time that is asked for [default: 50m]
    #[arg(long, value_name = "QUANTITY")]
    cpu_request: Option<String>,
    /// Memory that is asked for [default: 64Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_request: Option<String>,
    /// Memory that may be used [default: 256Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_limit: Option<String>,
}

impl From<InstallArgs> for Written {
    fn from(typed: InstallArgs) -> Self {
        let InstallArgs { namespace, image, image_pull_secrets, replicas, sessions, proxy, proxy_secret, .. } = typed;
        Self {
            namespace,
            image,
            image_pull_secrets,
            replicas,
            sessions,
            proxy,
            proxy_secret,
            apiserver_cidrs: typed.apiserver_cidrs,
            apiserver_ports: typed.apiserver_ports,
            services: typed.services,
            http_services: typed.http_services,
            node_selector: typed.node_selector,
            tolerations: typed.tolerations,
            cpu_request: typed.cpu_request,
            memory_request: typed.memory_request,
            memory_limit: typed.memory_limit,
        }
    }
}

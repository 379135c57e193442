//! The configuration as written: flags, each with its environment variable. Nothing is checked here.

mod oidc;

use std::path::PathBuf;

use clap::Args;

use super::RawAudit;
pub use oidc::RawOidc;

/// What the operator wrote. Absent values get their documented defaults when the configuration is resolved.
#[derive(Args, Clone, Debug, Default)]
pub struct RawConfig {
    /// Directory of everything that must last: certificate authorities, clusters, and by default tokens and policy.
    /// Filled on the first start [default: /var/lib/moorline]
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Where agents are accepted, as ADDRESS:PORT or :PORT [default: 0.0.0.0:9449]
    #[arg(long, value_name = "ADDRESS:PORT", env = "MOORLINE_TUNNEL_LISTEN")]
    pub tunnel_listen: Option<String>,

    /// Where users are accepted [default: 0.0.0.0:9443]
    #[arg(long, value_name = "ADDRESS:PORT", env = "MOORLINE_GATEWAY_LISTEN")]
    pub gateway_listen: Option<String>,

    /// Where /livez, /readyz and /metrics are served, over plain HTTP [default: 0.0.0.0:9091]
    #[arg(long, value_name = "ADDRESS:PORT", env = "MOORLINE_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,

    /// What agents dial to reach the tunnel; goes into every enrolment. Needed where --tunnel-listen names no single
    /// address
    #[arg(long, value_name = "HOST:PORT", env = "MOORLINE_PUBLIC_TUNNEL_ADDRESS")]
    pub public_tunnel_address: Option<String>,

    /// Certificate chain of the gateway [default: signed by the gateway CA of the state directory]
    #[arg(long, value_name = "FILE", env = "MOORLINE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// Private key of the gateway's certificate
    #[arg(long, value_name = "FILE", env = "MOORLINE_TLS_PRIVATE_KEY_FILE")]
    pub tls_private_key_file: Option<PathBuf>,

    /// Further DNS name or IP address for the gateway certificate that is signed here; may be repeated
    #[arg(long = "tls-san", value_name = "NAME", env = "MOORLINE_TLS_SANS", value_delimiter = ',')]
    pub tls_sans: Vec<String>,

    /// Authorities that users' client certificates must chain to [default: user-ca.crt in the state directory]
    #[arg(long, value_name = "FILE", env = "MOORLINE_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// Static tokens, a line each: token,user,uid,"group1,group2". A token may be written as sha256:HEX
    /// [default: tokens.csv in the state directory]
    #[arg(long, value_name = "FILE", env = "MOORLINE_TOKEN_AUTH_FILE")]
    pub token_auth_file: Option<PathBuf>,

    /// Let requests without any credential be of the user system:anonymous in the group system:unauthenticated, who may
    /// do what rules say of either and nothing else; a credential that is wrong is refused all the same
    /// [default: they are refused]
    #[arg(
        long,
        env = "MOORLINE_ANONYMOUS_AUTH",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false,
        hide_default_value = true,
        action = clap::ArgAction::Set
    )]
    pub anonymous_auth: bool,

    /// Whose tokens are believed, and how.
    #[command(flatten)]
    pub oidc: RawOidc,

    /// ClusterRoles and ClusterRoleBindings that say who may do what [default: policy.yaml in the state directory]
    #[arg(long, value_name = "FILE", env = "MOORLINE_AUTHORIZATION_POLICY_FILE")]
    pub authorization_policy_file: Option<PathBuf>,

    /// Ask the management cluster's Kubernetes (TokenReview) about bearer tokens that are not in the table
    #[arg(long, env = "MOORLINE_KUBERNETES_AUTHN")]
    pub kubernetes_authn: bool,

    /// Let the management cluster's Kubernetes (SubjectAccessReview) decide who may do what, instead of the policy file
    #[arg(long, env = "MOORLINE_KUBERNETES_AUTHZ")]
    pub kubernetes_authz: bool,

    /// Where clusters are kept: embedded (a file of the state directory) or kubernetes (ManagedCluster objects of the
    /// management cluster, which kubectl and GitOps may make as well) [default: embedded]
    #[arg(long, value_name = "STORE", env = "MOORLINE_CLUSTER_STORE")]
    pub cluster_store: Option<String>,

    /// How to reach the management cluster's Kubernetes [default: the service account of the pod]
    #[arg(long, value_name = "FILE", env = "MOORLINE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Audience that a token must be for; may be repeated, and one of them is enough
    /// [default: the kube-apiserver's own]
    #[arg(long = "api-audiences", value_name = "AUDIENCE", env = "MOORLINE_API_AUDIENCES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,

    /// How long the management cluster's Kubernetes may take for an answer; a request that takes several (kubectl --as)
    /// has three times that for all of them [default: 5s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_KUBERNETES_TIMEOUT")]
    pub kubernetes_timeout: Option<String>,

    /// How long it is remembered whose token it is: so long at most does a revoked one work; 0 asks each time, here and
    /// in the three below [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUTHENTICATION_CACHE_TTL")]
    pub authentication_cache_ttl: Option<String>,

    /// How long it is remembered that a token is nobody's [default: 5s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUTHENTICATION_CACHE_UNAUTHENTICATED_TTL")]
    pub authentication_cache_unauthenticated_ttl: Option<String>,

    /// How long it is remembered that Kubernetes allows something [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUTHORIZATION_CACHE_AUTHORIZED_TTL")]
    pub authorization_cache_authorized_ttl: Option<String>,

    /// How long it is remembered that it does not [default: 5s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AUTHORIZATION_CACHE_UNAUTHORIZED_TTL")]
    pub authorization_cache_unauthorized_ttl: Option<String>,

    /// API group of managedclusters in rules; with projectcalico.org, roles written for Calico work as they are
    /// [default: moorline.io]
    #[arg(long, value_name = "GROUP", env = "MOORLINE_API_GROUP")]
    pub api_group: Option<String>,

    /// How long the certificate of an agent lives [default: 365d]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_AGENT_CERTIFICATE_LIFE")]
    pub agent_certificate_life: Option<String>,

    /// How long the certificate of a Guardian lives, which cannot renew it [default: 1826d, five years]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_GUARDIAN_CERTIFICATE_LIFE")]
    pub guardian_certificate_life: Option<String>,

    /// Until when to take in clusters that the store does not know, by the name and uid in a certificate that an authority
    /// of this server signed, as 2026-11-21T16:00:00Z: after the store was restored from an older backup [default: not at
    /// all]
    #[arg(long, value_name = "TIME", env = "MOORLINE_ADOPT_UNTIL")]
    pub adopt_until: Option<String>,

    /// How often files that may change (tokens, policy, certificates) are read again [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_RELOAD_INTERVAL")]
    pub reload_interval: Option<String>,

    /// The audit trail.
    #[command(flatten)]
    pub audit: RawAudit,

    /// Kubeconfig of an endpoint that is told what happens to clusters (registered, connected, disconnected, refused,
    /// renewed, …), as a ClusterEventList
    #[arg(long, value_name = "FILE", env = "MOORLINE_EVENT_WEBHOOK_CONFIG_FILE")]
    pub event_webhook_config_file: Option<PathBuf>,

    /// How long a cluster must have been connected, or not, before the webhook is told; 0 tells every change
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_EVENT_WEBHOOK_SETTLE")]
    pub event_webhook_settle: Option<String>,

    /// Agents' handshakes in progress at once; more wait, and one that takes longer than 3s makes room [default: 256]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_HANDSHAKES")]
    pub max_handshakes: Option<usize>,

    /// Agents' handshakes in progress at once from one address (of IPv6, one /64); more are hung up on [default: 64]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_HANDSHAKES_PER_ADDRESS")]
    pub max_handshakes_per_address: Option<usize>,

    /// Agents' handshakes begun a second, with a burst of two seconds' worth; more are hung up on and come back by
    /// themselves [default: 500]
    #[arg(long, value_name = "N", env = "MOORLINE_HANDSHAKE_RATE")]
    pub handshake_rate: Option<u32>,

    /// How long an agent's TLS handshake may take [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_HANDSHAKE_TIMEOUT")]
    pub handshake_timeout: Option<String>,

    /// How long an agent may take to say hello after its handshake [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_HELLO_TIMEOUT")]
    pub hello_timeout: Option<String>,

    /// Sessions of all clusters together [default: 20000]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_SESSIONS")]
    pub max_sessions: Option<usize>,

    /// Sessions of one cluster [default: 4]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_SESSIONS_PER_CLUSTER")]
    pub max_sessions_per_cluster: Option<usize>,

    /// Between two heartbeats on a session; one that stays silent for three of them is cut [default: 5s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_HEARTBEAT_INTERVAL")]
    pub heartbeat_interval: Option<String>,

    /// How long the older sessions of a cluster get to answer when a new one arrives [default: 2500ms]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_PROBE_TIMEOUT")]
    pub probe_timeout: Option<String>,

    /// How often each session is asked whether requests get through it to the kube-apiserver and back
    /// [default: 15s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_CHECK_INTERVAL")]
    pub check_interval: Option<String>,

    /// How long the answer to that may take; after three times without one, the session is cut [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_CHECK_TIMEOUT")]
    pub check_timeout: Option<String>,

    /// Streams open at once on one session [default: 1024]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_STREAMS")]
    pub max_streams: Option<usize>,

    /// What all sessions together may hold in bytes that nobody has read yet; over it, streams are reset. What waits on
    /// connections to Guardians that requests share may be as much again [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "MOORLINE_MEMORY_BUDGET")]
    pub memory_budget: Option<String>,

    /// Users' connections open at once; more are hung up on. One source has at most a quarter of them, and a quarter is
    /// for connections on which nobody is known yet, of which the oldest makes room [default: 8192]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// Users' handshakes in progress at once; more wait [default: 256]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_GATEWAY_HANDSHAKES")]
    pub max_gateway_handshakes: Option<usize>,

    /// Requests of one user that run at once, watches included [default: 1000]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_REQUESTS_PER_USER")]
    pub max_requests_per_user: Option<usize>,

    /// Requests to one cluster that run at once, watches included; one user alone gets half of them. Agents have a
    /// limit of their own, --max-requests [default: 1000]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_REQUESTS_PER_CLUSTER")]
    pub max_requests_per_cluster: Option<usize>,

    /// Requests of one user that may begin a second, to all clusters together [default: no limit]
    #[arg(long, value_name = "N", env = "MOORLINE_USER_QPS")]
    pub user_qps: Option<u32>,

    /// Requests of one user that may begin at once after a pause [default: twice --user-qps]
    #[arg(long, value_name = "N", env = "MOORLINE_USER_BURST")]
    pub user_burst: Option<u32>,

    /// Requests to one cluster that may begin a second, of all users together [default: no limit]
    #[arg(long, value_name = "N", env = "MOORLINE_CLUSTER_QPS")]
    pub cluster_qps: Option<u32>,

    /// Requests to one cluster that may begin at once after a pause [default: twice --cluster-qps]
    #[arg(long, value_name = "N", env = "MOORLINE_CLUSTER_BURST")]
    pub cluster_burst: Option<u32>,

    /// How long a user's TLS handshake may take [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_GATEWAY_HANDSHAKE_TIMEOUT")]
    pub gateway_handshake_timeout: Option<String>,

    /// How long the head of a request may take, and how long a kept connection may idle between requests
    /// [default: 120s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_HEAD_TIMEOUT")]
    pub head_timeout: Option<String>,

    /// How long opening a stream to an agent may take [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_OPEN_TIMEOUT")]
    pub open_timeout: Option<String>,

    /// How long the head of a response may take; watches, followed logs and bodies have no limit [default: 90s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_RESPONSE_TIMEOUT")]
    pub response_timeout: Option<String>,

    /// How often it is asked again whether the user of a watch, followed log, exec or the like may go on
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_RECHECK_INTERVAL")]
    pub recheck_interval: Option<String>,

    /// Services of the management cluster that programs in managed clusters may reach, as ManagementServices: see
    /// docs/services.md [default: none]
    #[arg(long, value_name = "FILE", env = "MOORLINE_SERVICES_FILE")]
    pub services_file: Option<PathBuf>,

    /// Streams to those services open at once on one session; more are refused [default: 1000]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_SERVICE_STREAMS")]
    pub max_service_streams: Option<usize>,

    /// Connections to those services open at once, of all clusters together; more are refused. One cluster has at most
    /// half of them, and of what each service takes [default: 4096]
    #[arg(long, value_name = "N", env = "MOORLINE_MAX_SERVICE_CONNECTIONS")]
    pub max_service_connections: Option<usize>,

    /// Connections and requests to those services that may begin a second on one session, and twice that at once; more
    /// are refused [default: 1000]
    #[arg(long, value_name = "N", env = "MOORLINE_SERVICE_QPS")]
    pub service_qps: Option<u32>,

    /// How long it may take to reach one of those services, from the look-up of its name to the end of its handshake
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_SERVICE_DIAL_TIMEOUT")]
    pub service_dial_timeout: Option<String>,

    /// How long the server goes on after SIGTERM before it stops accepting, so that load balancers notice [default: 2s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_SHUTDOWN_NOTICE")]
    pub shutdown_notice: Option<String>,

    /// How long running requests may go on after that [default: 20s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_DRAIN_GRACE")]
    pub drain_grace: Option<String>,
}

//! The command line as it is typed. What it means is worked out in `connection` and in the commands.

mod examples;
mod guardian;
mod login;
mod manifest;
mod store;
mod token;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use moorline_process::logs;

use crate::printer::{Format, Structured};

pub(crate) use self::{
    guardian::{Dialect, GuardianArgs},
    login::{CredentialArgs, GatewayArgs, Grant, IssuerArgs, LoginArgs},
    manifest::{ClusterManifestArgs, ClusterMigrateArgs, Form, ManifestArgs},
    store::{StoreArgs, StoreCommand, StoreExportArgs, StoreImportArgs},
    token::{AttestArgs, LifeArgs, TokenCommand, TokenCreateArgs, TokenListArgs, TokenRevokeArgs},
};

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "moorline",
    version,
    about = "Tie many Kubernetes clusters to one, and reach each with plain kubectl as yourself",
    after_help = examples::MAIN,
    propagate_version = true,
    disable_help_subcommand = false
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server, an agent and a demo cluster on this machine, ready for kubectl
    #[command(after_help = examples::QUICKSTART)]
    Quickstart(QuickstartArgs),
    /// Run the tunnel server, as the program moorline-server does
    #[command(after_help = examples::SERVER)]
    Server(Box<ServerArgs>),
    /// Run the agent of a managed cluster, as the program moorline-agent does
    #[command(after_help = examples::AGENT)]
    Agent(Box<AgentArgs>),
    /// Add, list, show and delete managed clusters
    #[command(subcommand, visible_alias = "clusters", after_help = examples::CLUSTER)]
    Cluster(ClusterCommand),
    /// Create, list and revoke tokens by which agents join
    #[command(subcommand, visible_alias = "tokens", after_help = examples::TOKEN)]
    Token(TokenCommand),
    /// Look at and rotate the authority that agents' certificates are signed by
    #[command(subcommand, after_help = examples::CA)]
    Ca(CaCommand),
    /// Add, list and revoke users with static tokens
    #[command(subcommand, visible_alias = "users", after_help = examples::USER)]
    User(UserCommand),
    /// Ask what somebody may do, and by which rule
    #[command(subcommand, after_help = examples::AUTH)]
    Auth(AuthCommand),
    /// Write a context with which plain kubectl reaches a managed cluster
    #[command(after_help = examples::KUBECONFIG)]
    Kubeconfig(KubeconfigArgs),
    /// Log in with an issuer of OpenID Connect tokens, and let kubectl use the tokens
    #[command(after_help = examples::LOGIN)]
    Login(Box<LoginArgs>),
    /// Print the token of the last login for kubectl, as its credential plugin
    #[command(after_help = examples::CREDENTIAL)]
    Credential(CredentialArgs),
    /// Show which clusters are connected
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Look for what is wrong between here, the gateway and the tunnel, and say what to do about it
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Move clusters from one store to another, and keep a copy apart
    #[command(subcommand, after_help = examples::STORE)]
    Store(StoreCommand),
    /// Print the completion script of a shell
    #[command(after_help = examples::COMPLETION)]
    Completion {
        /// The shell that shall complete.
        shell: Shell,
    },
    /// Print the version of this program, and of the gateway where one is named
    #[command(after_help = examples::VERSION)]
    Version(VersionArgs),
}

/// Run a server, an agent and a demo cluster on this machine.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// Where certificates, tokens and the cluster store live, so that the next start finds the same cluster
    /// [default: $XDG_STATE_HOME/moorline/quickstart or ~/.local/state/moorline/quickstart]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The kubeconfig to write the context to; an existing file keeps everything else that is in it
    /// [default: DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// Tie the real cluster of this kubeconfig instead of the embedded demo API
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig to use instead of its current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub(crate) context: Option<String>,
    /// The name that the managed cluster gets
    #[arg(long, value_name = "NAME", default_value = "demo")]
    pub(crate) name: String,
    /// Where users connect [default: 127.0.0.1:9443, or a free port when that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway_listen: Option<String>,
    /// Where agents connect [default: 127.0.0.1:9449, or a free port when that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) tunnel_listen: Option<String>,
    /// Where the server's probes and metrics are [default: 127.0.0.1:9091, or a free port when that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<String>,
    /// What server and agent log to standard error: a level, or directives such as info,moorline_agent=debug
    #[arg(long, value_name = "FILTER", env = "MOORLINE_LOG", default_value = "error")]
    pub(crate) log: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) config: moorline_server::RawConfig,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AgentCommand>,
    #[command(flatten)]
    pub(crate) config: moorline_agent::RawConfig,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Get the certificate of this cluster's agent by a join token, and end
    #[command(after_help = examples::JOIN)]
    Join(Box<moorline_agent::RawJoin>),
    /// Print the RBAC roles that an agent with these flags needs in its cluster, and no more
    #[command(after_help = examples::RBAC)]
    Rbac(Box<RbacArgs>),
    /// Look at everything that an agent with these flags needs, and say what is wrong and what to do
    Doctor(Box<AgentDoctorArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct AgentDoctorArgs {
    /// How the findings are printed: json or yaml [default: as text]
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) config: moorline_agent::RawConfig,
}

#[derive(Debug, Args)]
pub(crate) struct RbacArgs {
    /// The service account that the agent runs as
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "moorline/moorline-agent", help_heading = "Roles")]
    pub(crate) service_account: String,
    /// What the roles and bindings are called
    #[arg(long, value_name = "NAME", default_value = "moorline-agent", help_heading = "Roles")]
    pub(crate) role_name: String,
    /// Use constrained impersonation, which kube-apiserver has since 1.36 (1.35 with its feature gate)
    #[arg(long, help_heading = "Roles")]
    pub(crate) constrained: bool,
    /// What users may do through the agent at all: get, list, watch, create, update, patch, delete, deletecollection
    /// [default: all of them]; may be repeated
    #[arg(long = "verb", value_name = "VERB", value_delimiter = ',', requires = "constrained", help_heading = "Roles")]
    pub(crate) verbs: Vec<String>,
    /// On which resources they may do it, as RESOURCE[.GROUP][/PART] [default: all of them, with their parts]; may be
    /// repeated. Get on pods/exec is what a WebSocket needs to run a command
    #[arg(
        long = "resource",
        value_name = "RESOURCE",
        value_delimiter = ',',
        requires = "constrained",
        help_heading = "Roles"
    )]
    pub(crate) resources: Vec<String>,
    /// How to print them: yaml or json
    #[arg(long, short, value_name = "FORMAT", help_heading = "Roles")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) config: moorline_agent::RawConfig,
}

/// What goes to standard error, and how it looks.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT", env = "MOORLINE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: logs::Format,
    /// What is logged: a level, or directives such as info,moorline_agent=debug
    #[arg(long, value_name = "FILTER", env = "MOORLINE_LOG", default_value = logs::DEFAULT_FILTER)]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Register a managed cluster, and print what is to be applied there; its key is made now, handed out once and not
    /// kept
    #[command(after_help = examples::CLUSTER_ADD)]
    Add(Box<ClusterAddArgs>),
    /// Print what is to be applied in a cluster that is registered and has no certificate; once, as its key is made now
    #[command(after_help = examples::CLUSTER_MANIFEST)]
    Manifest(Box<ClusterManifestArgs>),
    /// Give a managed cluster another agent: print what lets one in that speaks the other dialect, while the one before
    /// stays connected until the new one carries requests
    #[command(after_help = examples::CLUSTER_MIGRATE)]
    Migrate(Box<ClusterMigrateArgs>),
    /// List managed clusters
    #[command(visible_alias = "ls", after_help = examples::CLUSTER_LIST)]
    List(ClusterListArgs),
    /// Show one managed cluster
    #[command(after_help = examples::CLUSTER_GET)]
    Get(ClusterGetArgs),
    /// Show all that is known of one managed cluster: conditions, sessions, certificates, and what happened to it
    #[command(after_help = examples::CLUSTER_DESCRIBE)]
    Describe(ClusterDescribeArgs),
    /// Delete managed clusters; their sessions are cut and their certificates refused at once
    #[command(visible_alias = "rm", after_help = examples::CLUSTER_DELETE)]
    Delete(ClusterDeleteArgs),
    /// Revoke the certificates of a managed cluster; its sessions are cut at once, and it comes back by a new join token
    /// or manifest only
    #[command(after_help = examples::CLUSTER_REVOKE)]
    Revoke(ClusterRevokeArgs),
    /// There is no such thing; says what to do instead
    #[command(hide = true, after_help = examples::CLUSTER_RENAME)]
    Rename(ClusterRenameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ClusterRevokeArgs {
    /// The name of the cluster
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterRenameArgs {
    /// Whatever was typed
    #[arg(value_name = "NAME", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) _names: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show which authorities there are, and which clusters are behind in a rotation
    #[command(after_help = examples::CA_STATUS)]
    Status(CaArgs),
    /// Make the next authority; both are believed from now on, and agents are asked to renew
    #[command(after_help = examples::CA_ROTATE)]
    Rotate(CaArgs),
    /// Give the old authority up; refused while a cluster would be lost by it
    #[command(after_help = examples::CA_FINISH)]
    Finish(CaFinishArgs),
    /// Turn a rotation around: agents go back to the old authority, and the new one is given up by finish
    #[command(after_help = examples::CA_ABORT)]
    Abort(CaArgs),
    /// Take an authority that this installation had before into a state directory, so that agents which know only that one
    /// come back and renew
    #[command(after_help = examples::CA_IMPORT)]
    ImportPrevious(CaImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CaFinishArgs {
    /// A cluster that is given up, since it is not connected or its agent is too old; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) abandon: Vec<String>,
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CaImportArgs {
    /// The certificate of the earlier authority (tunnel-ca.crt of the backup)
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Its key (tunnel-ca.key of the backup)
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The state directory of the server
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR", default_value = "/var/lib/moorline")]
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterAddArgs {
    /// The name of the cluster: lower-case letters, digits and -, at most 63
    pub(crate) name: String,
    /// A label of the cluster; may be given several times
    #[arg(long = "label", short = 'l', value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// What its agent is to speak
    #[arg(long, value_name = "DIALECT", default_value = "moorline")]
    pub(crate) dialect: Dialect,
    /// PEM file with a certificate of your own for its Guardian, of any make: it is known by its fingerprint
    /// [default: one is signed]
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Let the agent make its own key, and get its certificate by a join token: prints the token or, with --output, a
    /// manifest that holds it instead of a key
    #[arg(long)]
    pub(crate) join: bool,
    #[command(flatten, next_help_heading = "Join token")]
    pub(crate) life: LifeArgs,
    #[command(flatten, next_help_heading = "Joining without a token")]
    pub(crate) attest: AttestArgs,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterListArgs {
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterGetArgs {
    /// The name of the cluster
    pub(crate) name: String,
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterDescribeArgs {
    /// The name of the cluster
    pub(crate) name: String,
    /// Print the cluster and its events as json or yaml instead
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Structured>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterDeleteArgs {
    /// The names of the clusters
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user to the gateway's table of tokens; the token is made now, shown once and kept as a hash
    #[command(after_help = examples::USER_ADD)]
    Add(UserAddArgs),
    /// List the users of the gateway's table of tokens
    #[command(visible_alias = "ls", after_help = examples::USER_LIST)]
    List(UserListArgs),
    /// Revoke all tokens of users, or one token: refused at once, and what runs with them is ended soon
    #[command(visible_aliases = ["rm", "delete"], after_help = examples::USER_REVOKE)]
    Revoke(UserRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// The name of the user
    pub(crate) name: String,
    /// A group of the user; may be given several times. You must have the right to act as the user and the groups
    #[arg(long = "group", short = 'g', value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// What tells the user from others of the same name [default: none]
    #[arg(long, value_name = "UID")]
    pub(crate) uid: Option<String>,
    /// How to print the result; without it, the token alone
    #[arg(long, short, value_name = "FORMAT", conflicts_with = "write_kubeconfig")]
    pub(crate) output: Option<Format>,
    /// Write a kubeconfig with the token into this new file instead of printing it
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// The managed cluster that the kubeconfig is for
    #[arg(long, value_name = "NAME", requires = "write_kubeconfig")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserListArgs {
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserRevokeArgs {
    /// The names of the users
    #[arg(required_unless_present = "token_id")]
    pub(crate) names: Vec<String>,
    /// Only this token; `user list` shows the ids
    #[arg(long, value_name = "ID", conflicts_with = "names")]
    pub(crate) token_id: Option<String>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Say whether you, or somebody you may act as, may do something; exit code 0 for yes, 1 for no
    #[command(name = "can-i", after_help = examples::CAN_I)]
    CanI(CanIArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CanIArgs {
    /// get (to reach a cluster, or to show it), list, create, update, delete, impersonate or any other verb
    pub(crate) verb: String,
    /// managedclusters, or any RESOURCE or RESOURCE.GROUP, or a /PATH
    pub(crate) resource: String,
    /// The name of the one object; left out, all of them
    pub(crate) name: Option<String>,
    /// A part of the resource
    #[arg(long, value_name = "PART")]
    pub(crate) subresource: Option<String>,
    /// Ask about this user instead; you must have the right to impersonate them
    #[arg(long = "as", value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// A group of the user of --as; may be given several times
    #[arg(long = "as-group", value_name = "GROUP", requires = "as_user")]
    pub(crate) as_groups: Vec<String>,
    /// The uid of the user of --as
    #[arg(long, value_name = "UID", requires = "as_user")]
    pub(crate) as_uid: Option<String>,
    /// Print nothing, only end with the exit code
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Write a context with which plain kubectl reaches a managed cluster.
#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    /// The name of the managed cluster; the context is called moorline-NAME
    pub(crate) name: String,
    /// The file to add the context to [default: the first of $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", conflicts_with = "stdout")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Print a kubeconfig with this one context, and touch no file
    #[arg(long)]
    pub(crate) stdout: bool,
    /// Make it the current context of the file
    #[arg(long, conflicts_with = "stdout")]
    pub(crate) set_current: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Look for what is wrong between here, the gateway and the tunnel.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Where agents reach the tunnel [default: what the gateway says]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) tunnel_address: Option<String>,
    /// Print the findings as json or yaml instead
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Structured>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// End with exit code 1 where a cluster is not connected, or a certificate is about to end
    #[arg(long)]
    pub(crate) check: bool,
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Only this program's version; ask no gateway
    #[arg(long)]
    pub(crate) client: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// How to reach the gateway and as whom. What is not given comes from the state directory.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// The gateway, https://HOST:PORT
    #[arg(long, value_name = "URL", env = "MOORLINE_SERVER")]
    pub(crate) server: Option<String>,
    /// PEM file with the authorities that may have signed the gateway's certificate
    #[arg(long, value_name = "FILE", env = "MOORLINE_CERTIFICATE_AUTHORITY")]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// File with your token; a token may also be in the environment variable MOORLINE_TOKEN
    #[arg(long, value_name = "FILE", env = "MOORLINE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file with your certificate, instead of a token
    #[arg(long, value_name = "FILE", requires = "client_key", conflicts_with = "token_file")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// PEM file with the key of --client-certificate
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    pub(crate) client_key: Option<PathBuf>,
    /// State directory of a gateway on this machine, from which to take what is not given
    /// [default: that of quickstart]
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

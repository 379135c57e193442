//! What `moorline login` and `moorline credential` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) issuer: IssuerArgs,
    /// Write a context for this managed cluster; may be given several times [default: only log in]
    #[arg(long = "cluster", value_name = "NAME")]
    pub(crate) clusters: Vec<String>,
    /// The file to add the contexts to [default: the first of $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Make the (last) context the current one of the file
    #[arg(long, requires = "clusters")]
    pub(crate) set_current: bool,
    /// Show the login page with the program xdg-open (open on macOS), too
    #[arg(long)]
    pub(crate) open_browser: bool,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    #[command(flatten)]
    pub(crate) issuer: IssuerArgs,
}

/// Who issues tokens, to which client, and how one logs in.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Issuer")]
pub(crate) struct IssuerArgs {
    /// The issuer of OpenID Connect tokens that the gateway believes; https
    #[arg(long, value_name = "URL")]
    pub(crate) issuer_url: String,
    /// The client id that the gateway asks for; a public client, without a secret
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: String,
    /// PEM file with the authorities that may have signed the issuer's certificate [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) issuer_certificate_authority: Option<PathBuf>,
    /// A scope to ask for besides openid; may be given several times [default: email, groups and offline_access, those
    /// of them that the issuer says to have]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// How to log in
    #[arg(long, value_name = "GRANT", value_enum, default_value_t = Grant::Authcode)]
    pub(crate) grant: Grant,
}

/// How one logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grant {
    /// In a browser on this machine, which comes back to this program.
    Authcode,
    /// In a browser on any machine, into which one types a code.
    DeviceCode,
}

/// Where the gateway is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct GatewayArgs {
    /// The gateway, https://HOST:PORT; needed with --cluster
    #[arg(long, value_name = "URL", env = "MOORLINE_SERVER")]
    pub(crate) server: Option<String>,
    /// PEM file with the authorities that may have signed the gateway's certificate
    #[arg(long, value_name = "FILE", env = "MOORLINE_CERTIFICATE_AUTHORITY")]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// State directory of a gateway on this machine, from which to take what is not given
    /// [default: that of quickstart]
    #[arg(long, value_name = "DIR", env = "MOORLINE_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

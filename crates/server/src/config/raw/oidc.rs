//! The flags of OpenID Connect as written, named like kube-apiserver's. Nothing is checked here.

use std::path::PathBuf;

use clap::Args;

/// Whose tokens are believed, and how claims become a user.
#[derive(Args, Clone, Debug, Default)]
pub struct RawOidc {
    /// Issuers of OpenID Connect tokens: an AuthenticationConfiguration of kube-apiserver
    /// (apiserver.config.k8s.io/v1), without expressions. Instead of the --oidc flags below but --oidc-cache-time
    #[arg(long, value_name = "FILE", env = "MOORLINE_AUTHENTICATION_CONFIG")]
    pub authentication_config: Option<PathBuf>,

    /// URL of the one issuer of OpenID Connect tokens that are believed; https
    #[arg(long, value_name = "URL", env = "MOORLINE_OIDC_ISSUER_URL")]
    pub oidc_issuer_url: Option<String>,

    /// Client id that tokens must be issued to
    #[arg(long, value_name = "ID", env = "MOORLINE_OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,

    /// Authorities that the issuer's certificate must chain to [default: those of the system]
    #[arg(long, value_name = "FILE", env = "MOORLINE_OIDC_CA_FILE")]
    pub oidc_ca_file: Option<PathBuf>,

    /// Claim that is the user name [default: sub]
    #[arg(long, value_name = "CLAIM", env = "MOORLINE_OIDC_USERNAME_CLAIM")]
    pub oidc_username_claim: Option<String>,

    /// Written before user names; - for nothing [default: the URL of the issuer and #, or nothing for the claim email]
    #[arg(long, value_name = "PREFIX", env = "MOORLINE_OIDC_USERNAME_PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,

    /// Claim that holds the groups
    #[arg(long, value_name = "CLAIM", env = "MOORLINE_OIDC_GROUPS_CLAIM")]
    pub oidc_groups_claim: Option<String>,

    /// Written before groups
    #[arg(long, value_name = "PREFIX", env = "MOORLINE_OIDC_GROUPS_PREFIX")]
    pub oidc_groups_prefix: Option<String>,

    /// Claim that tokens must hold with that value; may be repeated
    #[arg(
        long = "oidc-required-claim",
        value_name = "CLAIM=VALUE",
        env = "MOORLINE_OIDC_REQUIRED_CLAIM",
        value_delimiter = ','
    )]
    pub oidc_required_claims: Vec<String>,

    /// Signing algorithms that are allowed [default: RS256; with --authentication-config, all that are supported]
    #[arg(long, value_name = "ALGORITHMS", env = "MOORLINE_OIDC_SIGNING_ALGS", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,

    /// How long a verified token is remembered; never longer than it or its key lasts [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MOORLINE_OIDC_CACHE_TIME")]
    pub oidc_cache_time: Option<String>,
}

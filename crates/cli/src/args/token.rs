//! What is typed of join tokens: `moorline token`, and `cluster add --join`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{ConnectArgs, examples};
use crate::printer::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token by which an agent joins as a registered cluster, once and within the hour; its text is shown once
    #[command(after_help = examples::TOKEN_CREATE)]
    Create(TokenCreateArgs),
    /// List join tokens, without their secrets
    #[command(visible_alias = "ls", after_help = examples::TOKEN_LIST)]
    List(TokenListArgs),
    /// Revoke join tokens: nobody joins by them any more. Who has joined stays
    #[command(visible_aliases = ["rm", "delete"], after_help = examples::TOKEN_REVOKE)]
    Revoke(TokenRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The name of the cluster
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) life: LifeArgs,
    /// How to print the result; without it, the token alone
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// How long a join token counts.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct LifeArgs {
    /// How long the join token counts, from 5m to 7d [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    pub(crate) ttl: Option<Duration>,
}

/// How an agent joins without a join token.
#[derive(Debug, Default, Args)]
pub(crate) struct AttestArgs {
    /// Let the agent join by a token that the cluster's own Kubernetes makes for its service account: who issues these
    #[arg(long, value_name = "URL", requires = "attest_jwks_file")]
    pub(crate) attest_issuer: Option<String>,
    /// File with the issuer's keys, as `kubectl get --raw /openid/v1/jwks` prints them there
    #[arg(long, value_name = "FILE", requires = "attest_issuer")]
    pub(crate) attest_jwks_file: Option<PathBuf>,
    /// The audience that the token must be for
    #[arg(long, value_name = "AUDIENCE", requires = "attest_issuer", default_value = "moorline")]
    pub(crate) attest_audience: String,
    /// The service account whose token it must be
    #[arg(
        long,
        value_name = "SUBJECT",
        requires = "attest_issuer",
        default_value = "system:serviceaccount:moorline:moorline-agent"
    )]
    pub(crate) attest_subject: String,
}

#[derive(Debug, Args)]
pub(crate) struct TokenListArgs {
    /// How to print the result
    #[arg(long, short, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArgs {
    /// The ids of the tokens; `token list` shows them
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `90m`, `1h`, `7d`.
fn life(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _unknown => 0,
    };
    let span = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).filter(|span| *span > 0);
    span.map(Duration::from_secs).ok_or_else(|| "write a number and its unit: 30m, 1h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(life(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "1", "h", "0h", "-1h", "1w", "1 h", "99999999999999999999h", "18446744073709551615d"] {
            assert!(life(bad).is_err(), "{bad}");
        }
    }
}

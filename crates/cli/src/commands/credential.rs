//! `moorline credential`: kubectl's credential plugin for contexts that `moorline login` wrote.

use std::io::IsTerminal as _;

use moorline_model::Timestamp;
use serde_json::{Value, json};

use crate::{args::CredentialArgs, failure::Failure, kubeconfig::EXEC_API, login::Login, printer::Printer};

/// Where kubectl says whether its standard input is the user's.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

pub(super) async fn run(args: &CredentialArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let kept = Login::new(&args.issuer, false).token(somebody_is_there(), printer).await?;
    let until = Timestamp::from_unix_seconds(kept.replace_at());
    printer.json(&json!({
        "apiVersion": EXEC_API,
        "kind": "ExecCredential",
        "status": { "token": kept.id_token, "expirationTimestamp": until.to_string() },
    }))
}

/// Whether somebody can be asked to log in: at a terminal, and with kubectl not using it otherwise.
fn somebody_is_there() -> bool {
    let info = std::env::var_os(EXEC_INFO).and_then(|info| serde_json::from_str::<Value>(info.to_str()?).ok());
    let lent = info.is_none_or(|info| info.pointer("/spec/interactive") == Some(&Value::Bool(true)));
    lent && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

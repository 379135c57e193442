//! `moorline version`: of this program, and of the gateway where one is named.

use serde_json::Value;

use crate::{args::VersionArgs, client::Client, connection::Connection, failure::Failure, printer::Printer};

pub(super) async fn run(args: &VersionArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    printer.line(&format!("Client Version: v{}", env!("CARGO_PKG_VERSION")))?;
    let connect = &args.connect;
    let named = connect.server.is_some() || connect.state_dir.is_some();
    if args.client || !named {
        return Ok(());
    }
    let client = Client::new(Connection::resolve(connect)?)?;
    let said: Value = client.get("/v1/version").await?;
    let version = said.get("version").and_then(Value::as_str).unwrap_or("unknown");
    printer.line(&format!("Server Version: v{}", version.trim_start_matches('v')))
}

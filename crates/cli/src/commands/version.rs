//! `moorline version`: of this program, and of the gateway where one is named.

use moorline_api::{Version, paths};

use crate::{args::VersionArgs, client::Client, connection::Connection, failure::Failure, printer::Printer};

pub(super) async fn run(args: &VersionArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    printer.line(&format!("Client Version: v{}", env!("CARGO_PKG_VERSION")))?;
    let connect = &args.connect;
    let named = connect.server.is_some() || connect.state_dir.is_some();
    if args.client || !named {
        return Ok(());
    }
    let client = Client::new(Connection::resolve(connect)?)?;
    let server: Version = client.get(paths::VERSION).await?;
    printer.line(&format!("Server Version: v{}", server.version.trim_start_matches('v')))
}

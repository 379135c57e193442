//! `moorline ca`: the authority that agents' certificates and the tunnel's door are signed by, and its rotation.
//!
//! Over the management API, except for `import-previous`, which works on the state directory of a server itself: that is
//! for whoever restores one.

use moorline_api::{AuthoritiesStatus, FinishRotation, paths};
use moorline_model::Timestamp;
use moorline_server::bootstrap::StateDir;
use serde_json::Value;

use super::cluster::parse_name;
use crate::{
    args::{CaArgs, CaCommand, CaFinishArgs, CaImportArgs},
    client::Client,
    connection::Connection,
    failure::Failure,
    printer::{Format, Printer},
};

pub(super) async fn run(command: CaCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        CaCommand::Status(args) => {
            let client = Client::new(Connection::resolve(&args.connect)?)?;
            let status: AuthoritiesStatus = client.get(paths::TUNNEL_AUTHORITY).await?;
            show(&status, args.output, printer)
        }
        CaCommand::Rotate(args) => step(&args, "rotate", printer).await,
        CaCommand::Abort(args) => step(&args, "abort", printer).await,
        CaCommand::Finish(args) => finish(&args, printer).await,
        CaCommand::ImportPrevious(args) => import(&args, printer),
    }
}

async fn step(args: &CaArgs, step: &str, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let status: AuthoritiesStatus = client.post(&format!("{}/{step}", paths::TUNNEL_AUTHORITY), &Value::Null).await?;
    show(&status, args.output, printer)
}

async fn finish(args: &CaFinishArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let names = args.abandon.iter().map(|name| parse_name(name)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let body = FinishRotation { abandon: names.iter().map(|name| name.as_str().to_owned()).collect() };
    let status: AuthoritiesStatus = client.post(&format!("{}/finish", paths::TUNNEL_AUTHORITY), &body).await?;
    show(&status, args.output, printer)
}

fn show(status: &AuthoritiesStatus, format: Option<Format>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match format {
        Some(Format::Json) => return printer.json(status),
        Some(Format::Yaml) => return printer.yaml(status),
        Some(Format::Name | Format::Wide) | None => {}
    }
    let signing = &status.signing;
    printer.line(&format!("signing:  {} until {} ({})", signing.subject, signing.not_after, signing.fingerprint))?;
    let Some(leaving) = &status.leaving else {
        return printer.line("no rotation is under way");
    };
    printer.line(&format!("leaving:  {} until {} ({})", leaving.subject, leaving.not_after, leaving.fingerprint))?;
    if status.behind.is_empty() {
        return printer.line("every cluster has moved: moorline ca finish");
    }
    printer.line("behind:")?;
    for cluster in &status.behind {
        printer.line(&format!("  {}: {}", cluster.name, cluster.why))?;
    }
    Ok(())
}

fn import(args: &CaImportArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let now = Timestamp::from(std::time::SystemTime::now());
    let imported = StateDir::new(&args.state_dir).import_previous(&args.cert, &args.key, now);
    imported.map_err(|error| Failure::failed(format!("cannot import the previous authority: {error}")))?;
    printer.line("previous authority imported")?;
    printer.note("a server that runs takes it over within its --reload-interval; agents then believe it, and renew:");
    printer.note("  moorline ca status");
    Ok(())
}

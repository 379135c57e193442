//! `moorline status`: which clusters are connected, since when, and until when their certificates last.
//!
//! The table goes to standard output; the sum of it and what to look at to standard error.

use moorline_api::{ServerStatus, paths};
use serde_json::Value;

use super::{cluster, view};
use crate::{
    args::StatusArgs,
    client::Client,
    connection::Connection,
    failure::Failure,
    printer::{Format, Printer},
};

pub(super) async fn run(args: &StatusArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let list = cluster::list(&client).await?;
    // Who may list clusters may ask this, too; a gateway of another version may not know it.
    let server = client.get::<Value>(paths::STATUS).await.ok();
    let server = server.and_then(|server| serde_json::from_value::<ServerStatus>(server).ok());
    let now = view::now();
    let summary = view::summary(&list, server.as_ref(), now);
    match args.output {
        Some(Format::Json) => printer.json(&list)?,
        Some(Format::Yaml) => printer.yaml(&list)?,
        Some(Format::Name) => view::names(&list, printer)?,
        Some(Format::Wide) => printer.table(&view::status(&list, now, true))?,
        None => printer.table(&view::status(&list, now, false))?,
    }
    if matches!(args.output, None | Some(Format::Wide)) {
        for warning in &summary.warnings {
            printer.note(&format!("warning: {warning}"));
        }
        printer.note(&summary.line);
    }
    if args.check && !summary.is_well { Err(Failure::no()) } else { Ok(()) }
}

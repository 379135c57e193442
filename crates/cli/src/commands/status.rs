//! `moorline status`: which clusters are connected, since when, and until when their certificates last.

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
    match args.output {
        Some(Format::Json) => printer.json(&list),
        Some(Format::Yaml) => printer.yaml(&list),
        Some(Format::Name) => view::names(&list, printer),
        Some(Format::Wide) => printer.table(&view::status(&list, view::now(), true)),
        None => printer.table(&view::status(&list, view::now(), false)),
    }
}

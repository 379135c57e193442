//! `moorline cluster describe`: all that a gateway knows of one cluster, as `kubectl describe` shows an object.

use moorline_api::paths;
use serde_json::{Value, json};

use super::{cluster, view};
use crate::{
    args::ClusterDescribeArgs,
    client::{CallError, Client},
    connection::Connection,
    failure::Failure,
    printer::Printer,
};

pub(super) async fn run(args: &ClusterDescribeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(cluster::parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let cluster: Value = client.get(&paths::cluster(&name)).await?;
    let events = match client.get::<Value>(&paths::events(&name)).await {
        Ok(list) => Some(list["items"].clone()),
        // A gateway before there were events; the cluster itself was found a moment ago.
        Err(CallError::Refused(http::StatusCode::NOT_FOUND, _)) => None,
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Some(format) => printer.structured(&json!({"cluster": cluster, "events": events}), format),
        None => printer.text(&view::description(&cluster, events.as_ref(), view::now())),
    }
}

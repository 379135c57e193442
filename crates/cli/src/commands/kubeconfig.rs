//! `moorline kubeconfig NAME`: a context with which plain kubectl reaches the cluster through the gateway.

use std::path::Path;

use moorline_api::paths;
use moorline_model::ClusterName;
use serde_json::Value;

use super::cluster::parse_name;
use crate::{
    args::KubeconfigArgs,
    client::Client,
    connection::Connection,
    failure::Failure,
    kubeconfig::{self, Entry, Kept, User, context_name},
    printer::Printer,
};

pub(super) async fn run(args: &KubeconfigArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    // A context for a cluster that does not exist would fail later, and less clearly.
    let _cluster: Value = Client::new(connection.clone())?.get(&paths::cluster(&name)).await?;
    let entry = entry(&name, connection);
    if args.stdout {
        let yaml = kubeconfig::render(&entry).map_err(|error| Failure::because("cannot write the context", &error))?;
        return printer.text(&yaml);
    }
    write(&entry, args.kubeconfig.as_deref(), args.set_current, printer)
}

/// Adds the context to the named file, or to kubectl's own.
pub(super) fn write(
    entry: &Entry,
    path: Option<&Path>,
    set_current: bool,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let path = path.map(Path::to_owned).or_else(kubeconfig::default_path).ok_or_else(|| {
        Failure::bad_input(["--kubeconfig: no file is named, and there is no home directory".to_owned()])
    })?;
    let kept = kubeconfig::update(&path, entry, set_current)?;
    printer.line(&format!("context {:?} written to {}", entry.name, path.display()))?;
    if let Kept::CommentsIn(backup) = kept {
        printer.note(&format!(
            "comments do not survive in YAML that is written anew: the old file is {}",
            backup.display()
        ));
    }
    printer.note(&format!("try: kubectl --context {} get pods", entry.name));
    Ok(())
}

/// The context of a cluster, for whoever the connection is.
pub(super) fn entry(name: &ClusterName, connection: Connection) -> Entry {
    Entry {
        name: context_name(name.as_str()),
        server: connection.url(&paths::kubernetes(name)),
        authorities: connection.authorities,
        user: User::Shows(connection.credential),
    }
}

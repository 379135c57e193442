//! `moorline store`: the clusters of a server's store, out of it and into another, past the server.

use std::{
    fs::File,
    io::{Read, stdin},
    path::Path,
};

use moorline_server::transfer::{self, Place, Records, TransferError};

use crate::{
    args::{StoreArgs, StoreCommand, StoreExportArgs, StoreImportArgs},
    failure::Failure,
    printer::{Format, Printer},
};

/// Bytes of a file of records: tens of thousands of clusters.
const MAX_FILE: u64 = 256 * 1024 * 1024;

pub(super) async fn run(command: StoreCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        StoreCommand::Export(args) => export(&args, printer).await,
        StoreCommand::Import(args) => import(&args, printer).await,
    }
}

async fn export(args: &StoreExportArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    if matches!(args.output, Some(Format::Wide | Format::Name)) {
        return Err(Failure::bad_input(["--output: records are printed as yaml or json".to_owned()]));
    }
    let records = transfer::export(&place(&args.store)?).await.map_err(failure)?;
    printer.note(&format!("{} clusters exported", records.items.len()));
    match args.output {
        Some(Format::Json) => printer.json(&records),
        Some(Format::Yaml | Format::Wide | Format::Name) | None => printer.yaml(&records),
    }
}

async fn import(args: &StoreImportArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (place, records) = Failure::together(place(&args.store), read(&args.file))?;
    let done = transfer::import(&place, &records, args.force).await.map_err(|error| {
        let refused = matches!(error, TransferError::Refused(_));
        let failure = failure(error);
        if refused && !args.force { failure.hint("--force replaces what is there") } else { failure }
    })?;
    printer
        .line(&format!("{} clusters created, {} replaced, {} unchanged", done.created, done.replaced, done.unchanged))
}

fn place(args: &StoreArgs) -> Result<Place, Failure> {
    match args.cluster_store.as_str() {
        "embedded" if args.state_dir.is_dir() => Ok(Place::StateDir(args.state_dir.clone())),
        "embedded" => Err(Failure::bad_input([format!("--state-dir: {} is no directory", args.state_dir.display())])),
        "kubernetes" => Ok(Place::Kubernetes(args.kubeconfig.clone())),
        other => Err(Failure::bad_input([format!("--cluster-store: {other:?} is none; write embedded or kubernetes")])),
    }
}

fn read(path: &Path) -> Result<Records, Failure> {
    let named = path.display();
    let unreadable = |error: &dyn std::fmt::Display| Failure::bad_input([format!("{named}: {error}")]);
    let mut text = String::new();
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(File::open(path).map_err(|error| unreadable(&error))?)
    };
    source.take(MAX_FILE).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text).map_err(|error| unreadable(&error));
    }
    serde_saphyr::from_str(&text).map_err(|error| unreadable(&error))
}

fn failure(error: TransferError) -> Failure {
    match error {
        TransferError::Refused(problems) => Failure::bad_input(problems),
        error @ TransferError::Open(_) => Failure::bad_input([error.to_string()]),
        error @ (TransferError::Failed(_) | _) => Failure::failed(error.to_string()),
    }
}

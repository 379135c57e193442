//! `moorline cluster`: the clusters a gateway knows, over its management API.

use std::collections::BTreeMap;

use moorline_api::{CreateCluster, CreatedCluster, CreatedJoinToken, Enrolled, JoinableCluster, ManagedCluster, paths};
use moorline_model::{ClusterName, check_labels};
use serde_json::Value;

use super::{describe, enrolment::Target, guardian, migrate, token, view};
use crate::{
    args::{
        ClusterAddArgs, ClusterCommand, ClusterDeleteArgs, ClusterGetArgs, ClusterListArgs, ClusterManifestArgs,
        ClusterRevokeArgs, Dialect,
    },
    client::Client,
    connection::Connection,
    failure::Failure,
    printer::{Format, Printer},
};

pub(super) async fn run(command: ClusterCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        ClusterCommand::Add(args) => add(*args, printer).await,
        ClusterCommand::Manifest(args) => manifest(*args, printer).await,
        ClusterCommand::Migrate(args) => migrate::run(*args, printer).await,
        ClusterCommand::List(args) => show_list(&args, printer).await,
        ClusterCommand::Get(args) => get(&args, printer).await,
        ClusterCommand::Describe(args) => describe::run(&args, printer).await,
        ClusterCommand::Delete(args) => delete(&args, printer).await,
        ClusterCommand::Revoke(args) => revoke(&args, printer).await,
        ClusterCommand::Rename(_) => Err(no_rename()),
    }
}

/// All clusters, as a `ManagedClusterList`.
pub(super) async fn list(client: &Client) -> Result<Value, Failure> {
    Ok(client.get(paths::CLUSTERS).await?)
}

pub(super) fn parse_name(name: &str) -> Result<ClusterName, Failure> {
    name.parse().map_err(|error| Failure::bad_input([format!("NAME: {name:?}: {error}")]))
}

async fn add(args: ClusterAddArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let plan = resolve(&args);
    if args.dialect == Dialect::Guardian {
        return add_guardian(plan, args, printer).await;
    }
    if args.certificate.is_some() {
        let what = "--certificate: is for --dialect guardian; Moorline's own agent makes its key itself (--join)";
        return Err(Failure::bad_input([what.to_owned()]));
    }
    if args.join || args.attest.attest_issuer.is_some() {
        return add_joinable(plan, args, printer).await;
    }
    // The key is handed out once: what can go wrong with writing it must go wrong before it is made.
    let target = Target::resolve(args.manifest);
    let ((plan, target), connection) =
        Failure::together(Failure::together(plan, target), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    target.prepare()?;
    let created: CreatedCluster = client.post(paths::CLUSTERS, &plan).await?;
    printer.note(&format!("managedcluster {:?} created", plan.name.as_str()));
    target.write(&plan.name, &created.enrolment, printer)
}

/// Registers a cluster whose agent is Calico's Guardian, and hands on what that needs.
async fn add_guardian(
    plan: Result<CreateCluster, Failure>,
    args: ClusterAddArgs,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let joins = args.join || args.attest.attest_issuer.is_some();
    let what = "--join, --attest-issuer: Calico's Guardian cannot join, it is enrolled by a manifest; leave them out";
    let alone = if joins { Err(Failure::bad_input([what.to_owned()])) } else { Ok(()) };
    let certificate = args.certificate.as_deref().map(guardian::brought).transpose();
    let operator_namespace = args.manifest.guardian.operator_namespace.clone();
    let target = guardian::Target::resolve(args.manifest, None);
    let (plan, ()) = Failure::together(plan, alone)?;
    let ((certificate, target), connection) =
        Failure::together(Failure::together(certificate, target), Connection::resolve(&args.connect))?;
    target.fits(certificate.as_deref())?;
    let plan = CreateCluster { dialect: args.dialect.into(), certificate, operator_namespace, ..plan };
    let client = Client::new(connection)?;
    target.prepare()?;
    let enrolled: Enrolled = client.post(paths::CLUSTERS, &plan).await?;
    printer.note(&format!("managedcluster {:?} created", plan.name.as_str()));
    target.write(&plan.name, &enrolled, printer)
}

/// Registers a cluster and prints the token by which its agent joins.
async fn add_joinable(
    plan: Result<CreateCluster, Failure>,
    args: ClusterAddArgs,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let plan = Failure::together(plan, token::attestation(&args.attest));
    let manifest = args.manifest.output.is_some() || args.manifest.output_dir.is_some();
    if manifest && !args.join {
        let what = "--output: who joins by what Kubernetes attests gets no manifest; leave it out";
        return Err(Failure::bad_input([what.to_owned()]));
    }
    let target = manifest.then(|| Target::for_a_token(args.manifest)).transpose();
    let ((plan, target), connection) =
        Failure::together(Failure::together(plan, target), Connection::resolve(&args.connect))?;
    let (plan, attestation) = plan;
    let join = args.join.then(|| token::wanted(args.life));
    let plan = CreateCluster { join, attestation, ..plan };
    let client = Client::new(connection)?;
    target.as_ref().map_or(Ok(()), Target::prepare)?;
    if plan.join.is_none() {
        let made: JoinableCluster = client.post(paths::CLUSTERS, &plan).await?;
        printer.note(&format!("managedcluster {:?} created", plan.name.as_str()));
        return token::show_attested(&made, printer);
    }
    let created: CreatedJoinToken = client.post(paths::CLUSTERS, &plan).await?;
    printer.note(&format!("managedcluster {:?} created", plan.name.as_str()));
    match target {
        Some(target) => target.write_token(&plan.name, &created, printer),
        None => token::show(&created, None, printer),
    }
}

async fn manifest(args: ClusterManifestArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let known: ManagedCluster = client.get(&paths::cluster(&name)).await?;
    if known.spec.dialect == moorline_model::Dialect::Guardian {
        let target = guardian::Target::resolve(args.manifest, known.spec.operator_namespace)?;
        target.fits(known.spec.certificate.as_deref())?;
        target.prepare()?;
        let enrolled: Enrolled = client.post(&paths::enrolment(&name), &Value::Null).await?;
        return target.write(&name, &enrolled, printer);
    }
    let target = Target::resolve(args.manifest)?;
    target.prepare()?;
    let enrolled: CreatedCluster = client.post(&paths::enrolment(&name), &Value::Null).await?;
    printer.note(&format!("managedcluster {:?} has a certificate now", name.as_str()));
    target.write(&name, &enrolled.enrolment, printer)
}

fn resolve(args: &ClusterAddArgs) -> Result<CreateCluster, Failure> {
    let mut problems = Vec::new();
    let name = args.name.parse::<ClusterName>();
    let name = name.map_err(|error| problems.push(format!("NAME: {:?}: {error}", args.name))).ok();
    let mut labels = BTreeMap::new();
    for label in &args.labels {
        match label.split_once('=') {
            Some((key, value)) => drop(labels.insert(key.to_owned(), value.to_owned())),
            None => problems.push(format!("--label: {label:?} is not KEY=VALUE")),
        }
    }
    if let Err(error) = check_labels(&labels) {
        problems.push(format!("--label: {error}"));
    }
    match name {
        Some(name) if problems.is_empty() => Ok(CreateCluster { labels, ..CreateCluster::new(name) }),
        _wrong => Err(Failure::bad_input(problems)),
    }
}

async fn show_list(args: &ClusterListArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let list = list(&client).await?;
    let none = list["items"].as_array().is_some_and(Vec::is_empty);
    if none && matches!(args.output, None | Some(Format::Wide)) {
        printer.note("No resources found");
        return Ok(());
    }
    show(&list, args.output, printer)
}

async fn get(args: &ClusterGetArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let cluster: Value = client.get(&paths::cluster(&name)).await?;
    show(&cluster, args.output, printer)
}

fn show(object: &Value, format: Option<Format>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match format {
        Some(Format::Json) => printer.json(object),
        Some(Format::Yaml) => printer.yaml(object),
        Some(Format::Name) => view::names(object, printer),
        Some(Format::Wide) => printer.table(&view::clusters(object, view::now(), true)),
        None => printer.table(&view::clusters(object, view::now(), false)),
    }
}

async fn revoke(args: &ClusterRevokeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let _status: Value = client.post(&paths::revocation(&name), &Value::Null).await?;
    printer.line(&format!("managedcluster {:?} revoked", name.as_str()))?;
    printer.note("its sessions are cut; it comes back with a new join token or manifest:");
    printer.note(&format!("  moorline cluster manifest {name}"));
    Ok(())
}

fn no_rename() -> Failure {
    Failure::bad_input([
        "a cluster is never renamed: its name is in its certificate, in roles, in kubeconfigs and in the audit trail"
            .to_owned(),
    ])
    .hint("register it under the new name (moorline cluster add NEW), apply that manifest there, move roles and")
    .hint("kubeconfigs over, and then delete the old name: moorline cluster delete OLD")
}

async fn delete(args: &ClusterDeleteArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let names = args.names.iter().map(|name| parse_name(name)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    // As kubectl does: go on with the others, and fail at the end.
    let mut failed: Option<Failure> = None;
    for name in &names {
        match client.delete::<Value>(&paths::cluster(name)).await {
            Ok(_status) => printer.line(&format!("managedcluster {:?} deleted", name.as_str()))?,
            Err(error) => match &mut failed {
                Some(failed) => failed.what.extend(Failure::from(error).what),
                None => failed = Some(error.into()),
            },
        }
    }
    failed.map_or(Ok(()), Err)
}

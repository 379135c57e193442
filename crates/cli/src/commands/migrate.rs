//! `moorline cluster migrate`: the next agent of a cluster, which may speak the other dialect, while the one before stays
//! connected.

use moorline_api::{CreatedCluster, Enrolled, ManagedCluster, MigrateCluster, paths};
use moorline_model::Dialect;

use super::{cluster::parse_name, enrolment, guardian};
use crate::{args::ClusterMigrateArgs, client::Client, connection::Connection, failure::Failure, printer::Printer};

/// In what the next agent's manifest is written.
enum Target {
    Moorline(enrolment::Target),
    Guardian(Box<guardian::Target>),
}

pub(super) async fn run(args: ClusterMigrateArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let known: ManagedCluster = client.get(&paths::cluster(&name)).await?;
    let dialect = args.dialect.map_or_else(|| next(&known), Dialect::from);
    // The key is handed out once: what can go wrong with writing it must go wrong before it is made.
    let operator_namespace = args.manifest.guardian.operator_namespace.clone();
    let target = match dialect {
        Dialect::Moorline => Target::Moorline(enrolment::Target::resolve(args.manifest)?),
        Dialect::Guardian => {
            let target = guardian::Target::resolve(args.manifest, known.spec.operator_namespace)?;
            target.fits(None)?;
            Target::Guardian(Box::new(target))
        }
    };
    match &target {
        Target::Moorline(target) => target.prepare()?,
        Target::Guardian(target) => target.prepare()?,
    }
    let body = MigrateCluster { dialect, operator_namespace };
    let created: CreatedCluster = client.post(&paths::migration(&name), &body).await?;
    printer.note(&format!(
        "managedcluster {:?} lets in an agent that speaks {dialect}; those before go on until it carries requests",
        name.as_str()
    ));
    if dialect == Dialect::Guardian && known.spec.dialect == Dialect::Moorline {
        printer.note(
            "note: what the agent of now is told of prefixes, names, denials and allowances does not count through \
             Guardian: requests run there under the names that people have here",
        );
    }
    match target {
        Target::Moorline(target) => target.write(&name, &created.enrolment, printer)?,
        Target::Guardian(target) => target.write(&name, &Enrolled::Issued(Box::new(created)), printer)?,
    }
    printer.note(&format!("when it does, remove the agent before from the cluster: moorline cluster describe {name}"));
    Ok(())
}

/// The other dialect; while certificates of both stand for the cluster, the one that it changes to, so that whoever lost
/// the answer asks for the same again.
fn next(known: &ManagedCluster) -> Dialect {
    let now = known.spec.dialect;
    let changes = known.status.certificates.iter().any(|certificate| certificate.dialect != now);
    match (now, changes) {
        (Dialect::Moorline, false) => Dialect::Guardian,
        (Dialect::Guardian, false) => Dialect::Moorline,
        (now, true) => now,
    }
}

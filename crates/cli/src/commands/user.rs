//! `moorline user`: the users of a gateway's table of static tokens, over its management API.

use std::path::Path;

use moorline_api::{CreateUser, CreatedUser, RevokedUser, UserList, paths};
use moorline_model::ClusterName;
use moorline_process::private_file::create_private;
use serde_json::Value;

use super::{cluster::parse_name, kubeconfig::entry, view};
use crate::{
    args::{UserAddArgs, UserCommand, UserListArgs, UserRevokeArgs},
    client::Client,
    connection::Connection,
    failure::Failure,
    kubeconfig::{self, Credential},
    printer::{Format, Printer},
};

pub(super) async fn run(command: UserCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(&args, printer).await,
        UserCommand::List(args) => list(&args, printer).await,
        UserCommand::Revoke(args) => revoke(&args, printer).await,
    }
}

/// Prints the token, or writes it into a kubeconfig, and nowhere else.
async fn add(args: &UserAddArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let cluster = args.cluster.as_deref().map(parse_name).transpose();
    let file = args.write_kubeconfig.as_deref().map_or(Ok(()), fresh);
    let ((cluster, ()), connection) =
        Failure::together(Failure::together(cluster, file), Connection::resolve(&args.connect))?;
    let client = Client::new(connection.clone())?;
    if let Some(cluster) = &cluster {
        // The token is handed out once: what can go wrong with writing it must go wrong before it is made.
        let _there: Value = client.get(&paths::cluster(cluster)).await?;
    }
    let wanted = CreateUser { name: args.name.clone(), uid: args.uid.clone(), groups: args.groups.clone() };
    let created: CreatedUser = client.post(paths::USERS, &wanted).await?;
    printer.note(&format!("user {:?} created", args.name));
    match (&args.write_kubeconfig, cluster) {
        (Some(path), Some(cluster)) => write_context(path, &cluster, connection, &created, printer),
        _printed => show_token(args, &created, printer),
    }
}

fn show_token(args: &UserAddArgs, created: &CreatedUser, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match args.output {
        Some(Format::Json) => return printer.json(created),
        Some(Format::Yaml) => return printer.yaml(created),
        Some(Format::Name) => printer.line(&view::user_name(&args.name))?,
        Some(Format::Wide) | None => printer.line(created.token.expose())?,
    }
    if args.output != Some(Format::Name) {
        printer.note("this token is shown once; its user writes contexts for kubectl with it:");
        printer.note("  moorline kubeconfig CLUSTER --token-file FILE");
    }
    Ok(())
}

/// A file that is not there yet, to be handed to the user: merged into another, it would put them in place of whoever
/// uses that.
fn fresh(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Err(Failure::bad_input([format!("--write-kubeconfig: {} is there already", path.display())])
            .hint("name a new file, to be handed to the user"));
    }
    Ok(())
}

fn write_context(
    path: &Path,
    cluster: &ClusterName,
    connection: Connection,
    created: &CreatedUser,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let credential = Credential::Token(created.token.expose().to_owned());
    let yaml = kubeconfig::render(&entry(cluster, Connection { credential, ..connection }));
    let yaml = yaml.map_err(|error| Failure::because("cannot write the context", &error))?;
    create_private(path, yaml.as_bytes()).map_err(|error| {
        let name = &created.user.metadata.name;
        Failure::because("the token is lost, since it is handed out once", &error)
            .hint(format!("moorline user revoke {name:?}, then add it again"))
    })?;
    printer.line(&format!("kubeconfig with their token written to {}", path.display()))
}

async fn list(args: &UserListArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let list: Value = client.get(paths::USERS).await?;
    match args.output {
        Some(Format::Json) => printer.json(&list),
        Some(Format::Yaml) => printer.yaml(&list),
        Some(Format::Name) => view::user_names(&list, printer),
        Some(Format::Wide) | None => printer.table(&view::users(&list)),
    }
}

async fn revoke(args: &UserRevokeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let paths = match &args.token_id {
        None => args.names.iter().map(|name| paths::user(name)).collect(),
        Some(id) => vec![of_token(&client, id).await?],
    };
    // As kubectl does: go on with the others, and fail at the end.
    let mut failed: Option<Failure> = None;
    for path in paths {
        match client.delete::<RevokedUser>(&path).await {
            Ok(revoked) => {
                printer.line(&format!("user {:?} revoked (token {})", revoked.name, revoked.token_ids.join(", ")))?;
            }
            Err(error) => match &mut failed {
                Some(failed) => failed.what.extend(Failure::from(error).what),
                None => failed = Some(error.into()),
            },
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What to delete for one token: rules name users, so it takes the user's name.
async fn of_token(client: &Client, id: &str) -> Result<String, Failure> {
    let list: UserList = client.get(paths::USERS).await?;
    let user = list.items.iter().find(|user| user.spec.token_id == id);
    let user = user.ok_or_else(|| {
        Failure::failed(format!("no user has the token {id:?}")).hint("`moorline user list` shows the ids")
    })?;
    // Digits that came from the server, and nothing that would have to be encoded.
    Ok(format!("{}?{}={}", paths::user(&user.metadata.name), paths::TOKEN_ID, id))
}

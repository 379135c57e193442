//! `moorline login`: logs in with the issuer, and lets kubectl use that for clusters behind the gateway.

use moorline_api::paths;
use serde_json::Value;

use super::{
    cluster::parse_name,
    kubeconfig::{entry, write},
};
use crate::{
    args::LoginArgs,
    client::{CallError, Client},
    connection::Connection,
    failure::Failure,
    kubeconfig::{Credential, Entry, User},
    login::Login,
    printer::Printer,
};

pub(super) async fn run(args: &LoginArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let login = Login::new(&args.issuer, args.open_browser);
    if args.clusters.is_empty() {
        login.sign_in(printer).await?;
        return printer.line(&format!("logged in with {}", args.issuer.issuer_url));
    }
    // What is wrong with the flags is told before somebody logs in.
    let names: Vec<_> = args.clusters.iter().map(|name| parse_name(name)).collect::<Result<_, _>>()?;
    let connection = Connection::before_login(&args.gateway)?;
    let arguments = login.plugin_arguments()?;
    let kept = login.sign_in(printer).await?;
    let connection = Connection { credential: Credential::Token(kept.id_token), ..connection };
    let client = Client::new(connection.clone())?;
    for name in &names {
        // A context that the gateway refuses would fail later, and less clearly.
        let _cluster: Value = client.get(&paths::cluster(name)).await.map_err(refused)?;
        let entry = Entry { user: User::Runs(arguments.clone()), ..entry(name, connection.clone()) };
        write(&entry, args.kubeconfig.as_deref(), args.set_current, printer)?;
    }
    Ok(())
}

fn refused(error: CallError) -> Failure {
    match error {
        CallError::Refused(http::StatusCode::UNAUTHORIZED, what) => Failure::failed(what)
            .hint("you are logged in, but the gateway does not believe this issuer, or wants another client id"),
        other @ (CallError::Unreachable(_) | CallError::Refused(..) | CallError::Unreadable(_)) => other.into(),
    }
}

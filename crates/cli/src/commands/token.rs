//! `moorline token`: join tokens, over a gateway's management API.

use moorline_api::{CreateJoinToken, CreatedJoinToken, JoinTokenList, JoinableCluster, paths};
use moorline_model::Attestation;
use serde_json::Value;

use super::{cluster::parse_name, view};
use crate::{
    args::{AttestArgs, LifeArgs, TokenCommand, TokenCreateArgs, TokenListArgs, TokenRevokeArgs},
    client::Client,
    connection::Connection,
    failure::Failure,
    printer::{Format, Printer},
};

pub(super) async fn run(command: TokenCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(&args, printer).await,
        TokenCommand::List(args) => list(&args, printer).await,
        TokenCommand::Revoke(args) => revoke(&args, printer).await,
    }
}

/// What the gateway is asked for.
pub(super) fn wanted(life: LifeArgs) -> CreateJoinToken {
    CreateJoinToken { expiration_seconds: life.ttl.map(|ttl| ttl.as_secs()) }
}

/// Prints the token, which is known nowhere else, and says how it is used.
pub(super) fn show(
    created: &CreatedJoinToken,
    format: Option<Format>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let token = &created.join_token;
    match format {
        Some(Format::Json) => return printer.json(created),
        Some(Format::Yaml) => return printer.yaml(created),
        Some(Format::Name) => return printer.line(&view::join_token_name(&token.metadata.name)),
        Some(Format::Wide) | None => printer.line(created.token.expose())?,
    }
    printer.note(&format!(
        "this join token ({}) is shown once; it lets one agent join as the cluster {:?}, once, until {}:",
        token.metadata.name,
        token.spec.cluster.as_str(),
        token.spec.expires
    ));
    printer.note("  moorline-agent join --token-file FILE --cert-dir DIR && moorline-agent --cert-dir DIR");
    Ok(())
}

/// How an agent is to join without a token, if it is.
pub(super) fn attestation(args: &AttestArgs) -> Result<Option<Attestation>, Failure> {
    let (Some(issuer), Some(file)) = (&args.attest_issuer, &args.attest_jwks_file) else { return Ok(None) };
    let jwks = std::fs::read_to_string(file)
        .map_err(|error| Failure::bad_input([format!("--attest-jwks-file: {}: {error}", file.display())]))?;
    Ok(Some(Attestation {
        issuer: issuer.clone(),
        audience: args.attest_audience.clone(),
        subject: args.attest_subject.clone(),
        jwks: Some(jwks.trim().to_owned()),
    }))
}

/// Prints how the agent of a cluster joins that has no token. Nothing of it is secret.
pub(super) fn show_attested(joinable: &JoinableCluster, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let pins: String = joinable.ca_pins.iter().map(|pin| format!(" --ca-pin sha256:{pin}")).collect();
    printer.note("its agent joins by the token of its service account, which a projected volume has:");
    printer.line(&format!(
        "moorline-agent join --attest --name {} --server {}{pins} --token-file FILE --cert-dir DIR",
        joinable.cluster.metadata.name, joinable.management_cluster_addr
    ))
}

async fn create(args: &TokenCreateArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (name, connection) = Failure::together(parse_name(&args.name), Connection::resolve(&args.connect))?;
    let client = Client::new(connection)?;
    let created: CreatedJoinToken = client.post(&paths::join_token(&name), &wanted(args.life)).await?;
    show(&created, args.output, printer)
}

async fn list(args: &TokenListArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    let list: Value = client.get(paths::JOIN_TOKENS).await?;
    match args.output {
        Some(Format::Json) => printer.json(&list),
        Some(Format::Yaml) => printer.yaml(&list),
        Some(Format::Name) => view::join_token_names(&list, printer),
        Some(Format::Wide) | None => printer.table(&view::join_tokens(&list)),
    }
}

async fn revoke(args: &TokenRevokeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let client = Client::new(Connection::resolve(&args.connect)?)?;
    // Rules name clusters, so it takes the name of each token's.
    let list: JoinTokenList = client.get(paths::JOIN_TOKENS).await?;
    let mut failed: Option<Failure> = None;
    for id in &args.ids {
        let token = list.items.iter().find(|token| token.metadata.name == *id);
        let revoked =
            match token {
                Some(token) => {
                    // An id that came from the server, and has nothing that would have to be encoded.
                    let path = format!("{}?{}={id}", paths::join_token(&token.spec.cluster), paths::JOIN_TOKEN_ID);
                    client.delete::<Value>(&path).await.map(drop).map_err(Failure::from)
                }
                None => Err(Failure::failed(format!("there is no join token {id:?}"))
                    .hint("`moorline token list` shows the ids")),
            };
        // As kubectl does: go on with the others, and fail at the end.
        match (revoked, &mut failed) {
            (Ok(()), _) => printer.line(&format!("join token {id:?} revoked"))?,
            (Err(error), Some(failed)) => failed.what.extend(error.what),
            (Err(error), None) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

//! Users of the table of static tokens: made, shown and revoked.
//!
//! What changes is the file that the server reads its tokens from, and the table in use with it: a token works, or works
//! no more, with the next request. Requests that already run are ended when they are looked at again (`front::vigil`).

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Shared},
    response::Response,
};
use http::StatusCode;
use moorline_access::{Action, AddError, Grant, StaticTokens, TokenId};
use moorline_api::{CreateUser, CreatedUser, RevokedUser, User, UserList, UserSpec};
use moorline_ca::Zeroizing;
use moorline_model::{Identity, InvalidIdentity, Reason, Status};
use rand::Rng as _;
use serde::Deserialize;

use super::{
    answer::{Answer, Failure, json, receive},
    refused,
};
use crate::{
    front::Caller,
    reload::{self, InUse},
    state::State,
};

/// Bytes of a request body: a name, a uid, and groups, which Kubernetes itself bounds to about this.
const MAX_BODY: usize = 64 * 1024;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

/// The group that all users are in, and that is not shown.
const AUTHENTICATED: &str = "system:authenticated";

/// What may be said of the tokens to revoke.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Which {
    token_id: Option<String>,
}

/// `GET /v1/users`: all of the table, by name.
pub(super) async fn list(Shared(state): Shared<Arc<State>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let _granted = authorize(&state, caller, "list", None).await?;
    let tokens = state.tokens.load_full();
    let mut items: Vec<User> = tokens.users().map(|(id, identity)| user(id, identity)).collect();
    // Two tokens of one user stay in the order of the table.
    items.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    Ok(json(StatusCode::OK, &UserList::new(items)))
}

/// `POST /v1/users`: the user, and a token that is given once.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Response> {
    let (asker, request_id) = (caller.identity.user().to_owned(), caller.request_id.clone());
    let notes = caller.notes.clone();
    let grant = authorize(&state, caller, "create", None).await?;
    let wanted: CreateUser = receive(body, MAX_BODY, "user to create").await?;
    let identity = checked(&state, &wanted)?;
    notes.names(identity.user());
    let conferred = moorline_access::confer(&state.judge(), &grant, &identity).await;
    conferred.map_err(|denied| {
        notes.denied(&denied);
        refused(&denied, &request_id, &asker, "create", Some(identity.user()))
    })?;
    let shared = Arc::clone(&state);
    // On a thread of its own it runs to its end, also when the caller hangs up.
    let made = state.tasks.spawn_blocking("create-user", move || make(&shared, &identity, &grant));
    let created = made.await.map_err(|error| Failure::internal("create the user", &error))??;
    Ok(json(StatusCode::CREATED, &created))
}

/// `DELETE /v1/users/NAME`: all tokens of the user, or that of `?tokenId=`.
pub(super) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Answer<Response> {
    let grant = authorize(&state, caller, "delete", Some(&name)).await?;
    let Query(which) = which.map_err(|error| Failure::bad_request(error.body_text()))?;
    let shared = Arc::clone(&state);
    let removed = state.tasks.spawn_blocking("delete-user", move || remove(&shared, name, which.token_id, &grant));
    let revoked = removed.await.map_err(|error| Failure::internal("revoke the user", &error))??;
    Ok(json(StatusCode::OK, &revoked))
}

async fn authorize(state: &State, caller: Caller, verb: &str, name: Option<&str>) -> Answer<Grant> {
    let Caller { identity, as_whom, request_id, notes } = caller;
    let user = identity.user().to_owned();
    let granted = moorline_access::manage_users(&state.judge(), &state.api_group, identity, as_whom, verb, name).await;
    if let Ok(grant) = &granted {
        notes.allowed(grant);
    }
    granted.map_err(|denied| {
        notes.denied(&denied);
        refused(&denied, &request_id, &user, verb, name)
    })
}

fn user(id: TokenId, identity: &Identity) -> User {
    let groups = identity.groups().iter().filter(|group| *group != AUTHENTICATED).cloned().collect();
    let spec = UserSpec { uid: identity.uid().map(str::to_owned), groups, token_id: id.to_string() };
    User::new(identity.user(), spec)
}

fn checked(state: &State, wanted: &CreateUser) -> Answer<Identity> {
    let wrong = |field: &str, error: InvalidIdentity| invalid(state, &wanted.name, field, &error.to_string());
    let identity = Identity::new(&wanted.name).map_err(|error| wrong("metadata.name", error))?;
    let identity = identity.with_groups(&wanted.groups).map_err(|error| wrong("spec.groups", error))?;
    match &wanted.uid {
        None => Ok(identity),
        Some(uid) => identity.with_uid(uid).map_err(|error| wrong("spec.uid", error)),
    }
}

/// Blocks on the disk.
fn make(state: &State, identity: &Identity, grant: &Grant) -> Answer<CreatedUser> {
    let token = random_token();
    let mut file = reload::token_file(state);
    let table = read(&file)?;
    let (table, id) =
        StaticTokens::with(&table, &token, identity).map_err(|error| not_added(state, identity.user(), &error))?;
    // A file that is too large to be read again could neither be started from nor be revoked in.
    if table.len() as u64 > reload::MAX_FILE {
        let text = format!("the table of tokens would be larger than the {} bytes that it may have", reload::MAX_FILE);
        return Err(about(state, Status::failure(403, Reason::Forbidden, text), identity.user()));
    }
    write(state, &mut file, table)?;
    let (by, rule) = (grant.authenticated().user(), grant.rule());
    tracing::info!(name = identity.user(), token_id = %id, user = by, rule, "user created");
    Ok(CreatedUser { user: user(id, identity), token: token.into() })
}

/// Blocks on the disk.
fn remove(state: &State, name: String, only: Option<String>, grant: &Grant) -> Answer<RevokedUser> {
    let mut file = reload::token_file(state);
    let table = read(&file)?;
    let broken = |problems: moorline_access::Problems| broken(&problems);
    let tokens = StaticTokens::parse(&table).map_err(broken)?;
    let of_name = tokens.users().filter(|(_, identity)| identity.user() == name);
    let mut ids = of_name.map(|(id, _)| id).filter(|id| only.as_ref().is_none_or(|only| id.to_string() == *only));
    let first = ids.next().ok_or_else(|| {
        let which = only.as_ref().map(|id| format!(" with the token {id:?}")).unwrap_or_default();
        let text = format!("{}.{} {name:?}{which} not found", Action::USERS, state.api_group);
        about(state, Status::failure(404, Reason::NotFound, text), &name)
    })?;
    let (table, removed) = StaticTokens::without(&table, &name, only.map(|_named| first)).map_err(broken)?;
    write(state, &mut file, table)?;
    let token_ids: Vec<String> = removed.iter().map(ToString::to_string).collect();
    let (by, rule) = (grant.authenticated().user(), grant.rule());
    tracing::info!(name, token_ids = token_ids.join(","), user = by, rule, "user revoked");
    Ok(RevokedUser { name, token_ids })
}

fn random_token() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; TOKEN_BYTES]);
    rand::rng().fill_bytes(bytes.as_mut());
    Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(file: &InUse) -> Answer<Zeroizing<String>> {
    reload::standing(file).map_err(|problems| Failure::internal("read its table of tokens", &problems))
}

/// Writes the table, and has it take effect.
fn write(state: &State, (file, in_use): &mut InUse, table: String) -> Answer<()> {
    let table = Zeroizing::new(table);
    let tokens = StaticTokens::parse(&table).map_err(|problems| broken(&problems))?;
    // A link stays one, such as to a directory that is backed up.
    let target = std::fs::canonicalize(file).map_err(|error| Failure::internal("find its table of tokens", &error))?;
    moorline_process::write_private(&target, table.as_bytes())
        .map_err(|error| Failure::internal("write its table of tokens", &error))?;
    *in_use = moorline_pki::fingerprint(table.as_bytes());
    state.tokens.store(Arc::new(tokens));
    Ok(())
}

fn broken(problems: &moorline_access::Problems) -> Failure {
    let text = format!("the server's table of tokens was changed by hand and is broken; correct it first: {problems}");
    Failure::from(Status::failure(500, Reason::InternalError, text))
}

fn not_added(state: &State, name: &str, error: &AddError) -> Failure {
    match error {
        AddError::Exists => {
            let text = format!("{}.{} {name:?} already exists", Action::USERS, state.api_group);
            about(state, Status::failure(409, Reason::AlreadyExists, text), name)
        }
        AddError::Full => about(state, Status::failure(403, Reason::Forbidden, error.to_string()), name),
        AddError::Broken(problems) => broken(problems),
        AddError::Unwritable | _ => invalid(state, name, "metadata.name, spec.groups", &error.to_string()),
    }
}

fn invalid(state: &State, name: &str, field: &str, why: &str) -> Failure {
    let text = format!("User.{} {name:?} is invalid: {field}: Invalid value: {why}", state.api_group);
    let status = Status::failure(422, Reason::Invalid, text).because(field, "FieldValueInvalid", why);
    about(state, status, name)
}

fn about(state: &State, status: Status, name: &str) -> Failure {
    Failure::from(status.about(&state.api_group, Action::USERS, name))
}

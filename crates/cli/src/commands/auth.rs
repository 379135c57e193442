//! `moorline auth`: what somebody may do at a gateway, and which rule says so.

use moorline_api::{AccessAnswer, AccessQuestion, paths};

use crate::{
    args::{AuthCommand, CanIArgs},
    client::Client,
    connection::Connection,
    failure::Failure,
    printer::Printer,
};

pub(super) async fn run(command: AuthCommand, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match command {
        AuthCommand::CanI(args) => can_i(&args, printer).await,
    }
}

/// Prints yes or no, and why on standard error. No is a failure without words, as in kubectl.
async fn can_i(args: &CanIArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (question, connection) = Failure::together(question(args), Connection::resolve(&args.connect))?;
    let client =
        Client::new(connection)?.acting_as(args.as_user.as_deref(), &args.as_groups, args.as_uid.as_deref())?;
    let answer: AccessAnswer = client.post(paths::ACCESS_REVIEWS, &question).await?;
    if args.quiet {
        return if answer.allowed { Ok(()) } else { Err(Failure::no()) };
    }
    let what = describe(&question, &answer);
    printer.line(if answer.allowed { "yes" } else { "no" })?;
    match &answer.rule {
        Some(rule) if answer.allowed => printer.note(&format!("{what}: allowed by {rule}")),
        _none => printer.note(&format!("{what}: no rule allows it")),
    }
    if answer.allowed { Ok(()) } else { Err(Failure::no()) }
}

fn question(args: &CanIArgs) -> Result<AccessQuestion, Failure> {
    let (verb, given) = (args.verb.clone(), args.resource.as_str());
    if given.starts_with('/') {
        if args.name.is_some() || args.subresource.is_some() {
            return Err(Failure::bad_input([format!("RESOURCE: {given:?} is a path, which has no name and no part")]));
        }
        return Ok(AccessQuestion { verb, path: Some(given.to_owned()), ..AccessQuestion::default() });
    }
    let (resource, group) = match given.split_once('.') {
        Some((resource, group)) => (resource, Some(group.to_owned())),
        None => (given, None),
    };
    if verb.is_empty() || resource.is_empty() {
        return Err(Failure::bad_input(["VERB and RESOURCE: empty".to_owned()]));
    }
    Ok(AccessQuestion {
        verb,
        resource: resource.to_owned(),
        group,
        subresource: args.subresource.clone(),
        name: args.name.clone(),
        path: None,
    })
}

/// `User "ann" in groups dev, ops: get managedclusters.moorline.io "east"`.
fn describe(question: &AccessQuestion, answer: &AccessAnswer) -> String {
    let mut text = format!("User {:?}", answer.user);
    if !answer.groups.is_empty() {
        text.push_str(&format!(" in groups {}", answer.groups.join(", ")));
    }
    text.push_str(&format!(": {} ", question.verb));
    if let Some(path) = &question.path {
        text.push_str(path);
        return text;
    }
    text.push_str(&question.resource);
    if !answer.group.is_empty() {
        text.push_str(&format!(".{}", answer.group));
    }
    if let Some(part) = &question.subresource {
        text.push_str(&format!("/{part}"));
    }
    if let Some(name) = &question.name {
        text.push_str(&format!(" {name:?}"));
    }
    text
}

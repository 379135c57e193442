//! What the caller may do, and by which rule: the question behind `moorline auth can-i`.
//!
//! Every user may ask about themselves, as in Kubernetes. To ask about somebody else takes the right to act as them.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State as Shared, response::Response};
use http::StatusCode;
use moorline_access::{Action, Attributes, Decision};
use moorline_api::{AccessAnswer, AccessQuestion};
use moorline_model::{Reason, Status};

use super::answer::{Answer, Failure, json, receive};
use crate::{front::Caller, state::State};

/// Bytes of a question: six names.
const MAX_BODY: usize = 16 * 1024;

/// Where Kubernetes has the parts of an identity that is to be acted as.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// `POST /v1/accessreviews`.
pub(super) async fn review(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer<Response> {
    // As in Kubernetes, where that is a right of `system:authenticated`: rules have names, and these are nobody's business.
    if caller.identity == moorline_access::anonymous() {
        let text = "whoever shows no credential may not ask what anybody may do";
        return Err(Failure::from(Status::failure(403, Reason::Forbidden, text)));
    }
    let question = read(body).await?;
    let group = question.group.clone().unwrap_or_else(|| usual_group(&state, &question.verb, &question.resource));
    let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let (subresource, name, path) = (given(&question.subresource), given(&question.name), given(&question.path));
    let what = match &path {
        Some(path) => Attributes { non_resource_path: Some(path), ..Attributes::default() },
        None => Attributes {
            api_group: &group,
            resource: &question.resource,
            subresource: subresource.as_deref(),
            name: name.as_deref(),
            ..Attributes::default()
        },
    };
    let what = Attributes { verb: &question.verb, ..what };
    let Caller { identity, as_whom, request_id, notes } = caller;
    let asker = identity.user().to_owned();
    let reviewed = moorline_access::review(&state.judge(), identity, as_whom, &what).await;
    let (about, decision) = reviewed.map_err(|denied| {
        notes.denied(&denied);
        let request_id = request_id.to_str().unwrap_or_default();
        tracing::info!(request_id, user = asker, %denied, "denied");
        Failure::from(denied.status())
    })?;
    let rule = match decision {
        Decision::Allow { rule } => Some(rule),
        Decision::NoOpinion => None,
    };
    let answer = AccessAnswer {
        allowed: rule.is_some(),
        rule,
        user: about.user().to_owned(),
        groups: about.groups().to_vec(),
        group,
    };
    Ok(json(StatusCode::OK, &answer))
}

async fn read(body: Body) -> Answer<AccessQuestion> {
    let question: AccessQuestion = receive(body, MAX_BODY, "question about access").await?;
    if question.verb.is_empty() || question.resource.is_empty() == question.path.is_none() {
        return Err(Failure::bad_request("a question about access has a verb, and either a resource or a path"));
    }
    Ok(question)
}

/// The group of a resource that this server itself asks rules about.
fn usual_group(state: &State, verb: &str, resource: &str) -> String {
    match resource {
        Action::RESOURCE => state.api_group.clone(),
        // Those that somebody may act as are the core's.
        Action::USERS if verb != "impersonate" => state.api_group.clone(),
        "uids" | "userextras" => AUTHENTICATION.to_owned(),
        _ => String::new(),
    }
}

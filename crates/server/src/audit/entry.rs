//! The event that becomes of what was noted: read, ruled upon, cleaned and written as a line of JSON.
//!
//! Called by the writers, away from the data path.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use moorline_access::{Action, RequestAttributes};
use moorline_api::paths;
use moorline_audit::{Annotations, Event, MicroTime, Policy, Question, ResponseStatus, Ruling, Stage, redact_uri};
use moorline_model::Reason;

use super::{
    facts::{Decision, Facts},
    trail::{End, Refusal},
};

/// A request at one stage, on its way to the sinks.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) facts: Arc<Facts>,
    pub(super) stage: Stage,
    /// Written at whatever stage, since a request waits for it.
    pub(super) awaited: bool,
    pub(super) at: SystemTime,
    /// What was answered; 0 before that, and where nothing was.
    pub(super) code: u16,
    pub(super) refusal: Option<Box<Refusal>>,
    pub(super) ended: Option<Ended>,
}

/// What a request came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) how: End,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) took: Duration,
}

impl Entry {
    /// Adds the event as a line; nothing where the policy wants none.
    pub(super) fn write(&self, policy: &Policy, group: &str, lines: &mut Vec<u8>) {
        let about = about(&self.facts, group);
        let ruling = ruling(&self.facts, &about, policy);
        if !(ruling.is_noted_at(self.stage) || self.awaited && ruling.is_noted()) {
            return;
        }
        let before = lines.len();
        if serde_json::to_writer(&mut *lines, &self.event(&about)).is_err() {
            // Plain data into memory: there is nothing that JSON could not say.
            lines.truncate(before);
            return;
        }
        lines.push(b'\n');
    }

    /// Bytes that it holds, roughly.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.facts.weight()
    }

    fn event<'a>(&'a self, about: &'a RequestAttributes) -> Event<'a> {
        let facts = &*self.facts;
        let mut request_uri = redact_uri(facts.uri());
        if facts.is_cut() {
            request_uri = Cow::Owned(format!("{request_uri}..."));
        }
        Event {
            audit_id: facts.id.to_str().unwrap_or_default(),
            stage: self.stage,
            request_uri,
            request: about,
            user: facts.user.as_deref(),
            impersonated: facts.impersonated.as_deref(),
            source: facts.peer,
            user_agent: facts.agent(),
            response: self.response(),
            received: MicroTime(facts.received),
            at: MicroTime(self.at),
            annotations: self.annotations(about),
        }
    }

    fn response(&self) -> Option<ResponseStatus<'_>> {
        let refusal = self.refusal.as_deref();
        (self.code != 0).then(|| ResponseStatus {
            code: self.code,
            reason: refusal.map_or(Reason::Unknown, |refusal| refusal.reason),
            message: refusal.map(|refusal| refusal.message.as_str()).filter(|message| !message.is_empty()),
        })
    }

    fn annotations<'a>(&'a self, about: &'a RequestAttributes) -> Annotations<'a> {
        let facts = &*self.facts;
        let mut notes = Annotations::default();
        match &facts.decision {
            Some(Decision::Allow(rule)) => {
                notes.add("authorization.k8s.io/decision", "allow");
                notes.add("authorization.k8s.io/reason", &**rule);
            }
            Some(Decision::Forbid(why)) => {
                notes.add("authorization.k8s.io/decision", "forbid");
                notes.add("authorization.k8s.io/reason", &**why);
            }
            None => {}
        }
        notes.add_some("moorline.io/cluster", facts.cluster.as_ref().map(|(cluster, _)| cluster.as_str()));
        notes.add_some("moorline.io/session", facts.session.map(|session| session.to_string()));
        notes.add_some("moorline.io/cluster-audit-id", facts.there.as_deref());
        notes.add_some("moorline.io/stream", facts.upgrade.then(|| stream(about)));
        notes.add_some(
            "moorline.io/cause",
            self.refusal.as_ref().map(|refusal| refusal.cause).filter(|cause| !cause.is_empty()),
        );
        if let Some(ended) = &self.ended {
            notes.add("moorline.io/end", ended.how.as_str());
            notes.add("moorline.io/bytes-sent", ended.sent.to_string());
            notes.add("moorline.io/bytes-received", ended.received.to_string());
            notes.add("moorline.io/duration", format!("{:.6}s", ended.took.as_secs_f64()));
        }
        notes
    }
}

/// What the policy says of a request.
pub(super) fn ruling(facts: &Facts, about: &RequestAttributes, policy: &Policy) -> Ruling {
    let cluster = facts.cluster.as_ref().map_or("", |(cluster, _)| cluster.as_str());
    policy.rule(&Question { user: facts.user.as_deref(), request: about, cluster })
}

/// What a request is about, in the words of Kubernetes. Our own API is read as if it were one of Kubernetes'.
pub(super) fn about<'a>(facts: &'a Facts, group: &str) -> Cow<'a, RequestAttributes> {
    if let Some(about) = &facts.about {
        return Cow::Borrowed(about);
    }
    let uri = facts.inner_uri();
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() { "/" } else { path };
    let read = |path: &str| RequestAttributes::from_http(facts.method.as_str(), path, query);
    let ours = if facts.cluster.is_some() { None } else { ours(path) };
    let read = read(path);
    Cow::Owned(match ours {
        None => read,
        Some((resource, prefix)) => {
            let behind = read.path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
            // What is behind the prefix is one name, whatever is in it; but no cluster's has a slash.
            let (name, part) = match behind.map(|behind| behind.split_once('/').unwrap_or((behind, ""))) {
                Some((name, part)) if resource == Action::RESOURCE => (Some(name), Some(part)),
                _ => (behind, None),
            };
            let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (name, subresource) = (name.and_then(owned), part.and_then(owned));
            let version = moorline_api::VERSION;
            let as_kubernetes =
                format!("/apis/{group}/{version}/{resource}{}", if name.is_some() { "/name" } else { "" });
            let read_so = RequestAttributes::from_http(facts.method.as_str(), &as_kubernetes, None);
            RequestAttributes { path: read.path, name, subresource, ..read_so }
        }
    })
}

/// The resource of our own API at this path, and its path.
fn ours(path: &str) -> Option<(&'static str, &'static str)> {
    let all = [(Action::RESOURCE, paths::CLUSTERS), (Action::USERS, paths::USERS), (REVIEWS, paths::ACCESS_REVIEWS)];
    let is_below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    all.into_iter().find(|(_, prefix)| is_below(prefix))
}

/// What a question about access is called.
const REVIEWS: &str = "accessreviews";

/// What runs over an upgraded connection.
fn stream(about: &RequestAttributes) -> &'static str {
    match about.subresource.as_deref() {
        Some("exec") => "exec",
        Some("attach") => "attach",
        Some("portforward") => "port-forward",
        Some("log") => "log",
        _ if about.verb == "watch" => "watch",
        _ => "upgrade",
    }
}

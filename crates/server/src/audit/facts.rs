//! What is noted of a request: bounded, and in a few allocations.
//!
//! Written by `trail` on the way of the request, read by `entry` on the writer's. Nothing here refers to the buffers that
//! a request was read into, which are larger than all that is kept of it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use moorline_access::{Denied, Grant, RequestAttributes};
use moorline_model::{ClusterName, Identity, SessionId};

/// Bytes kept of a URI. Those of kubectl have some hundred; what is cut off is the end of a long `exec` command.
pub(super) const MAX_URI: usize = 4096;

/// Bytes kept of what a program calls itself, as in kube-apiserver.
const MAX_AGENT: usize = 1024;

/// Bytes kept of an audit id, as in kube-apiserver.
const MAX_ID: usize = 64;

/// Bytes kept of a method. None that anybody knows is longer.
const MAX_METHOD: usize = 32;

/// Bytes kept of each part of what a request is about, where they are read from a URI that is longer than what is kept.
const MAX_PART: usize = 253;

/// The head of a request that has just arrived.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// The id that this server gave it.
    pub(crate) id: &'a HeaderValue,
    /// As sent.
    pub(crate) method: &'a Method,
    /// As sent.
    pub(crate) uri: &'a Uri,
    /// As sent.
    pub(crate) headers: &'a HeaderMap,
    /// Where the connection comes from.
    pub(crate) peer: IpAddr,
}

/// Everything that is known of a request until it is answered.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) id: HeaderValue,
    pub(super) received: SystemTime,
    pub(super) peer: IpAddr,
    pub(super) method: Method,
    /// Path and query, and behind them what the program calls itself.
    text: Box<str>,
    /// Bytes of path and query.
    uri: usize,
    /// Whether path and query were longer.
    cut: bool,
    pub(super) upgrade: bool,
    /// To which cluster, and where in the URI the path begins that it gets.
    pub(super) cluster: Option<(ClusterName, usize)>,
    /// What it is about, where the URI alone does not say so any more.
    pub(super) about: Option<Box<RequestAttributes>>,
    pub(super) user: Option<Arc<Identity>>,
    pub(super) impersonated: Option<Arc<Identity>>,
    pub(super) decision: Option<Decision>,
    pub(super) session: Option<SessionId>,
    /// The id in the kube-apiserver's own audit log.
    pub(super) there: Option<Box<str>>,
}

/// What was decided, and why.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// By this rule.
    Allow(Box<str>),
    /// In these words.
    Forbid(Box<str>),
}

impl Facts {
    pub(super) fn new(head: &Head<'_>) -> Self {
        // Never the authority: there is none in what a client sends to a server, save where somebody tries.
        let uri = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let kept = start(uri, MAX_URI);
        let agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let agent = start(agent.unwrap_or_default(), MAX_AGENT);
        let mut text = String::with_capacity(kept.len() + agent.len());
        text.push_str(kept);
        text.push_str(agent);
        Self {
            id: head.id.clone(),
            received: SystemTime::now(),
            peer: head.peer,
            method: bounded_method(head.method),
            text: text.into_boxed_str(),
            uri: kept.len(),
            cut: kept.len() < uri.len(),
            upgrade: head.headers.contains_key(header::UPGRADE),
            cluster: None,
            about: None,
            user: None,
            impersonated: None,
            decision: None,
            session: None,
            there: None,
        }
    }

    pub(super) fn heads_for(&mut self, cluster: &ClusterName, path: &PathAndQuery) {
        // Either the whole of the URI, or what is behind `/clusters/NAME`.
        let named = self.uri().strip_prefix("/clusters/").is_some_and(|rest| rest.starts_with(cluster.as_str()));
        let behind = if named { "/clusters/".len() + cluster.as_str().len() } else { 0 };
        if self.cut {
            let read = RequestAttributes::from_http(self.method.as_str(), path.path(), path.query());
            self.about = Some(Box::new(bounded(read)));
        }
        self.cluster = Some((cluster.clone(), behind));
    }

    pub(super) fn is_there(&mut self, audit_id: &str) {
        self.there = Some(start(audit_id, MAX_ID).into());
    }

    /// Path and query, from their beginning.
    pub(super) fn uri(&self) -> &str {
        self.text.get(..self.uri).unwrap_or_default()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    pub(super) fn agent(&self) -> Option<&str> {
        self.text.get(self.uri..).filter(|agent| !agent.is_empty())
    }

    /// The path and query that the cluster gets; the whole where it is for none.
    pub(super) fn inner_uri(&self) -> &str {
        let behind = self.cluster.as_ref().map_or(0, |(_, behind)| *behind);
        self.uri().get(behind..).unwrap_or_default()
    }

    /// Bytes that it holds, roughly; identities count for each request that shares them.
    pub(super) fn weight(&self) -> usize {
        let of = |identity: &Option<Arc<Identity>>| identity.as_ref().map_or(0, |identity| identity.bytes());
        size_of::<Self>() + self.text.len() + of(&self.user) + of(&self.impersonated)
    }
}

/// What our own API learns of a request while it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) decision: Option<Decision>,
    pub(super) impersonated: Option<Identity>,
    pub(super) name: Option<String>,
}

impl Notes {
    /// A rule allows it.
    pub(crate) fn allowed(&self, grant: &Grant) {
        let acts = !std::ptr::eq(grant.authenticated(), grant.identity());
        let mut noted = self.locked();
        noted.decision = Some(Decision::Allow(grant.rule().into()));
        noted.impersonated = acts.then(|| grant.identity().clone());
    }

    /// It is not allowed. Where nobody could say, there is no decision.
    pub(crate) fn denied(&self, denied: &Denied) {
        if !matches!(denied, Denied::Unavailable(_)) {
            self.locked().decision = Some(Decision::Forbid(denied.public_message().into()));
        }
    }

    /// Which object it is about, where the path does not say so.
    pub(crate) fn names(&self, name: &str) {
        self.locked().name = Some(start(name, MAX_PART).to_owned());
    }

    pub(super) fn take(&self) -> Noted {
        std::mem::take(&mut *self.locked())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a text, at most so many bytes.
fn start(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

fn bounded_method(method: &Method) -> Method {
    let cut = method.as_str().as_bytes().get(..MAX_METHOD);
    cut.and_then(|cut| Method::from_bytes(cut).ok()).unwrap_or_else(|| method.clone())
}

fn bounded(mut read: RequestAttributes) -> RequestAttributes {
    let cut = |text: &mut String, most| text.truncate(text.floor_char_boundary(most));
    cut(&mut read.path, MAX_URI);
    for part in [&mut read.verb, &mut read.api_group, &mut read.api_version, &mut read.resource] {
        cut(part, MAX_PART);
    }
    for part in [&mut read.namespace, &mut read.subresource, &mut read.name].into_iter().flatten() {
        cut(part, MAX_PART);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(method: &Method, uri: &str, agent: &str) -> Facts {
        let (id, uri, mut headers) = (HeaderValue::from_static("id"), uri.parse().unwrap(), HeaderMap::new());
        headers.insert(header::USER_AGENT, agent.parse().unwrap());
        Facts::new(&Head { id: &id, method, uri: &uri, headers: &headers, peer: [127, 0, 0, 1].into() })
    }

    #[test]
    fn whatever_is_sent_little_is_kept() {
        let long = "a".repeat(30_000);
        let method = Method::from_bytes(long.as_bytes()).unwrap();
        let mut facts = facts(&method, &format!("/clusters/east/api/v1/namespaces/{long}/pods/x?watch={long}"), &long);
        let path = format!("/api/v1/namespaces/{long}/pods/x?{long}&watch=true").parse().unwrap();
        facts.heads_for(&"east".parse().unwrap(), &path);
        assert!(facts.weight() < MAX_URI + MAX_AGENT + 1024, "{}", facts.weight());
        assert_eq!((facts.uri().len(), facts.agent().unwrap().len()), (MAX_URI, MAX_AGENT));
        assert_eq!(facts.method.as_str().len(), MAX_METHOD);
        // What it is about is read from the whole, so that nobody hides behind a long query.
        let about = facts.about.unwrap();
        assert_eq!((about.resource.as_str(), about.name.as_deref()), ("pods", Some("x")));
        assert_eq!(about.namespace.unwrap().len(), MAX_PART);
    }

    #[test]
    fn the_path_that_the_cluster_gets_is_known() {
        let mut named = facts(&Method::GET, "/clusters/east/api/v1/pods?x", "kubectl");
        named.heads_for(&"east".parse().unwrap(), &"/api/v1/pods?x".parse().unwrap());
        assert_eq!((named.inner_uri(), named.agent()), ("/api/v1/pods?x", Some("kubectl")));
        let mut by_header = facts(&Method::GET, "/api/v1/pods", "");
        by_header.heads_for(&"east".parse().unwrap(), &"/api/v1/pods".parse().unwrap());
        assert_eq!((by_header.inner_uri(), by_header.agent()), ("/api/v1/pods", None));
        // Of what is no URL of a server, only the path.
        assert_eq!(facts(&Method::GET, "http://user:password@host/path?x", "").uri(), "/path?x");
        assert_eq!(facts(&Method::CONNECT, "host:443", "").uri(), "");
    }
}

//! One event, as `audit.k8s.io/v1` writes it. Borrows everything: it lives only while it is written.

use std::{borrow::Cow, net::IpAddr};

use moorline_access::RequestAttributes;
use moorline_model::{Identity, Reason};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{MicroTime, Stage, redact::redact_part};

const VERSION: &str = "audit.k8s.io/v1";

/// What is known of a request at one stage. Written as one JSON object.
#[derive(Debug)]
pub struct Event<'a> {
    /// The id of the request, under which server and agent log it, too. The same at every stage.
    pub audit_id: &'a str,
    /// When in the life of the request.
    pub stage: Stage,
    /// The path and query as sent, without secrets.
    pub request_uri: Cow<'a, str>,
    /// What is done to which object.
    pub request: &'a RequestAttributes,
    /// Who was authenticated; nobody of a request that was refused for want of that.
    pub user: Option<&'a Identity>,
    /// As whom they were allowed to act.
    pub impersonated: Option<&'a Identity>,
    /// Where the connection came from.
    pub source: IpAddr,
    /// What the program calls itself.
    pub user_agent: Option<&'a str>,
    /// What was answered, if anything was.
    pub response: Option<ResponseStatus<'a>>,
    /// When the head of the request was read.
    pub received: MicroTime,
    /// When this event was made.
    pub at: MicroTime,
    /// Everything that Kubernetes has no field for.
    pub annotations: Annotations<'a>,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseStatus<'a> {
    /// The HTTP status code.
    pub code: u16,
    /// Why, where this server answered by itself.
    pub reason: Reason,
    /// The same for people. Nothing of the request's credentials.
    pub message: Option<&'a str>,
}

/// Texts by key, in the order in which they were added. A key is added once.
#[derive(Clone, Debug, Default)]
pub struct Annotations<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Annotations<'a> {
    /// Adds one.
    pub fn add(&mut self, key: &'static str, text: impl Into<Cow<'a, str>>) {
        self.0.push((key, text.into()));
    }

    /// Adds one if there is anything to say.
    pub fn add_some(&mut self, key: &'static str, text: Option<impl Into<Cow<'a, str>>>) {
        if let Some(text) = text {
            self.add(key, text);
        }
    }
}

impl Serialize for Annotations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, text)| (key, text)))
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Event")?;
        map.serialize_entry("apiVersion", VERSION)?;
        map.serialize_entry("level", "Metadata")?;
        map.serialize_entry("auditID", self.audit_id)?;
        map.serialize_entry("stage", &self.stage)?;
        map.serialize_entry("requestURI", &self.request_uri)?;
        map.serialize_entry("verb", &self.request.verb)?;
        map.serialize_entry("user", &User(self.user))?;
        if let Some(whom) = self.impersonated {
            map.serialize_entry("impersonatedUser", &User(Some(whom)))?;
        }
        map.serialize_entry("sourceIPs", &[self.source])?;
        if let Some(agent) = self.user_agent {
            map.serialize_entry("userAgent", agent)?;
        }
        if self.request.is_resource {
            map.serialize_entry("objectRef", &ObjectRef(self.request))?;
        }
        if let Some(response) = &self.response {
            map.serialize_entry("responseStatus", response)?;
        }
        map.serialize_entry("requestReceivedTimestamp", &self.received)?;
        map.serialize_entry("stageTimestamp", &self.at)?;
        if !self.annotations.0.is_empty() {
            map.serialize_entry("annotations", &self.annotations)?;
        }
        map.end()
    }
}

/// Somebody, as `authentication.k8s.io/v1` writes `UserInfo`; nobody is an empty object.
#[derive(Debug)]
pub struct User<'a>(pub Option<&'a Identity>);

impl Serialize for User<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(identity) = self.0 {
            map.serialize_entry("username", identity.user())?;
            if let Some(uid) = identity.uid() {
                map.serialize_entry("uid", uid)?;
            }
            if !identity.groups().is_empty() {
                map.serialize_entry("groups", identity.groups())?;
            }
            if !identity.extra().is_empty() {
                map.serialize_entry("extra", identity.extra())?;
            }
        }
        map.end()
    }
}

/// What a request is about, if it is about a resource.
#[derive(Debug)]
pub struct ObjectRef<'a>(pub &'a RequestAttributes);

impl Serialize for ObjectRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = self.0;
        let given = |text: &'_ str| !text.is_empty();
        let mut map = serializer.serialize_map(None)?;
        for (key, text) in [
            ("resource", Some(request.resource.as_str())),
            ("namespace", request.namespace.as_deref()),
            ("name", request.name.as_deref()),
            ("apiGroup", Some(request.api_group.as_str())),
            ("apiVersion", Some(request.api_version.as_str())),
            ("subresource", request.subresource.as_deref()),
        ] {
            if let Some(text) = text.filter(|text| given(text)) {
                map.serialize_entry(key, redact_part(text))?;
            }
        }
        map.end()
    }
}

impl Serialize for ResponseStatus<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metadata", &serde_json::Map::new())?;
        if self.reason != Reason::Unknown {
            map.serialize_entry("status", "Failure")?;
            map.serialize_entry("reason", self.reason.as_str())?;
        }
        if let Some(message) = self.message {
            map.serialize_entry("message", message)?;
        }
        map.serialize_entry("code", &self.code)?;
        map.end()
    }
}

/// Several events in one object, as a webhook gets them. Each of `items` is an event as JSON.
#[derive(Debug)]
pub struct EventList;

impl EventList {
    /// The object around events that are already JSON, each followed by a line break.
    #[must_use]
    pub fn of_lines(lines: &[u8]) -> Vec<u8> {
        let mut list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        // JSON writes a line break within a text as `\n`, so each one here stands between two events.
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        list.extend(lines.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
        list.extend(b"]}");
        list
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::*;

    fn event<'a>(request: &'a RequestAttributes, user: Option<&'a Identity>) -> Event<'a> {
        let received = UNIX_EPOCH + Duration::from_micros(1_795_233_180_000_042);
        Event {
            audit_id: "67e55044-10b1-426f-9247-bb680e5fe0c8",
            stage: Stage::ResponseComplete,
            request_uri: "/clusters/east/api/v1/namespaces/shop/pods/till/exec?command=sh".into(),
            request,
            user,
            impersonated: None,
            source: [192, 0, 2, 7].into(),
            user_agent: Some("kubectl/v1.33"),
            response: None,
            received: MicroTime(received),
            at: MicroTime(received + Duration::from_secs(1)),
            annotations: Annotations::default(),
        }
    }

    #[test]
    fn looks_as_kubernetes_writes_it() {
        let path = "/api/v1/namespaces/shop/pods/till/exec";
        let request = RequestAttributes::from_http("POST", path, Some("command=sh"));
        let extra = [("scopes", ["a", "b"])];
        let user = Identity::new("alice").unwrap().with_groups(["dev"]).unwrap().with_uid("7").unwrap();
        let user = extra.into_iter().fold(user, |user, (key, values)| user.with_extra(key, values).unwrap());
        let bob = Identity::new("bob").unwrap();
        let mut event = event(&request, Some(&user));
        event.impersonated = Some(&bob);
        event.response = Some(ResponseStatus { code: 101, reason: Reason::Unknown, message: None });
        event.annotations.add("moorline.io/cluster", "east");
        event.annotations.add_some("moorline.io/session", None::<&str>);
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "kind": "Event",
                "apiVersion": "audit.k8s.io/v1",
                "level": "Metadata",
                "auditID": "67e55044-10b1-426f-9247-bb680e5fe0c8",
                "stage": "ResponseComplete",
                "requestURI": "/clusters/east/api/v1/namespaces/shop/pods/till/exec?command=sh",
                "verb": "create",
                "user": {"username": "alice", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["a", "b"]}},
                "impersonatedUser": {"username": "bob"},
                "sourceIPs": ["192.0.2.7"],
                "userAgent": "kubectl/v1.33",
                "objectRef": {
                    "resource": "pods", "namespace": "shop", "name": "till", "apiVersion": "v1", "subresource": "exec"
                },
                "responseStatus": {"metadata": {}, "code": 101},
                "requestReceivedTimestamp": "2026-11-21T03:53:00.000042Z",
                "stageTimestamp": "2026-11-21T03:53:01.000042Z",
                "annotations": {"moorline.io/cluster": "east"},
            })
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let request = RequestAttributes::from_http("OPTIONS", "/version", None);
        let mut event = event(&request, None);
        event.user_agent = None;
        event.response =
            Some(ResponseStatus { code: 401, reason: Reason::Unauthorized, message: Some("no such token") });
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!((&json["verb"], &json["user"]), (&json!("options"), &json!({})));
        assert_eq!(
            json["responseStatus"],
            json!({"metadata": {}, "status": "Failure", "reason": "Unauthorized", "message": "no such token", "code": 401})
        );
        for absent in ["objectRef", "impersonatedUser", "userAgent", "annotations"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn lines_become_a_list() {
        let list: Value = serde_json::from_slice(&EventList::of_lines(b"{\"a\":\"x\\ny\"}\n{\"b\":2}\n")).unwrap();
        assert_eq!(list["items"], json!([{"a": "x\ny"}, {"b": 2}]));
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        let empty: Value = serde_json::from_slice(&EventList::of_lines(b"")).unwrap();
        assert_eq!(empty["items"], json!([]));
    }
}

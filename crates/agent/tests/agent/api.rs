//! A scripted kube-apiserver that keeps one connection resource and one Secret: lists, watches, status patches and
//! updates with their versions, and what a real one cannot be made to do at a certain moment.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::bench::{eventually, spawn};

pub(crate) const CONNECTIONS: &str = "/apis/moorline.io/v1alpha1/managementclusterconnections";

type Body = BoxBody<Bytes, io::Error>;

/// The server; objects by path.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Every version so far; watches wait for the next.
    versions: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Version, path, kind of event, object.
    events: Vec<(u64, String, &'static str, Value)>,
    /// What each request was, with the user it would run as.
    seen: Vec<(Method, String, Option<String>)>,
    /// The next answers to these methods, whatever is asked of an object.
    scripted: Vec<(Method, u16)>,
    /// Resources on which the agent has no right, if it asks.
    denied: Vec<&'static str>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self { address, state: Arc::default(), versions: Arc::new(watch::Sender::new(0)) };
        let serving = api.clone();
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let api = serving.clone();
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new());
                spawn(http.serve_connection(TokioIo::new(socket), service));
            }
        });
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts an object in place, as kubectl would: its generation moves with its spec.
    pub(crate) fn apply(&self, path: &str, mut object: Value) {
        let before = self.object(path);
        let generation = before.as_ref().and_then(|before| before["metadata"]["generation"].as_i64()).unwrap_or(0);
        let same = before.as_ref().is_some_and(|before| before["spec"] == object["spec"]);
        object["metadata"]["generation"] = json!(if same { generation } else { generation + 1 });
        object["metadata"]["uid"] = json!("uid-1");
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        if let Some(before) = before
            && object.get("status").is_none()
        {
            object["status"] = before["status"].clone();
        }
        self.store(path, object);
    }

    /// A connection resource that names this server.
    pub(crate) fn connect_to(&self, address: &str) {
        let path = format!("{CONNECTIONS}/default");
        self.apply(&path, json!({ "metadata": {}, "spec": { "managementClusterAddr": address } }));
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.remove(path).unwrap();
        self.publish(&mut state, path, "DELETED", object);
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// The condition `Available`, or null.
    pub(crate) fn available(&self) -> Value {
        let object = self.object(&format!("{CONNECTIONS}/default")).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Available").unwrap_or_default()
    }

    /// Waits for a condition of this status and reason, and gives it.
    pub(crate) async fn becomes(&self, status: &str, reason: &str) -> Value {
        let what = format!("Available={status}, {reason}");
        let there = || {
            let condition = self.available();
            condition["status"] == status && condition["reason"] == reason
        };
        eventually(&what, there).await;
        self.available()
    }

    /// The requests of a method whose path begins so.
    pub(crate) fn count(&self, method: &Method, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|(seen, at, _)| seen == method && at.starts_with(path)).count()
    }

    /// Whom the requests under this path would have run as, where not as the agent.
    pub(crate) fn impersonated(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|(_, at, _)| at.starts_with(path)).map(|(_, _, user)| user.clone()).collect()
    }

    /// Answers the next request of this method to an object so.
    pub(crate) fn script(&self, method: Method, code: u16) {
        self.state.lock().unwrap().scripted.push((method, code));
    }

    /// From now on the agent has no right on this resource, if it asks.
    pub(crate) fn deny(&self, resource: &'static str) {
        self.state.lock().unwrap().denied.push(resource);
    }

    fn store(&self, path: &str, object: Value) {
        let mut state = self.state.lock().unwrap();
        let kind = if state.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.publish(&mut state, path, kind, object);
    }

    fn publish(&self, state: &mut State, path: &str, kind: &'static str, mut object: Value) {
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if kind != "DELETED" {
            state.objects.insert(path.to_owned(), object.clone());
        }
        state.events.push((version, path.to_owned(), kind, object));
        self.versions.send_replace(version);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        let user = head.headers.get("impersonate-user").map(|user| user.to_str().unwrap().to_owned());
        assert_eq!(head.headers[header::AUTHORIZATION], "Bearer the-agents-token");
        self.state.lock().unwrap().seen.push((head.method.clone(), path.clone(), user));
        if let Some(code) = self.scripted(&head.method, &path) {
            return whole(code, &json!({ "kind": "Status", "message": "scripted", "code": code }));
        }
        match (head.method, path.as_str()) {
            (Method::GET, "/readyz") => whole(200, &json!("ok")),
            (Method::GET, "/version") => whole(200, &json!({ "gitVersion": "v1.33.0" })),
            (Method::GET, CONNECTIONS) if query.contains("watch=true") => self.watch(&query),
            (Method::GET, CONNECTIONS) => self.list(&query),
            (Method::GET, path) => match self.object(path) {
                Some(object) => whole(200, &object),
                None => whole(404, &json!({ "kind": "Status", "message": "not found", "code": 404 })),
            },
            (Method::PATCH, path) => {
                assert_eq!(head.headers[header::CONTENT_TYPE], "application/merge-patch+json");
                self.patch(path.strip_suffix("/status").unwrap(), &body)
            }
            (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => self.review(&body),
            (Method::PUT, path) => self.update(path, &query, &body),
            (method, path) => panic!("{method} {path}"),
        }
    }

    fn scripted(&self, method: &Method, path: &str) -> Option<u16> {
        let mut state = self.state.lock().unwrap();
        let at = state.scripted.iter().position(|(of, _)| of == method && path.starts_with("/api"))?;
        Some(state.scripted.remove(at).1)
    }

    fn list(&self, query: &str) -> Response<Body> {
        assert!(query.contains("fieldSelector=metadata.name%3Ddefault"), "{query}");
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state.objects.get(&format!("{CONNECTIONS}/default")).into_iter().collect();
        whole(200, &json!({ "metadata": { "resourceVersion": state.version.to_string() }, "items": items }))
    }

    fn watch(&self, query: &str) -> Response<Body> {
        assert!(query.contains("fieldSelector=metadata.name%3Ddefault") && query.contains("allowWatchBookmarks=true"));
        let from = query.split("resourceVersion=").nth(1).unwrap().split('&').next().unwrap();
        let (api, from, changes) = (self.clone(), from.parse::<u64>().unwrap(), self.versions.subscribe());
        let events = stream::unfold((api, from, changes), |(api, from, mut changes)| async move {
            loop {
                changes.borrow_and_update();
                let next = {
                    let state = api.state.lock().unwrap();
                    state.events.iter().find(|(at, path, ..)| *at > from && path.starts_with(CONNECTIONS)).cloned()
                };
                if let Some((at, _, kind, object)) = next {
                    let line = format!("{}\n", json!({ "type": kind, "object": object }));
                    return Some((Ok(Frame::data(Bytes::from(line))), (api, at, changes)));
                }
                changes.changed().await.ok()?;
            }
        });
        Response::new(StreamBody::new(events).boxed())
    }

    fn patch(&self, path: &str, body: &Bytes) -> Response<Body> {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let Some(mut object) = self.object(path) else { return whole(404, &json!({ "message": "not found" })) };
        if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return whole(409, &json!({ "message": "the object has been modified" }));
        }
        object["status"] = patch["status"].clone();
        self.store(path, object);
        whole(200, &self.object(path).unwrap())
    }

    fn review(&self, body: &Bytes) -> Response<Body> {
        let review: Value = serde_json::from_slice(body).unwrap();
        let asked = &review["spec"]["resourceAttributes"];
        let allowed = !self.state.lock().unwrap().denied.iter().any(|denied| *denied == asked["resource"]);
        whole(201, &json!({ "kind": "SelfSubjectAccessReview", "status": { "allowed": allowed } }))
    }

    fn update(&self, path: &str, query: &str, body: &Bytes) -> Response<Body> {
        let object: Value = serde_json::from_slice(body).unwrap();
        let Some(before) = self.object(path) else { return whole(404, &json!({ "message": "not found" })) };
        if object["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return whole(409, &json!({ "message": "the object has been modified" }));
        }
        if !query.contains("dryRun=All") {
            self.store(path, object);
        }
        whole(200, &self.object(path).unwrap())
    }
}

fn whole(code: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {}).boxed();
    Response::builder().status(code).body(body).unwrap()
}

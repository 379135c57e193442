//! One request, one answer: route, caller, handler.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    answer::{self, Body, Failure},
    caller::Caller,
    discovery,
    exec::{self, Session},
    kind::Kind,
    logs, negotiate, openapi,
    query::Query,
    read, reviews,
    route::{Read, Review, Route},
    watch::{self, Watches},
};

/// The largest body of a review: they hold a few names.
const LARGEST_BODY: usize = 64 << 10;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Everything that a request may need.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) watches: Watches,
}

/// Where a connection finds the exec that it was upgraded to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgrade(Arc<Mutex<Option<Session>>>);

impl Upgrade {
    pub(crate) fn take(&self) -> Option<Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, session: Session) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

impl Api {
    /// Answers a request; whatever fails becomes a `Status`.
    pub(crate) async fn handle(&self, request: Request<Incoming>, upgrade: &Upgrade) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = match self.answer(request, upgrade).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        };
        tracing::debug!(%method, path, status = answer.status().as_u16(), "demo API request");
        answer
    }

    async fn answer(&self, mut request: Request<Incoming>, upgrade: &Upgrade) -> Result<Response<Body>, Failure> {
        let route = Route::find(request.method(), request.uri().path());
        let caller = Caller::read(request.headers());
        if let Ok(Route::Read(what)) = &route
            && route.as_ref().is_ok_and(Route::is_open)
        {
            return self.read(what, &request);
        }
        // Who is asking comes before what there is, as for a kube-apiserver.
        let (caller, route) = (caller?, route?);
        match route {
            Route::Read(what) => self.read(&what, &request),
            Route::Review(review) => {
                let asked = body(request).await?;
                Ok(answer::created(&match review {
                    Review::WhoAmI => reviews::who_am_i(&caller),
                    Review::CanI => reviews::can_i(&asked),
                    Review::Rules => reviews::rules(&asked),
                }))
            }
            Route::Exec(namespace, name) => {
                let pod = self.watches.world.find(Kind::Pod, &namespace, &name);
                let pod = pod.ok_or_else(|| Failure::not_found(format!("pods {name:?} not found")))?;
                let (response, session) = exec::accept(&mut request, &pod, &caller)?;
                upgrade.put(session);
                Ok(response)
            }
        }
    }

    fn read(&self, what: &Read, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
        let headers = request.headers();
        let query = Query::parse(request.uri().query());
        let world = &self.watches.world;
        match what {
            Read::Probe => Ok(answer::text("ok")),
            Read::Version => Ok(answer::json(&discovery::version())),
            Read::CoreVersions => discovered(request, discovery::core_versions),
            Read::Groups => discovered(request, discovery::groups),
            Read::CoreResources => Ok(answer::json(&discovery::core_resources())),
            Read::Group(name) => Ok(answer::json(&discovery::group(name))),
            Read::GroupResources(name) => Ok(answer::json(&discovery::group_resources(name))),
            Read::OpenApiIndex => Ok(answer::json(&openapi::index())),
            Read::OpenApiCore => Ok(answer::json(&openapi::core())),
            Read::Collection(kind, namespace) if query.flag("watch") && request.method() == Method::GET => {
                watch::watch(&self.watches, (*kind, namespace.as_deref()), headers, &query)
            }
            Read::Collection(kind, namespace) => read::list(world, (*kind, namespace.as_deref()), headers, &query),
            Read::Object(kind, namespace, name) => read::object(world, (*kind, namespace, name), headers, &query),
            Read::Log(namespace, name) => logs::logs(world, (namespace, name), &query, self.watches.stop.clone()),
        }
    }
}

fn discovered(
    request: &Request<Incoming>,
    document: impl FnOnce(negotiate::Discovery) -> Value,
) -> Result<Response<Body>, Failure> {
    let form = negotiate::discovery(request.headers())?;
    let content_type = match form {
        negotiate::Discovery::Plain => "application/json",
        negotiate::Discovery::Aggregated("v2beta1") => {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
        negotiate::Discovery::Aggregated(_) => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    };
    Ok(answer::json_as(&document(form), content_type))
}

/// The review that was posted. Newer kubectls post protobuf, which the demo does not read: nothing that it answers
/// depends on what is asked.
async fn body(request: Request<Incoming>) -> Result<Value, Failure> {
    let is_protobuf = request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == PROTOBUF);
    let collected = Limited::new(request.into_body(), LARGEST_BODY).collect().await;
    let bytes = collected.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Failure::too_large(LARGEST_BODY),
        None => Failure::bad_request(format!("the body did not arrive: {error}")),
    })?;
    if is_protobuf {
        return Ok(json!({"spec": {}}));
    }
    serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))
}

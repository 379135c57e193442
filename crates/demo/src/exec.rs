//! `kubectl exec`: a WebSocket carrying Kubernetes' channels to a tiny echo shell that says what it is.

mod channels;
mod session;
mod shell;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) use self::session::Session;
use self::{channels::Protocol, shell::Setting};
use crate::{
    answer::{self, Body, Failure},
    caller::Caller,
    objects::CONTAINER,
    query::Query,
};

/// Checks the request and answers 101; the session begins once that is written.
pub(crate) fn accept<B>(
    request: &mut Request<B>,
    pod: &Value,
    caller: &Caller,
) -> Result<(Response<Body>, Session), Failure> {
    let query = Query::parse(request.uri().query());
    let handshake = Handshake::check(request.method(), request.headers())?;
    let setting = setting(&query, pod, caller)?;
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, handshake.accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(handshake.protocol.name()));
    let upgrade: OnUpgrade = hyper::upgrade::on(request);
    Ok((response, Session::new(upgrade, handshake.protocol, setting)))
}

struct Handshake {
    protocol: Protocol,
    accept: HeaderValue,
}

impl Handshake {
    fn check(method: &Method, headers: &HeaderMap) -> Result<Self, Failure> {
        let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if upgrade.to_ascii_lowercase().starts_with("spdy/") {
            return Err(Failure::bad_request(
                "the Moorline demo speaks exec over WebSocket only, not SPDY: use kubectl 1.31 or newer \
                 (1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)",
            ));
        }
        if !upgrade.eq_ignore_ascii_case("websocket") {
            return Err(Failure::bad_request("Upgrade request required"));
        }
        let version_fits = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let key = headers.get(header::SEC_WEBSOCKET_KEY);
        let (true, &Method::GET, Some(key)) = (version_fits, method, key) else {
            return Err(Failure::bad_request("a WebSocket begins with GET, Sec-WebSocket-Version: 13 and a key"));
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let protocol = offered
            .flat_map(|list| list.split(','))
            .find_map(|name| Protocol::from_name(name.trim()))
            .ok_or_else(|| Failure::bad_request("the Moorline demo speaks v5.channel.k8s.io and v4.channel.k8s.io"))?;
        Ok(Self { protocol, accept })
    }
}

fn setting(query: &Query, pod: &Value, caller: &Caller) -> Result<Setting, Failure> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(container) = query.first("container").filter(|container| *container != CONTAINER) {
        return Err(Failure::bad_request(format!("container {container} is not valid for pod {name}")));
    }
    if pod["status"]["phase"] != "Running" {
        return Err(Failure::bad_request(format!("cannot exec into pod {name:?}: it is not running")));
    }
    let command: Vec<_> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Failure::bad_request("you must specify at least 1 command for the container"));
    }
    Ok(Setting {
        command,
        stdin: query.flag("stdin"),
        tty: query.flag("tty"),
        user: caller.user.clone(),
        pod: name.to_owned(),
    })
}

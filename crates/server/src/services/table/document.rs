//! From the text of a `ManagementServices` file to services. Called by `table`.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use moorline_access::{Found, Object, Problems};
use moorline_model::{ClusterName, check_labels};
use moorline_mtls::client::check_server_name;
use serde_json::Value;

use super::{Audience, MAX_SERVER_NAMES, MAX_SERVICES, Mode, Service, UpstreamTls};
use crate::config::{HostPort, KeyFiles};

/// Bytes of a file.
const MAX_BYTES: usize = 1024 * 1024;

/// Connections to one service where the file does not say.
const CONNECTIONS: usize = 1000;

/// The most that it may say.
const MAX_CONNECTIONS: u64 = 100_000;

const FIELDS: [&str; 9] =
    ["name", "serverNames", "clusters", "clusterSelector", "upstream", "mode", "tls", "upstreamTLS", "maxConnections"];

pub(super) fn read(yaml: &str) -> Result<Vec<Service>, Problems> {
    let mut found = Found::default();
    if yaml.len() > MAX_BYTES {
        found.add("file", format!("{} bytes", yaml.len()), format!("at most {MAX_BYTES} are supported"));
        return found.or(Vec::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let services = match serde_saphyr::from_str_with_options::<Value>(yaml, options) {
        Ok(document) => services(&document, &mut found),
        Err(error) => {
            found.add("file", error.to_string(), "correct the YAML");
            Vec::new()
        }
    };
    found.or(services)
}

fn services(document: &Value, found: &mut Found) -> Vec<Service> {
    const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "services"];
    let Some(root) = Object::read("file".to_owned(), document, &FIELDS, found) else { return Vec::new() };
    root.one_of("apiVersion", &["moorline.io/v1alpha1"], found);
    root.one_of("kind", &["ManagementServices"], found);
    let list = root.list("services", found);
    if list.len() > MAX_SERVICES {
        found.add(
            root.at("services"),
            format!("{} services", list.len()),
            format!("at most {MAX_SERVICES} are supported"),
        );
    }
    let mut names = Names::default();
    let each = list.into_iter().take(MAX_SERVICES);
    each.filter_map(|(at, value)| service(at, value, &mut names, found)).collect()
}

/// Names that were given, and where.
#[derive(Default)]
struct Names {
    services: HashMap<String, String>,
    servers: HashMap<String, String>,
}

fn once(taken: &mut HashMap<String, String>, at: String, name: &str, found: &mut Found) {
    if let Some(before) = taken.get(name) {
        found.add(at, format!("{name:?} stands at {before} already"), "give each name to one service");
        return;
    }
    taken.insert(name.to_owned(), at);
}

fn service(at: String, value: &Value, names: &mut Names, found: &mut Found) -> Option<Service> {
    let object = Object::read(at, value, &FIELDS, found)?;
    let name = object.text("name", found).and_then(|text| {
        once(&mut names.services, object.at("name"), text, found);
        keep(&object, "name", text, text.parse(), found)
    });
    let server_names = server_names(&object, names, found);
    let audience = audience(&object, found);
    let upstream = object.text("upstream", found).and_then(|text| {
        let parsed = HostPort::parse(text).map_err(|_wrong| "is not HOST:PORT; an IPv6 address stands in brackets");
        keep(&object, "upstream", text, parsed, found)
    });
    let mode = mode(&object, !server_names.is_empty(), found);
    let max_connections = max_connections(&object, found);
    Some(Service { name: name?, server_names, audience: audience?, upstream: upstream?, mode: mode?, max_connections })
}

fn keep<T, E: ToString>(
    object: &Object<'_>,
    field: &str,
    text: &str,
    parsed: Result<T, E>,
    found: &mut Found,
) -> Option<T> {
    parsed.map_err(|error| found.add(object.at(field), format!("{text:?}"), error.to_string())).ok()
}

fn server_names(object: &Object<'_>, names: &mut Names, found: &mut Found) -> Vec<String> {
    let mut server_names = Vec::new();
    for (at, value) in object.list("serverNames", found) {
        let text = value.as_str().unwrap_or_default();
        let lower = text.to_ascii_lowercase();
        let is_address = lower.parse::<std::net::IpAddr>().is_ok();
        if lower.is_empty() || lower.ends_with('.') || is_address || check_server_name(&lower).is_err() {
            let remedy =
                "write one exact DNS name, without a wildcard, a final dot or a port; programs send no address";
            found.add(at, format!("{value} is no name that TLS can carry"), remedy);
            continue;
        }
        once(&mut names.servers, at, &lower, found);
        server_names.push(lower);
    }
    if server_names.len() > MAX_SERVER_NAMES {
        let what = format!("{} names", server_names.len());
        found.add(object.at("serverNames"), what, format!("at most {MAX_SERVER_NAMES} are supported"));
    }
    server_names
}

fn audience(object: &Object<'_>, found: &mut Found) -> Option<Audience> {
    let has = |name: &str| object.optional(name).is_some();
    match (has("clusters"), has("clusterSelector")) {
        (true, true) => {
            found.add(object.at("clusterSelector"), "beside clusters", "write one of the two");
            None
        }
        (false, false) => {
            let remedy = "name the clusters that it is for, or write [\"*\"] for all, or a clusterSelector";
            found.add(object.at("clusters"), "missing: nothing is for anybody by itself", remedy);
            None
        }
        (true, false) => named(object, found),
        (false, true) => labelled(object, found),
    }
}

fn named(object: &Object<'_>, found: &mut Found) -> Option<Audience> {
    let texts = object.texts("clusters", found);
    if texts.iter().any(|text| text == "*") {
        if texts.len() > 1 {
            found.add(object.at("clusters"), "\"*\" beside names", "write [\"*\"] alone, or the names alone");
        }
        return Some(Audience::Everybody);
    }
    if texts.is_empty() {
        found.add(object.at("clusters"), "no cluster", "name one at least, or leave the service out");
    }
    let mut names = std::collections::BTreeSet::new();
    for text in texts {
        match text.parse::<ClusterName>() {
            Ok(name) if name.is_reserved() => {
                let remedy = "name managed clusters; programs of the management cluster reach its services without us";
                found.add(object.at("clusters"), format!("{text:?}"), remedy);
            }
            Ok(name) => drop(names.insert(name)),
            Err(error) => found.add(object.at("clusters"), format!("{text:?}"), error.to_string()),
        }
    }
    Some(Audience::Named(names))
}

fn labelled(object: &Object<'_>, found: &mut Found) -> Option<Audience> {
    let value = object.optional("clusterSelector")?;
    let selector = Object::read(object.at("clusterSelector"), value, &["matchLabels"], found)?;
    let at = selector.at("matchLabels");
    let fields = selector.required("matchLabels", found)?;
    let Some(fields) = fields.as_object().filter(|fields| !fields.is_empty()) else {
        found.add(at, "no label", "write `key: value` lines; for all clusters, write clusters: [\"*\"] instead");
        return None;
    };
    let mut labels = BTreeMap::new();
    for (key, value) in fields {
        match value.as_str() {
            Some(value) => drop(labels.insert(key.clone(), value.to_owned())),
            None => found.add(format!("{at}.{key}"), format!("{value}, not a text"), "put it into quotes"),
        }
    }
    if let Err(error) = check_labels(&labels) {
        found.add(at, "no labels of Kubernetes", error.to_string());
    }
    Some(Audience::Labelled(labels))
}

fn mode(object: &Object<'_>, has_server_names: bool, found: &mut Found) -> Option<Mode> {
    let mode = object.one_of("mode", &["PassThrough", "HTTP"], found)?;
    if mode == "PassThrough" {
        for field in ["tls", "upstreamTLS"].into_iter().filter(|field| object.optional(field).is_some()) {
            let what = "beside mode PassThrough, in which TLS is between the program and the service";
            found.add(object.at(field), what, "leave it out, or write mode: HTTP");
        }
        return Some(Mode::PassThrough);
    }
    let shown = object.optional("tls").and_then(|value| {
        let tls = Object::read(object.at("tls"), value, &["certificateFile", "privateKeyFile"], found)?;
        keys(&tls, true, found)
    });
    if has_server_names && object.optional("tls").is_none() {
        let what = "missing: programs that come by serverNames come with TLS";
        found.add(object.at("tls"), what, "name certificateFile and privateKeyFile, or leave serverNames out");
    }
    let upstream = object.optional("upstreamTLS").and_then(|value| upstream_tls(object, value, found));
    Some(Mode::Http { shown, upstream })
}

fn upstream_tls(object: &Object<'_>, value: &Value, found: &mut Found) -> Option<UpstreamTls> {
    const FIELDS: [&str; 4] = ["caFile", "serverName", "certificateFile", "privateKeyFile"];
    let tls = Object::read(object.at("upstreamTLS"), value, &FIELDS, found)?;
    let file = |name: &str, found: &mut Found| {
        tls.optional(name)?;
        tls.text(name, found).map(PathBuf::from)
    };
    let ca = file("caFile", found);
    let server_name = tls.optional("serverName").and_then(|_given| {
        let text = tls.text("serverName", found)?;
        keep(&tls, "serverName", text, check_server_name(text), found)?;
        Some(text.to_owned())
    });
    Some(UpstreamTls { ca, server_name, keys: keys(&tls, false, found) })
}

fn keys(tls: &Object<'_>, needed: bool, found: &mut Found) -> Option<KeyFiles> {
    let given = |name: &str| tls.optional(name).is_some();
    if !needed && !given("certificateFile") && !given("privateKeyFile") {
        return None;
    }
    let (certificate, key) = (tls.text("certificateFile", found), tls.text("privateKeyFile", found));
    Some(KeyFiles { certificate: certificate?.into(), key: key?.into() })
}

fn max_connections(object: &Object<'_>, found: &mut Found) -> usize {
    let Some(value) = object.optional("maxConnections") else { return CONNECTIONS };
    let number = value.as_u64().filter(|number| (1..=MAX_CONNECTIONS).contains(number));
    if number.is_none() {
        found.add(
            object.at("maxConnections"),
            value.to_string(),
            format!("write a number from 1 to {MAX_CONNECTIONS}"),
        );
    }
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(CONNECTIONS)
}

//! Which services of the management cluster are offered to programs of this one, and where.
//!
//! Called by `resolve`. Nothing is offered that is not written here.

use std::net::SocketAddr;

use moorline_wire::services::ServiceName;

use super::{Problems, RawConfig, resolve::listening};
use crate::services::{Config, Kind, Local, MOST};

const DEFAULT_CONNECTIONS: usize = 256;

/// More than this no session carries beside its requests.
const MOST_CONNECTIONS: usize = 8192;

pub(super) fn resolve(raw: &RawConfig, admin: Option<SocketAddr>, problems: &mut Problems) -> Config {
    let mut locals: Vec<Local> = Vec::new();
    for (field, kind, written) in
        [("--service", Kind::Tcp, &raw.services), ("--http-service", Kind::Http, &raw.http_services)]
    {
        for text in written.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let Some(local) = local(field, kind, text, problems) else { continue };
            let taken = locals.iter().map(|other| other.address).chain(admin);
            if taken.into_iter().any(|other| overlap(local.address, other)) {
                let what = format!("{text:?}: something else of the agent listens there");
                problems.add(field, what, "choose an address or a port of its own for each service");
            }
            locals.push(local);
        }
    }
    if locals.len() > MOST {
        problems.add("--service", format!("{} services are offered", locals.len()), format!("offer {MOST} at most"));
    }
    let max_connections = raw.max_service_connections.unwrap_or(DEFAULT_CONNECTIONS);
    if !(1..=MOST_CONNECTIONS).contains(&max_connections) {
        let what = format!("{max_connections} is out of range");
        problems.add("--max-service-connections", what, format!("choose 1 to {MOST_CONNECTIONS}"));
    }
    Config { locals, max_connections }
}

fn local(field: &str, kind: Kind, text: &str, problems: &mut Problems) -> Option<Local> {
    let parsed = text.split_once('=').and_then(|(name, address)| Some((name.trim(), listening(address.trim())?)));
    let Some((name, address)) = parsed else {
        let remedy = "write NAME=ADDRESS:PORT with an IP address, or NAME=:PORT";
        problems.add(field, format!("{text:?} names no service and address"), remedy);
        return None;
    };
    match name.parse::<ServiceName>() {
        Ok(name) => Some(Local { name, kind, address }),
        Err(error) => {
            problems.add(field, format!("{name:?} is no name of a service"), error.to_string());
            None
        }
    }
}

/// Whether both cannot be listened on; port 0 is any that is free.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    same && one.port() == other.port() && one.port() != 0
}

//! Services of the management cluster that the agent offers to programs of its own: its arguments, the ports of its pods,
//! the Service by which they are found, and who may reach them.
//!
//! All are made from the same list, so that no port is open that leads nowhere.

use std::collections::BTreeSet;

use super::{ADMIN_PORT, Install};
use crate::{
    object::{AGENT, list, map, object},
    problem::Problem,
    yaml::Node,
};

/// More listeners no agent takes.
const MOST: usize = 64;

/// Ports below are for those who run as root, which the agent does not.
const FIRST_PORT: u16 = 1024;

/// A service, and the port at which the agent's pods and their Service have it.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    flag: &'static str,
    name: String,
    port: u16,
}

/// What was typed for `--service` and `--http-service`.
pub(super) fn resolve(tcp: &[String], http: &[String], problems: &mut Vec<Problem>) -> Vec<Offered> {
    let mut offered: Vec<Offered> = Vec::new();
    for (flag, texts) in [("--service", tcp), ("--http-service", http)] {
        for text in texts {
            let Some((name, port)) =
                text.split_once("=:").and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            else {
                let what = format!("{text:?} is no service and port");
                problems.push(Problem::new(flag, what, "write NAME=:PORT; pods have addresses of their own"));
                continue;
            };
            Problem::unless_a_name(flag, name, problems);
            if port < FIRST_PORT || port == ADMIN_PORT {
                let remedy =
                    format!("choose {FIRST_PORT} to 65535, but not {ADMIN_PORT}, where the agent's probes are");
                problems.push(Problem::new(flag, format!("{text:?}: the agent cannot have that port"), remedy));
            }
            offered.push(Offered { flag, name: name.to_owned(), port });
        }
    }
    let unique =
        |of: &dyn Fn(&Offered) -> String| offered.iter().map(of).collect::<BTreeSet<_>>().len() == offered.len();
    if !unique(&|offered| offered.name.clone()) || !unique(&|offered| offered.port.to_string()) {
        let what = "a name or a port is given twice";
        problems.push(Problem::new("--service", what, "give each service one port of its own"));
    }
    if offered.len() > MOST {
        let what = format!("{} services are offered", offered.len());
        problems.push(Problem::new("--service", what, format!("offer {MOST} at most")));
    }
    offered
}

/// How programs find them: the agents that are connected.
pub(super) fn service(install: &Install) -> Option<Node> {
    if install.services.is_empty() {
        return None;
    }
    let port = |offered: &Offered| {
        map! {
            "name" => offered.name.as_str(),
            "protocol" => "TCP",
            "port" => i32::from(offered.port),
            "targetPort" => i32::from(offered.port),
        }
    };
    let mut service = object("v1", "Service", AGENT, Some(&install.namespace));
    service.set(
        "spec",
        map! {
            "type" => "ClusterIP",
            "selector" => map! { "app.kubernetes.io/name" => AGENT },
            "ports" => install.services.iter().map(port).collect::<Vec<_>>(),
        },
    );
    Some(service)
}

/// The agent's arguments for them.
pub(super) fn arguments(install: &Install) -> impl Iterator<Item = String> + '_ {
    install.services.iter().map(|Offered { flag, name, port }| format!("{flag}={name}=:{port}"))
}

/// The ports of the agent's container for them.
pub(super) fn container_ports(install: &Install) -> impl Iterator<Item = Node> + '_ {
    install.services.iter().map(|offered| map! { "containerPort" => i32::from(offered.port), "protocol" => "TCP" })
}

/// Pods of this cluster may reach them, and nobody else.
pub(super) fn ingress(install: &Install) -> Option<Node> {
    if install.services.is_empty() {
        return None;
    }
    let port = |offered: &Offered| map! { "protocol" => "TCP", "port" => i32::from(offered.port) };
    Some(map! {
        "from" => list![map! { "namespaceSelector" => map! {} }],
        "ports" => install.services.iter().map(port).collect::<Vec<_>>(),
    })
}

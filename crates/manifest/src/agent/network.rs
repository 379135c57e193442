//! What the agent may dial, and who may dial it.
//!
//! A NetworkPolicy knows addresses and no names, and the kube-apiserver is no pod. So a tunnel that is named leaves its port
//! open towards everywhere, as do the kube-apiserver's ports unless its addresses are given; who answers there is then held
//! by TLS alone.

use super::{ADMIN_PORT, Address, Cidr, Install, services};
use crate::{
    object::{AGENT, list, map, object},
    yaml::Node,
};

/// The address at which NodeLocal DNSCache answers, which is on no pod.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// One policy, with egress to DNS, the kube-apiserver and the tunnel or its proxy, and ingress to the admin port and
/// to those of services.
pub(super) fn policy(install: &Install, address: &Address) -> Node {
    let mut ingress = vec![map! { "ports" => list![port("TCP", ADMIN_PORT)] }];
    ingress.extend(services::ingress(install));
    let way = install.proxy.as_ref().map_or(address, |proxy| &proxy.address);
    let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", AGENT, Some(&install.namespace));
    policy.set(
        "spec",
        map! {
            "podSelector" => map! { "matchLabels" => map! { "app.kubernetes.io/name" => AGENT } },
            "policyTypes" => list!["Ingress", "Egress"],
            "ingress" => ingress,
            "egress" => list![dns(), apiserver(&install.apiserver_cidrs, &install.apiserver_ports), tunnel(way)],
        },
    );
    policy
}

fn dns() -> Node {
    let pods = map! {
        "namespaceSelector" => map! { "matchLabels" => map! { "kubernetes.io/metadata.name" => "kube-system" } },
        "podSelector" => map! { "matchLabels" => map! { "k8s-app" => "kube-dns" } },
    };
    map! {
        "to" => list![pods, Cidr::known(NODE_LOCAL_DNS.to_owned())],
        "ports" => list![port("UDP", 53), port("TCP", 53)],
    }
}

fn apiserver(cidrs: &[Cidr], ports: &[u16]) -> Node {
    let ports: Vec<Node> = ports.iter().map(|number| port("TCP", *number)).collect();
    towards(cidrs.to_vec(), ports)
}

fn tunnel(way: &Address) -> Node {
    towards(way.ip().into_iter().collect(), vec![port("TCP", way.port)])
}

/// Towards everywhere where there is no address.
fn towards(cidrs: Vec<Cidr>, ports: Vec<Node>) -> Node {
    if cidrs.is_empty() {
        map! { "ports" => ports }
    } else {
        map! { "to" => cidrs, "ports" => ports }
    }
}

fn port(protocol: &str, number: u16) -> Node {
    map! { "protocol" => protocol, "port" => number }
}

//! `ManagementClusterConnection`: where the management cluster is, and how the agent fares with it.
//!
//! The agent reads `spec` and writes `status`. The definition is written to `deploy/crds` by `cargo xtask generate`.

use crate::{
    object::{list, map, object},
    yaml::Node,
};

/// The API group.
pub(super) const GROUP: &str = "moorline.io";
/// The resource.
pub(super) const PLURAL: &str = "managementclusterconnections";
/// The one object that there may be.
pub(super) const NAME: &str = "default";

const VERSION: &str = "v1alpha1";
const KIND: &str = "ManagementClusterConnection";

/// The custom resource definition.
#[must_use]
pub fn definition() -> Node {
    let mut definition =
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", &format!("{PLURAL}.{GROUP}"), None);
    let version = map! {
        "name" => VERSION,
        "served" => true,
        "storage" => true,
        "subresources" => map! { "status" => map! {} },
        "additionalPrinterColumns" => list![
            column("Address", ".spec.managementClusterAddr", "string"),
            column("Available", ".status.conditions[?(@.type==\"Available\")].status", "string"),
            column("Reason", ".status.conditions[?(@.type==\"Available\")].reason", "string"),
            column("Age", ".metadata.creationTimestamp", "date"),
        ],
        "schema" => map! { "openAPIV3Schema" => schema() },
    };
    definition.set(
        "spec",
        map! {
            "group" => GROUP,
            "scope" => "Cluster",
            "names" => map! {
                "kind" => KIND,
                "listKind" => format!("{KIND}List"),
                "plural" => PLURAL,
                "singular" => "managementclusterconnection",
                "shortNames" => list!["mcc"],
            },
            "versions" => list![version],
        },
    );
    definition
}

fn column(name: &str, path: &str, kind: &str) -> Node {
    map! { "name" => name, "type" => kind, "jsonPath" => path }
}

fn text(description: &str) -> Node {
    map! { "type" => "string", "description" => description }
}

fn rule(rule: &str, message: &str) -> Node {
    list![map! { "rule" => rule, "message" => message }]
}

fn schema() -> Node {
    map! {
        "description" => "Where the management cluster of this cluster is, and how its agent fares with it.",
        "type" => "object",
        "required" => list!["spec"],
        "x-kubernetes-validations" => rule(
            &format!("self.metadata.name == '{NAME}'"),
            &format!("an agent has one connection, and its name is {NAME}"),
        ),
        "properties" => map! {
            "apiVersion" => map! { "type" => "string" },
            "kind" => map! { "type" => "string" },
            "metadata" => map! { "type" => "object" },
            "spec" => spec(),
            "status" => status(),
        },
    }
}

fn spec() -> Node {
    let mut address = text("HOST:PORT of the tunnel; port 9449 where none is given, and an IPv6 address in brackets.");
    address.set("minLength", 1.into());
    address.set("maxLength", 261.into());
    address.set("pattern", r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$".into());
    let mut authorities = text(
        "Whose certificates the tunnel may show: Moorline for those of the authorities that came with the agent's own \
         certificate, Public for those that the agent's system trusts.",
    );
    authorities.set("enum", list!["Moorline", "Public"]);
    authorities.set("default", "Moorline".into());
    map! {
        "type" => "object",
        "required" => list!["managementClusterAddr"],
        "properties" => map! {
            "managementClusterAddr" => address,
            "tls" => map! {
                "type" => "object",
                "default" => map! {},
                "properties" => map! { "ca" => authorities },
            },
        },
    }
}

fn status() -> Node {
    let mut state = map! { "type" => "string" };
    state.set("enum", list!["True", "False", "Unknown"]);
    let time = map! { "type" => "string", "format" => "date-time" };
    let condition = map! {
        "type" => "object",
        "required" => list!["type", "status", "lastTransitionTime", "reason", "message"],
        "properties" => map! {
            "type" => limited("string", 316),
            "status" => state,
            "reason" => limited("string", 1024),
            "message" => limited("string", 32768),
            "lastTransitionTime" => time,
            "observedGeneration" => map! { "type" => "integer", "format" => "int64", "minimum" => 0 },
        },
    };
    map! {
        "type" => "object",
        "properties" => map! {
            "conditions" => map! {
                "description" => "Available: whether the agent has a session with the management cluster, and why not.",
                "type" => "array",
                "maxItems" => 16,
                "x-kubernetes-list-type" => "map",
                "x-kubernetes-list-map-keys" => list!["type"],
                "items" => condition,
            },
        },
    }
}

fn limited(kind: &str, most: i32) -> Node {
    map! { "type" => kind, "maxLength" => most }
}

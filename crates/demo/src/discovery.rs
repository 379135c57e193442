//! What the demo serves, told as Kubernetes tells it: version, groups, resources, plain and aggregated. Pure.

use serde_json::{Value, json};

use crate::{VERSION, kind::Kind, negotiate::Discovery};

const READ: [&str; 3] = ["get", "list", "watch"];

/// The review kinds by group: plural name and kind.
const REVIEWS: [(&str, &[(&str, &str)]); 2] = [
    ("authentication.k8s.io", &[("selfsubjectreviews", "SelfSubjectReview")]),
    (
        "authorization.k8s.io",
        &[
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ],
    ),
];

/// Subresources of pods: name and verbs.
const OF_PODS: [(&str, &[&str]); 2] = [("log", &["get"]), ("exec", &["create", "get"])];

pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": VERSION,
        "gitCommit": "moorline-demo",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none: the Moorline demo API, not a kube-apiserver",
        "compiler": "rustc",
        "platform": "demo/demo",
    })
}

/// `/api`.
pub(crate) fn core_versions(form: Discovery) -> Value {
    match form {
        Discovery::Plain => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        Discovery::Aggregated(version) => aggregated_list(
            version,
            &[json!({
                "metadata": {"creationTimestamp": null},
                "versions": [{"version": "v1", "resources": aggregated_core(), "freshness": "Current"}],
            })],
        ),
    }
}

/// `/apis`.
pub(crate) fn groups(form: Discovery) -> Value {
    match form {
        Discovery::Plain => {
            let groups: Vec<_> = REVIEWS.iter().map(|(name, _)| group_entry(name)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Discovery::Aggregated(version) => {
            let items = REVIEWS.iter().map(|(name, reviews)| {
                let resources: Vec<_> =
                    reviews.iter().map(|(plural, kind)| aggregated_review(name, plural, kind)).collect();
                json!({
                    "metadata": {"name": name, "creationTimestamp": null},
                    "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}],
                })
            });
            aggregated_list(version, &items.collect::<Vec<_>>())
        }
    }
}

/// `/api/v1`.
pub(crate) fn core_resources() -> Value {
    let mut resources = Vec::new();
    for kind in Kind::ALL {
        resources.push(json!({
            "name": kind.plural(), "singularName": kind.singular(), "namespaced": kind.namespaced(),
            "kind": kind.name(), "verbs": READ, "shortNames": [kind.short()], "categories": categories(kind),
        }));
    }
    for (name, verbs) in OF_PODS {
        resources.push(json!({
            "name": format!("pods/{name}"), "singularName": "", "namespaced": true,
            "kind": subresource_kind(name), "verbs": verbs,
        }));
    }
    json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources})
}

/// `/apis/GROUP`.
pub(crate) fn group(name: &str) -> Value {
    let mut group = group_entry(name);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

/// `/apis/GROUP/v1`.
pub(crate) fn group_resources(name: &str) -> Value {
    let resources: Vec<_> = reviews_of(name)
        .iter()
        .map(|(plural, kind)| {
            json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind,
                   "verbs": ["create"]})
        })
        .collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{name}/v1"), "resources": resources})
}

fn reviews_of(group: &str) -> &'static [(&'static str, &'static str)] {
    REVIEWS.iter().find(|(name, _)| *name == group).map_or(&[], |(_, reviews)| reviews)
}

fn group_entry(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn aggregated_list(version: &str, items: &[Value]) -> Value {
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_core() -> Vec<Value> {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let mut resource = json!({
                "resource": kind.plural(),
                "responseKind": {"group": "", "version": "v1", "kind": kind.name()},
                "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
                "singularResource": kind.singular(),
                "shortNames": [kind.short()],
                "categories": categories(kind),
                "verbs": READ,
            });
            if kind == Kind::Pod {
                resource["subresources"] = OF_PODS
                    .iter()
                    .map(|(name, verbs)| {
                        json!({"subresource": name, "verbs": verbs,
                               "responseKind": {"group": "", "version": "v1", "kind": subresource_kind(name)}})
                    })
                    .collect();
            }
            resource
        })
        .collect()
}

fn aggregated_review(group: &str, plural: &str, kind: &str) -> Value {
    json!({
        "resource": plural, "responseKind": {"group": group, "version": "v1", "kind": kind},
        "scope": "Cluster", "singularResource": kind.to_lowercase(), "verbs": ["create"],
    })
}

fn categories(kind: Kind) -> &'static [&'static str] {
    if kind == Kind::Pod { &["all"] } else { &[] }
}

fn subresource_kind(name: &str) -> &'static str {
    if name == "exec" { "PodExecOptions" } else { "Pod" }
}

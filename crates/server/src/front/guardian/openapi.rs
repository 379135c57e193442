//! What kubectl asks about before it sends a manifest, answered from the cluster's own discovery.
//!
//! Called by `request` and `forward`. Guardian does not pass `/openapi` on, and without an answer there `kubectl apply`,
//! `create`, `edit` and `diff` send nothing: they look up whether the API server validates fields itself (every
//! kube-apiserver since 1.25 does) and whether it knows dry runs. So that much is said of each kind that discovery says
//! can be patched, for the user who asks and from what the cluster lets them see. There are no schemas in it:
//! `kubectl explain` says that it finds none.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Where the documents are, of the third version of OpenAPI. kubectl asks for the second only where there is no third.
const ROOT: &str = "/openapi/v3";

/// Bytes of discovery that are read: a group with a thousand kinds has some 300 KiB.
pub(in crate::front) const MAX_DISCOVERY: usize = 1024 * 1024;

/// Kinds, or group versions, that a document is made of. What is made of one is some ten times as large as what a cluster
/// could say it with.
const MOST: usize = 2000;

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::front) enum Document {
    /// Which group versions there are.
    Index,
    /// What the kinds of one of them take.
    GroupVersion,
}

/// The document that a path names, and the path of the discovery that it is made from.
pub(super) fn wanted(path: &str) -> Option<(Document, String)> {
    let below = path.strip_prefix(ROOT)?;
    if below.is_empty() {
        return Some((Document::Index, "/apis/".to_owned()));
    }
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
            && !segment.starts_with('.')
    };
    let segments: Vec<&str> = below.strip_prefix('/')?.split('/').collect();
    match segments.as_slice() {
        ["api", version] if plain(version) => Some((Document::GroupVersion, format!("/api/{version}"))),
        ["apis", group, version] if plain(group) && plain(version) => {
            Some((Document::GroupVersion, format!("/apis/{group}/{version}")))
        }
        _ => None,
    }
}

impl Document {
    /// The document, from what discovery said; none where that cannot be read.
    pub(in crate::front) fn made_of(self, discovery: &[u8]) -> Option<Bytes> {
        let document = match self {
            Self::Index => {
                let groups: Groups = serde_json::from_slice(discovery).ok()?;
                let versions: usize = groups.groups.iter().map(|group| group.versions.len()).sum();
                (versions <= MOST).then(|| index(&groups))?
            }
            Self::GroupVersion => {
                let resources: Resources = serde_json::from_slice(discovery).ok()?;
                (resources.resources.len() <= MOST).then(|| group_version(&resources))?
            }
        };
        serde_json::to_vec(&document).ok().map(Bytes::from)
    }
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    group_version: String,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

fn index(groups: &Groups) -> Value {
    let versions = groups.groups.iter().flat_map(|group| &group.versions);
    let named = versions.map(|version| format!("apis/{}", version.group_version));
    let paths: Map<String, Value> = std::iter::once("api/v1".to_owned())
        .chain(named)
        .map(|name| {
            let place = json!({ "serverRelativeURL": format!("{ROOT}/{name}") });
            (name, place)
        })
        .collect();
    json!({ "paths": paths })
}

fn group_version(resources: &Resources) -> Value {
    let (group, version) = resources.group_version.split_once('/').unwrap_or(("", &resources.group_version));
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let patched = resources
        .resources
        .iter()
        .filter(|resource| !resource.name.contains('/') && resource.verbs.iter().any(|verb| verb == "patch"));
    let paths: Map<String, Value> = patched
        .map(|resource| {
            let within = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let patch = json!({
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
                "responses": { "200": { "description": "OK" } },
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": resource.kind },
            });
            (format!("{base}{within}/{}/{{name}}", resource.name), json!({ "patch": patch }))
        })
        .collect();
    json!({
        "openapi": "3.0.0",
        "info": {
            "title": "Kubernetes",
            "version": "unversioned",
            "description": "Made from discovery, without schemas: the cluster's agent does not pass /openapi on.",
        },
        "paths": paths,
        "components": { "schemas": {} },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_openapi_is_a_path_of_discovery() {
        let made_from = |path: &str| wanted(path).map(|(_, discovery)| discovery);
        assert_eq!(wanted("/openapi/v3"), Some((Document::Index, "/apis/".to_owned())));
        assert_eq!(made_from("/openapi/v3/api/v1").unwrap(), "/api/v1");
        assert_eq!(made_from("/openapi/v3/apis/apps/v1").unwrap(), "/apis/apps/v1");
        for path in [
            "/openapi/v2",
            "/openapi/v3x",
            "/openapi/v3/",
            "/openapi/v3/apis/apps",
            "/openapi/v3/apis/a/v1/pods",
            "/openapi/v3/apis/../v1",
            "/openapi/v3/apis/%2e%2e/v1",
            "/openapi/v3/version",
            "/api/v1",
        ] {
            assert_eq!(made_from(path), None, "{path}");
        }
    }

    #[test]
    fn what_can_be_patched_takes_validation_and_dry_runs() {
        let discovery = json!({ "kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [
            { "name": "deployments", "kind": "Deployment", "namespaced": true, "verbs": ["get", "patch"] },
            { "name": "deployments/status", "kind": "Deployment", "namespaced": true, "verbs": ["patch"] },
            { "name": "reviews", "kind": "Review", "verbs": ["create"] },
        ]});
        let made = Document::GroupVersion.made_of(discovery.to_string().as_bytes()).unwrap();
        let made: Value = serde_json::from_slice(&made).unwrap();
        let paths = made["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 1);
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation"]);
        assert_eq!(Document::GroupVersion.made_of(b"not found"), None);
        let many = vec![json!({ "name": "a", "kind": "A", "verbs": ["patch"] }); MOST + 1];
        let many = json!({ "groupVersion": "v1", "resources": many }).to_string();
        assert_eq!(Document::GroupVersion.made_of(many.as_bytes()), None);
    }

    #[test]
    fn the_index_lists_every_version() {
        let groups =
            json!({ "groups": [{ "name": "apps", "versions": [{ "groupVersion": "apps/v1", "version": "v1" }] }] });
        let made = Document::Index.made_of(groups.to_string().as_bytes()).unwrap();
        let made: Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(made["paths"]["apis/apps/v1"]["serverRelativeURL"], "/openapi/v3/apis/apps/v1");
        assert!(made["paths"]["api/v1"].is_object());
    }
}

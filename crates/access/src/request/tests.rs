//! What kubectl and friends send, and what kube-apiserver makes of it.

use proptest::prelude::*;

use super::*;

/// `verb group/version namespace resource/subresource name`, with `-` for none; `verb path` for what is no resource.
fn read(request: &str) -> String {
    let (method, url) = request.split_once(' ').unwrap();
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let request = RequestAttributes::from_http(method, path, query);
    if !request.is_resource {
        return format!("{} {}", request.verb, request.path);
    }
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let group = if request.api_group.is_empty() { String::new() } else { format!("{}/", request.api_group) };
    let part = request.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
    let RequestAttributes { verb, api_version, resource, .. } = &request;
    format!("{verb} {group}{api_version} {} {resource}{part} {}", or_none(&request.namespace), or_none(&request.name))
}

#[track_caller]
fn all(table: &[(&str, &str)]) {
    for (request, expected) in table {
        assert_eq!(read(request), *expected, "{request}");
    }
}

#[test]
fn plain_verbs() {
    all(&[
        ("GET /api/v1/namespaces/shop/pods?limit=500", "list v1 shop pods -"),
        ("HEAD /api/v1/namespaces/shop/pods/web", "get v1 shop pods web"),
        ("GET /api/v1/pods?limit=500", "list v1 - pods -"),
        ("GET /api/v1/nodes/one", "get v1 - nodes one"),
        ("GET /apis/apps/v1/namespaces/shop/deployments/web", "get apps/v1 shop deployments web"),
        ("POST /api/v1/namespaces/shop/configmaps?fieldManager=kubectl-create", "create v1 shop configmaps -"),
        ("PUT /apis/apps/v1/namespaces/shop/deployments/web", "update apps/v1 shop deployments web"),
        (
            "PATCH /apis/apps/v1/namespaces/shop/deployments/web?fieldManager=kubectl&force=true",
            "patch apps/v1 shop deployments web",
        ),
        ("DELETE /api/v1/namespaces/shop/pods/web", "delete v1 shop pods web"),
        ("DELETE /api/v1/namespaces/shop/pods?labelSelector=a%3Db", "deletecollection v1 shop pods -"),
        ("OPTIONS /api/v1/pods", " v1 - pods -"),
        (
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "create authorization.k8s.io/v1 - selfsubjectaccessreviews -",
        ),
        (
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
            "create authentication.k8s.io/v1 - selfsubjectreviews -",
        ),
    ]);
}

#[test]
fn parts_of_resources() {
    all(&[
        ("GET /api/v1/namespaces/shop/pods/web/log?follow=true&container=a", "get v1 shop pods/log web"),
        ("POST /api/v1/namespaces/shop/pods/web/exec?command=sh&stdin=true", "create v1 shop pods/exec web"),
        ("GET /api/v1/namespaces/shop/pods/web/exec?command=sh", "get v1 shop pods/exec web"),
        ("GET /api/v1/namespaces/shop/pods/web/attach?stdout=true", "get v1 shop pods/attach web"),
        ("POST /api/v1/namespaces/shop/pods/web/portforward", "create v1 shop pods/portforward web"),
        ("PATCH /apis/apps/v1/namespaces/shop/deployments/web/scale", "patch apps/v1 shop deployments/scale web"),
        ("PUT /api/v1/namespaces/shop/pods/web/status", "update v1 shop pods/status web"),
        ("POST /api/v1/namespaces/shop/pods/web/eviction", "create v1 shop pods/eviction web"),
        ("POST /api/v1/namespaces/shop/serviceaccounts/till/token", "create v1 shop serviceaccounts/token till"),
        ("GET /api/v1/namespaces/shop/services/web:80/proxy/a/b", "get v1 shop services/proxy web:80"),
        ("GET /api/v1/nodes/one/proxy/metrics", "get v1 - nodes/proxy one"),
    ]);
}

#[test]
fn watches() {
    all(&[
        ("GET /api/v1/namespaces/shop/pods?watch=true&resourceVersion=5", "watch v1 shop pods -"),
        ("GET /api/v1/pods?watch=1", "watch v1 - pods -"),
        ("GET /api/v1/pods?watch", "watch v1 - pods -"),
        ("GET /api/v1/pods?watch=", "watch v1 - pods -"),
        ("GET /api/v1/pods?watch=0", "list v1 - pods -"),
        ("GET /api/v1/pods?watch=FALSE&watch=true", "list v1 - pods -"),
        ("GET /api/v1/pods?allowWatchBookmarks=true", "list v1 - pods -"),
        ("GET /api/v1/namespaces/shop/pods/web?watch=true", "get v1 shop pods web"),
        ("GET /api/v1/watch/pods", "watch v1 - pods -"),
        ("GET /api/v1/watch/namespaces/shop/pods/web", "watch v1 shop pods web"),
        ("GET /apis/apps/v1/watch/deployments", "watch apps/v1 - deployments -"),
    ]);
}

#[test]
fn names_in_field_selectors() {
    all(&[
        ("GET /api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dweb&watch=true", "watch v1 shop pods web"),
        ("GET /api/v1/pods?fieldSelector=metadata.name=web", "list v1 - pods web"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3D%3Dweb", "list v1 - pods web"),
        ("GET /api/v1/pods?fieldSelector=a%3Db%2Cmetadata.name%3Dweb", "list v1 - pods web"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%21%3Dweb", "list v1 - pods -"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3Dweb%2Cnonsense", "list v1 - pods -"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3Da%5C%2Cb", "list v1 - pods a,b"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3D..", "list v1 - pods -"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3Da%252Fb", "list v1 - pods -"),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list v1 - pods -"),
        ("DELETE /api/v1/pods?fieldSelector=metadata.name%3Dweb", "deletecollection v1 - pods -"),
    ]);
}

#[test]
fn namespaces_are_resources_too() {
    all(&[
        ("GET /api/v1/namespaces", "list v1 - namespaces -"),
        ("POST /api/v1/namespaces", "create v1 - namespaces -"),
        ("GET /api/v1/namespaces/shop", "get v1 shop namespaces shop"),
        ("DELETE /api/v1/namespaces/shop", "delete v1 shop namespaces shop"),
        ("PUT /api/v1/namespaces/shop/finalize", "update v1 shop namespaces/finalize shop"),
        ("GET /api/v1/namespaces/shop/status", "get v1 shop namespaces/status shop"),
        ("GET /api/v1/namespaces/shop/pods/", "list v1 shop pods -"),
        ("GET /apis/project.io/v1/namespaces/shop", "get project.io/v1 shop namespaces shop"),
    ]);
}

#[test]
fn the_old_proxy_verb() {
    all(&[
        ("GET /api/v1/proxy/namespaces/shop/services/web/a/b", "proxy v1 shop services web"),
        ("POST /api/v1/proxy/nodes/one/run", "proxy v1 - nodes one"),
        ("GET /api/v1/proxy", "get v1 -  -"),
    ]);
}

#[test]
fn what_is_no_resource() {
    all(&[
        ("GET /", "get /"),
        ("GET /version?timeout=32s", "get /version"),
        ("GET /api", "get /api"),
        ("GET /api/v1", "get /api/v1"),
        ("GET /apis", "get /apis"),
        ("GET /apis/apps", "get /apis/apps"),
        ("GET /apis/apps/v1", "get /apis/apps/v1"),
        ("GET /openapi/v3/apis/apps/v1?hash=A", "get /openapi/v3/apis/apps/v1"),
        ("GET /livez/ping", "get /livez/ping"),
        ("POST /apiserver/v1/pods", "post /apiserver/v1/pods"),
        ("GET /API/v1/pods", "get /API/v1/pods"),
    ]);
}

#[test]
fn encoded_paths_are_read_as_they_are_routed() {
    all(&[
        ("GET /api/v1/namespaces/shop/%70ods", "list v1 shop pods -"),
        ("GET /api/v1/namespaces%2Fshop/secrets", "list v1 shop secrets -"),
        ("GET //api/v1/pods", "list v1 - pods -"),
        ("GET /api//v1/pods", "get  - v1 pods"),
        ("GET /api/v1/namespaces/shop/pods/100%", "get v1 shop pods 100%"),
    ]);
}

#[test]
fn becomes_what_a_rule_is_asked() {
    let logs = RequestAttributes::from_http("GET", "/api/v1/namespaces/shop/pods/web/log", None);
    let what = logs.attributes();
    assert_eq!((what.verb, what.resource, what.subresource), ("get", "pods", Some("log")));
    assert_eq!((what.namespace, what.name, what.non_resource_path), (Some("shop"), Some("web"), None));
    let version = RequestAttributes::from_http("GET", "/version", None);
    assert_eq!(version.attributes().non_resource_path, Some("/version"));
}

proptest! {
    #[test]
    fn never_panics(method in "[A-Z]{0,7}", path in "(/|api|apis|v1|namespaces|watch|proxy|%2f|%|\\PC){0,12}", query in ".{0,40}") {
        let request = RequestAttributes::from_http(&method, &path, Some(&query));
        prop_assert!(request.is_resource || request.resource.is_empty());
        let selector = format!("fieldSelector={query}");
        let listed = RequestAttributes::from_http("GET", "/api/v1/pods", Some(&selector));
        prop_assert!(listed.name.is_none_or(|name| !name.is_empty() && !name.contains('/')));
    }
}

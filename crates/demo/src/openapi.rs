//! Just enough OpenAPI v3 for `kubectl explain` to say what a field of the demo's objects is. Pure.

use serde_json::{Map, Value, json};

use crate::kind::Kind;

/// `/openapi/v3`.
pub(crate) fn index() -> Value {
    json!({"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}})
}

/// `/openapi/v3/api/v1`.
pub(crate) fn core() -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    schemas.insert("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta".to_owned(), metadata());
    for kind in Kind::ALL {
        schemas.insert(format!("io.k8s.api.core.v1.{}", kind.name()), schema(kind));
        let (list, one) = if kind.namespaced() {
            (format!("/api/v1/namespaces/{{namespace}}/{}", kind.plural()), "namespaced")
        } else {
            (format!("/api/v1/{}", kind.plural()), "cluster-wide")
        };
        paths.insert(format!("{list}/{{name}}"), operation(kind, "get", one));
        paths.insert(list, operation(kind, "list", one));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Moorline demo", "version": crate::VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(kind: Kind, action: &str, scope: &str) -> Value {
    json!({"get": {
        "description": format!("{action} {scope} objects of kind {}", kind.name()),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": kind.name()},
        "responses": {"200": {"description": "OK"}},
    }})
}

fn schema(kind: Kind) -> Value {
    let describe = |text: &str| json!({"type": "string", "description": text});
    let object = |text: &str| json!({"type": "object", "description": text});
    let mut properties = json!({
        "apiVersion": describe("The version of the schema of this object."),
        "kind": describe("The kind of this object."),
        "metadata": {
            "description": "Name, namespace, labels and annotations.",
            "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],
        },
    });
    match kind {
        Kind::ConfigMap => properties["data"] = object("The texts of the map, by key."),
        Kind::Event => {
            properties["reason"] = describe("Why it happened, in one word.");
            properties["message"] = describe("What happened.");
            properties["involvedObject"] = object("What it happened to.");
        }
        Kind::Namespace | Kind::Node | Kind::Pod => {
            properties["spec"] = object("What is wanted.");
            properties["status"] = object("What is the case; made up by the demo.");
        }
    }
    json!({
        "description": format!("{} as the Moorline demo serves it; not the schema of a real cluster.", kind.name()),
        "type": "object",
        "properties": properties,
        "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": kind.name()}],
    })
}

fn metadata() -> Value {
    json!({
        "description": "What every object has.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Unique within kind and namespace."},
            "namespace": {"type": "string", "description": "The namespace of the object."},
            "uid": {"type": "string", "description": "Unique over time."},
            "resourceVersion": {"type": "string", "description": "Grows with each change."},
        },
    })
}

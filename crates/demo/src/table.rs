//! Lists as tables: the columns and cells that `kubectl get` prints. Pure.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{age, answer::Failure, kind::Kind, objects::parse_timestamp, query::Query};

/// How much of each object a table's rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        match query.first("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                Err(Failure::bad_request(format!("includeObject: {other:?} is not one of None, Metadata, Object")))
            }
        }
    }
}

/// A `Table` of `meta.k8s.io/v1`.
pub(crate) fn table(kind: Kind, objects: &[Arc<Value>], version: &str, include: Include, now: OffsetDateTime) -> Value {
    let columns: Vec<_> = columns(kind)
        .iter()
        .map(|(name, priority)| {
            json!({"name": name, "type": "string", "format": if *name == "Name" { "name" } else { "" },
                   "description": "", "priority": priority})
        })
        .collect();
    let rows: Vec<_> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": cells(kind, object, now)});
            match include {
                Include::Nothing => {}
                Include::Metadata => row["object"] = metadata_only(object),
                Include::Object => row["object"] = Value::clone(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
        "columnDefinitions": columns, "rows": rows,
    })
}

/// A `PartialObjectMetadata` of `meta.k8s.io/v1`.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// Column names, and 1 for those that only `-o wide` shows.
fn columns(kind: Kind) -> &'static [(&'static str, u8)] {
    match kind {
        Kind::ConfigMap => &[("Name", 0), ("Data", 0), ("Age", 0)],
        Kind::Event => {
            &[("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Source", 1), ("Message", 0), ("Name", 1)]
        }
        Kind::Namespace => &[("Name", 0), ("Status", 0), ("Age", 0)],
        Kind::Node => &[("Name", 0), ("Status", 0), ("Roles", 0), ("Age", 0), ("Version", 0), ("OS-Image", 1)],
        Kind::Pod => &[("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("Node", 1)],
    }
}

fn cells(kind: Kind, object: &Value, now: OffsetDateTime) -> Value {
    let name = &object["metadata"]["name"];
    let age = since(&object["metadata"]["creationTimestamp"], now);
    match kind {
        Kind::ConfigMap => json!([name, object["data"].as_object().map_or(0, serde_json::Map::len), age]),
        Kind::Event => {
            let about = &object["involvedObject"];
            let about = format!("pod/{}", about["name"].as_str().unwrap_or_default());
            let seen = since(&object["lastTimestamp"], now);
            json!([seen, object["type"], object["reason"], about, "moorline-demo", object["message"], name])
        }
        Kind::Namespace => json!([name, object["status"]["phase"], age]),
        Kind::Node => json!([name, "Ready", "<none>", age, crate::VERSION, "Moorline demo"]),
        Kind::Pod => {
            let container = &object["status"]["containerStatuses"][0];
            let ready = format!("{}/1", u8::from(container["ready"] == true));
            let state = &container["state"];
            let status = [&state["waiting"]["reason"], &state["terminated"]["reason"], &object["status"]["phase"]]
                .into_iter()
                .find(|text| text.is_string());
            json!([name, ready, status, container["restartCount"].to_string(), age, object["spec"]["nodeName"]])
        }
    }
}

fn since(moment: &Value, now: OffsetDateTime) -> String {
    parse_timestamp(moment).map_or_else(|| "<unknown>".to_owned(), |then| age::human((now - then).whole_seconds()))
}

//! Single objects and lists, in the form the client asked for.

use http::{HeaderMap, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    answer::{self, Body, Failure},
    kind::Kind,
    negotiate::{self, Form},
    query::Query,
    select::Selector,
    table::{self, Include},
    world::World,
};

/// One object.
pub(crate) fn object(
    world: &World,
    (kind, namespace, name): (Kind, &str, &str),
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let form = negotiate::form(headers)?;
    let include = Include::parse(query)?;
    let object = world
        .find(kind, namespace, name)
        .ok_or_else(|| Failure::not_found(format!("{} {name:?} not found", kind.plural())))?;
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Ok(answer::json(&match form {
        Form::Plain => Value::clone(&object),
        Form::Metadata => table::metadata_only(&object),
        Form::Table => table::table(kind, &[object], &version, include, OffsetDateTime::now_utc()),
    }))
}

/// All objects of a kind that the selectors want. `limit` is not honoured, as the API allows: there are few.
pub(crate) fn list(
    world: &World,
    (kind, namespace): (Kind, Option<&str>),
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let form = negotiate::form(headers)?;
    let include = Include::parse(query)?;
    let selector = Selector::parse(query)?;
    let (version, mut objects) = world.list(kind, namespace);
    objects.retain(|object| selector.wants(object));
    let version = version.to_string();
    Ok(answer::json(&match form {
        Form::Table => table::table(kind, &objects, &version, include, OffsetDateTime::now_utc()),
        Form::Plain => {
            let items: Vec<_> = objects.iter().map(|object| Value::clone(object)).collect();
            json!({"kind": format!("{}List", kind.name()), "apiVersion": "v1",
                   "metadata": {"resourceVersion": version}, "items": items})
        }
        Form::Metadata => {
            let items: Vec<_> = objects.iter().map(|object| table::metadata_only(object)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                   "metadata": {"resourceVersion": version}, "items": items})
        }
    }))
}

//! What all objects begin with: kind, name, labels.

use crate::yaml::Node;

/// The name of everything on the managed side, as long as nobody says otherwise.
pub(crate) const AGENT: &str = "moorline-agent";

/// A map in the order in which it is written.
macro_rules! map {
    ($($key:expr => $value:expr),* $(,)?) => {
        $crate::yaml::Node::Map(vec![$(($key.to_owned(), $crate::yaml::Node::from($value))),*])
    };
}

/// A list.
macro_rules! list {
    ($($value:expr),* $(,)?) => { $crate::yaml::Node::List(vec![$($crate::yaml::Node::from($value)),*]) };
}

pub(crate) use {list, map};

/// The labels of everything that belongs to the agent.
pub(crate) fn labels() -> Node {
    map! {
        "app.kubernetes.io/name" => AGENT,
        "app.kubernetes.io/component" => "agent",
        "app.kubernetes.io/part-of" => "moorline",
    }
}

/// An object, save what makes it different from others.
pub(crate) fn object(version: &str, kind: &str, name: &str, namespace: Option<&str>) -> Node {
    let mut metadata = map! { "name" => name };
    if let Some(namespace) = namespace {
        metadata.set("namespace", namespace.into());
    }
    metadata.set("labels", labels());
    map! { "apiVersion" => version, "kind" => kind, "metadata" => metadata }
}

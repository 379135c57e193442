//! The objects that the agent reads and writes by name, and their paths.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest name of an object.
const MAX_NAME: usize = 253;

/// A kind of object, as paths name it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    root: &'static str,
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
}

/// Secrets.
pub(crate) const SECRETS: &Kind = &Kind { root: "/api/v1", group: "", plural: "secrets" };

/// The resources that say where the management cluster is.
pub(crate) const CONNECTIONS: &Kind =
    &Kind { root: "/apis/moorline.io/v1alpha1", group: "moorline.io", plural: "managementclusterconnections" };

/// The name of an object or of a namespace: lower-case letters, digits, `-` and `.`, so that it is a path's segment
/// whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

/// A text that names no object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no name of an object: lower-case letters, digits, '-' and '.', at most {MAX_NAME}")]
pub(crate) struct InvalidName(String);

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<Name>,
    pub(crate) name: Name,
}

/// What the agent needs of an object's metadata. The rest is kept as it is, for objects that are written back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let good = bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.len() <= MAX_NAME;
        if good && bytes.iter().copied().all(inside) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

impl Name {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Kind {
    /// The `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> &'static str {
        self.root.strip_prefix("/apis/").or_else(|| self.root.strip_prefix("/api/")).unwrap_or(self.root)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Object {
    /// An object of the whole cluster.
    pub(crate) fn of_cluster(kind: &'static Kind, name: Name) -> Self {
        Self { kind, namespace: None, name }
    }

    /// An object of a namespace.
    pub(crate) fn of_namespace(kind: &'static Kind, namespace: Name, name: Name) -> Self {
        Self { kind, namespace: Some(namespace), name }
    }

    pub(super) fn collection(&self) -> String {
        let Kind { root, plural, .. } = self.kind;
        match &self.namespace {
            None => format!("{root}/{plural}"),
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    pub(super) fn status_path(&self) -> String {
        format!("{}/status", self.path())
    }

    pub(super) fn list_path(&self) -> String {
        format!("{}?fieldSelector=metadata.name%3D{}", self.collection(), self.name)
    }

    /// A version holds digits, and whatever else it holds is left out.
    pub(super) fn watch_path(&self, version: &str, span: Duration) -> String {
        let version: String = version.chars().filter(char::is_ascii_alphanumeric).collect();
        let span = span.as_secs();
        format!(
            "{}&watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={span}",
            self.list_path()
        )
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "{} {}", self.kind.plural, self.name),
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.plural, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_segments_of_paths() {
        for good in ["default", "a", "moorline-agent-certs", "a.b-c.9"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "..", ".", "a/b", "A", "a b", "-a", "a-", "a?x", "a%2fb", &"a".repeat(254)] {
            bad.parse::<Name>().unwrap_err();
        }
    }

    #[test]
    fn paths_are_kubernetes_own() {
        let connection = Object::of_cluster(CONNECTIONS, "default".parse().unwrap());
        let root = "/apis/moorline.io/v1alpha1/managementclusterconnections";
        assert_eq!(connection.path(), format!("{root}/default"));
        assert_eq!(connection.status_path(), format!("{root}/default/status"));
        let watch = connection.watch_path("12&x", Duration::from_secs(240));
        assert_eq!(
            watch,
            format!(
                "{root}?fieldSelector=metadata.name%3Ddefault&watch=true&allowWatchBookmarks=true&resourceVersion=12x\
                 &timeoutSeconds=240"
            )
        );
        let secret = Object::of_namespace(SECRETS, "moorline".parse().unwrap(), "certs".parse().unwrap());
        assert_eq!(secret.path(), "/api/v1/namespaces/moorline/secrets/certs");
        assert_eq!(secret.to_string(), "secrets moorline/certs");
    }
}

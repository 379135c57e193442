//! What a request to a kube-apiserver is about, read from its method and path as kube-apiserver reads it
//! (`RequestInfoFactory` in k8s.io/apiserver). For the audit log, for metrics, and for rules about requests.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::Attributes;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestAttributes {
    /// For resources `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` or `proxy`, and
    /// empty for a method that Kubernetes does not know; else the method in lower case.
    pub verb: String,
    /// The API group; empty for the core.
    pub api_group: String,
    /// The API version.
    pub api_version: String,
    /// The namespace; of a namespace, itself.
    pub namespace: Option<String>,
    /// The resource, in the plural.
    pub resource: String,
    /// The part of it, such as `log`.
    pub subresource: Option<String>,
    /// The name of the one object, also where a field selector asks for one.
    pub name: Option<String>,
    /// The path, decoded and without the query.
    pub path: String,
    /// Whether it is about a resource at all.
    pub is_resource: bool,
}

impl RequestAttributes {
    /// Reads a request. `path` is the path of the URL as it was sent, without a cluster's prefix; `query` what follows
    /// the `?`.
    #[must_use]
    pub fn from_http(method: &str, path: &str, query: Option<&str>) -> Self {
        let path = percent_decode_str(path).decode_utf8_lossy();
        let mut request =
            Self { verb: method.to_ascii_lowercase(), path: path.clone().into_owned(), ..Self::default() };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, parts) = match parts.as_slice() {
            ["api", version, parts @ ..] if !parts.is_empty() => ("", version, parts),
            ["apis", group, version, parts @ ..] if !parts.is_empty() => (*group, version, parts),
            _ => return request,
        };
        request.is_resource = true;
        request.api_group = group.to_owned();
        request.api_version = (*version).to_owned();
        let parts = match parts {
            [verb @ ("proxy" | "watch"), parts @ ..] => {
                if parts.is_empty() {
                    return request;
                }
                request.verb = (*verb).to_owned();
                parts
            }
            _ => {
                request.verb = verb(method).to_owned();
                parts
            }
        };
        request.read_object(parts);
        request.refine_verb(query);
        request
    }

    /// What a rule is asked about this request.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'_> {
        if !self.is_resource {
            return Attributes { verb: &self.verb, non_resource_path: Some(&self.path), ..Attributes::default() };
        }
        Attributes {
            verb: &self.verb,
            api_group: &self.api_group,
            resource: &self.resource,
            subresource: self.subresource.as_deref(),
            namespace: self.namespace.as_deref(),
            name: self.name.as_deref(),
            non_resource_path: None,
        }
    }

    fn read_object(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = some(namespace);
                match rest {
                    [] | ["finalize" | "status", ..] => parts,
                    [..] => rest,
                }
            }
            _ => parts,
        };
        let mut parts = parts.iter();
        self.resource = parts.next().copied().unwrap_or_default().to_owned();
        self.name = parts.next().and_then(some);
        if self.verb != "proxy" {
            self.subresource = parts.next().and_then(some);
        }
    }

    /// Without a name, a get is a list or a watch, and a delete is of the whole collection.
    fn refine_verb(&mut self, query: Option<&str>) {
        if self.name.is_some() {
            return;
        }
        if self.verb == "delete" {
            "deletecollection".clone_into(&mut self.verb);
        }
        if self.verb == "get" {
            let watch = parameter(query, "watch")
                .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"));
            self.verb = if watch { "watch" } else { "list" }.to_owned();
            self.name = parameter(query, "fieldSelector").and_then(|selector| selected_name(&selector));
        }
    }
}

fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn some(part: &&str) -> Option<String> {
    (!part.is_empty()).then(|| (*part).to_owned())
}

/// The first value of a query parameter.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

/// The one name that a field selector asks for by `metadata.name=NAME`, if it does and could be in a path.
fn selected_name(selector: &str) -> Option<String> {
    let mut name = None;
    for term in terms(selector).filter(|term| !term.is_empty()) {
        let (field, value) = equality(term)?;
        if let (None, "metadata.name", Some(value)) = (&name, field, value) {
            name = Some(value);
        }
    }
    name.filter(|name| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '%']))
}

/// A selector at its commas, save those behind a backslash.
fn terms(selector: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    selector.split(move |character| {
        let separates = character == ',' && !escaped;
        escaped = character == '\\' && !escaped;
        separates
    })
}

/// The field of a term and, if it is an equality, its value. None where the term is not one.
fn equality(term: &str) -> Option<(&str, Option<String>)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at_checked(at)?;
    if rest.starts_with("!=") {
        return Some((field, None));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, Some(unescape(value)?)))
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            _ => plain.push(character),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests;

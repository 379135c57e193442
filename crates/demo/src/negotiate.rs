//! Which form of an answer the client asked for by `Accept`. Pure.

use http::{HeaderMap, header};

use crate::answer::Failure;

/// The form of an object or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Plain,
    /// Rows and columns, as `kubectl get` asks for.
    Table,
    /// Only `metadata`.
    Metadata,
}

/// The form of a discovery document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// One document for each group and version.
    Plain,
    /// Everything in one document, with the version of its format.
    Aggregated(&'static str),
}

/// Takes the first acceptable alternative, as a kube-apiserver does.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    first(headers, |parameters| {
        let is_meta = parameters.get("g").is_none_or(|group| group == "meta.k8s.io");
        match parameters.get("as") {
            None => Some(Form::Plain),
            Some("Table") if is_meta => Some(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_meta => Some(Form::Metadata),
            Some(_unknown) => None,
        }
    })
}

/// As [`form`], for discovery documents.
pub(crate) fn discovery(headers: &HeaderMap) -> Result<Discovery, Failure> {
    first(headers, |parameters| match (parameters.get("as"), parameters.get("g"), parameters.get("v")) {
        (None, ..) => Some(Discovery::Plain),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Discovery::Aggregated("v2")),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
            Some(Discovery::Aggregated("v2beta1"))
        }
        _unknown => None,
    })
}

struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

fn first<T>(headers: &HeaderMap, choose: impl Fn(&Parameters<'_>) -> Option<T>) -> Result<T, Failure> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none() {
        return choose(&Parameters(Vec::new())).ok_or_else(Failure::not_acceptable);
    }
    for alternative in accepted.flat_map(|value| value.split(',')) {
        let mut parts = alternative.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        if let Some(chosen) = choose(&Parameters(parts.filter_map(|part| part.split_once('=')).collect())) {
            return Ok(chosen);
        }
    }
    Err(Failure::not_acceptable())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_first_acceptable_form_wins() {
        for (value, wanted) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Ok(Form::Table)),
            ("application/json", Ok(Form::Plain)),
            ("application/vnd.kubernetes.protobuf,application/json", Ok(Form::Plain)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok(Form::Metadata)),
            ("application/json;as=Riddle;g=meta.k8s.io;v=v1,*/*", Ok(Form::Plain)),
            ("*/*", Ok(Form::Plain)),
            ("application/yaml", Err(406)),
        ] {
            assert_eq!(form(&accept(value)).map_err(|failure| failure.code.as_u16()), wanted, "{value}");
        }
        assert_eq!(form(&HeaderMap::new()), Ok(Form::Plain));
    }

    #[test]
    fn discovery_is_aggregated_when_asked_for() {
        for (value, wanted) in [
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", "v2"),
            ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "v2beta1"),
        ] {
            assert_eq!(discovery(&accept(value)), Ok(Discovery::Aggregated(wanted)));
        }
        assert_eq!(discovery(&accept("application/json")), Ok(Discovery::Plain));
    }
}

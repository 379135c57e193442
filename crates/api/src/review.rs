//! A question to the server's authorizer, and its answer.

use serde::{Deserialize, Serialize};

/// May the caller do this? Answered for whom they act as where they send `Impersonate-*` headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessQuestion {
    /// `get`, `list`, `create`, `impersonate`, …
    pub verb: String,
    /// The resource, in the plural; empty where [`AccessQuestion::path`] is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// The API group; where it is left out, the one in which the server knows that resource, else Kubernetes' core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// A part of the resource, such as `scopes` of `userextras`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// One object; left out, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A path that is no resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The answer to an [`AccessQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessAnswer {
    /// Whether it may be done.
    pub allowed: bool,
    /// By which rule; none where no rule allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who was asked about.
    pub user: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// The API group that was asked about; empty for Kubernetes' core.
    pub group: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_is_left_out() {
        let question = AccessQuestion {
            verb: "get".to_owned(),
            resource: "managedclusters".to_owned(),
            name: Some("east".to_owned()),
            ..AccessQuestion::default()
        };
        let expected = serde_json::json!({"verb": "get", "resource": "managedclusters", "name": "east"});
        assert_eq!(serde_json::to_value(question).unwrap(), expected);
        assert!(serde_json::from_str::<AccessQuestion>(r#"{"verb": "get", "resourc": "x"}"#).is_err());
    }
}

//! Users of the table of static tokens, and the one answer that holds a token.

use serde::{Deserialize, Serialize};

use crate::{API_VERSION, ListMeta, Secret};

/// A user, as one of their tokens stands for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `User`.
    pub kind: String,
    /// The name.
    pub metadata: UserMeta,
    /// What else the server knows of them.
    pub spec: UserSpec,
}

/// The metadata of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMeta {
    /// The name of the user: any text that may be one in Kubernetes. Two users of a list have the same where somebody
    /// has two tokens.
    pub name: String,
}

/// What is known of a user besides the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserSpec {
    /// Their uid, if they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Their groups, besides `system:authenticated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Which token: the first twelve digits of its SHA-256.
    pub token_id: String,
}

impl User {
    /// A user of this name.
    #[must_use]
    pub fn new(name: impl Into<String>, spec: UserSpec) -> Self {
        let metadata = UserMeta { name: name.into() };
        Self { api_version: API_VERSION.to_owned(), kind: "User".to_owned(), metadata, spec }
    }
}

/// All users of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserList {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `UserList`.
    pub kind: String,
    /// Empty; there because Kubernetes' lists have it.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The users, by name.
    pub items: Vec<User>,
}

impl UserList {
    /// A list of these users.
    #[must_use]
    pub fn new(items: Vec<User>) -> Self {
        let (api_version, kind) = (API_VERSION.to_owned(), "UserList".to_owned());
        Self { api_version, kind, metadata: ListMeta::default(), items }
    }
}

/// Asks for a new user. Unknown fields are refused: what is misspelt would silently not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The name.
    pub name: String,
    /// The uid, if they are to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Their groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// The new user, and their token. Given once: the server keeps its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedUser {
    /// The user.
    pub user: User,
    /// By what they log in.
    pub token: Secret,
}

/// The users whose tokens were taken out of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedUser {
    /// The name of the user.
    pub name: String,
    /// Which tokens.
    pub token_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_user_has_kubernetes_shape_and_the_token_does_not_print() {
        let spec = UserSpec { uid: None, groups: vec!["dev".to_owned()], token_id: "0123456789ab".to_owned() };
        let created = CreatedUser { user: User::new("ann", spec), token: Zeroizing::new("secret".to_owned()).into() };
        let json = serde_json::to_value(&created).unwrap();
        let expected = serde_json::json!({
            "user": {
                "apiVersion": "moorline.io/v1alpha1",
                "kind": "User",
                "metadata": {"name": "ann"},
                "spec": {"groups": ["dev"], "tokenId": "0123456789ab"},
            },
            "token": "secret",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<CreatedUser>(json).unwrap(), created);
        assert!(!format!("{created:?}").contains("secret"));
        assert!(serde_json::from_str::<CreateUser>(r#"{"name": "ann", "group": "x"}"#).is_err());
    }
}

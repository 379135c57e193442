//! The name of a cluster: a DNS-1123 label, as Kubernetes defines it for object names that become host names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a cluster: 1 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit.
///
/// Such a name can stand in a path segment, a header, a file name, a certificate and a Kubernetes object without any
/// quoting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The name under which the management cluster itself is reached; no managed cluster may take it.
    pub const MANAGEMENT: &'static str = "management";

    /// The longest name allowed, in bytes (RFC 1123 label).
    pub const MAX_LENGTH: usize = 63;

    /// Whether this is a name that no managed cluster may take.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0 == Self::MANAGEMENT
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a cluster name. The message says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidClusterName {
    /// The text was empty.
    #[error("a cluster name must not be empty; {ALLOWED}")]
    Empty,
    /// The text was longer than a DNS label may be.
    #[error("a cluster name may have at most 63 characters, this one has {length}; {ALLOWED}")]
    TooLong {
        /// How many characters it had.
        length: usize,
    },
    /// A character that no DNS label may hold.
    #[error("a cluster name must not contain {character:?}; {ALLOWED}")]
    Character {
        /// The first such character.
        character: char,
    },
    /// The first or the last character was a hyphen.
    #[error("a cluster name must begin and end with a letter or digit; {ALLOWED}")]
    Edge,
}

const ALLOWED: &str = "use 1 to 63 lower-case letters, digits and '-'";

fn check(text: &str) -> Result<(), InvalidClusterName> {
    if text.is_empty() {
        return Err(InvalidClusterName::Empty);
    }
    if let Some(character) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(InvalidClusterName::Character { character });
    }
    if text.len() > ClusterName::MAX_LENGTH {
        return Err(InvalidClusterName::TooLong { length: text.len() });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidClusterName::Edge);
    }
    Ok(())
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidClusterName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        check(&text)?;
        Ok(Self(text))
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl AsRef<str> for ClusterName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_dns_labels_only() {
        for good in ["a", "0", "east-1", "management", &"x".repeat(63)] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        let bad: [(&str, InvalidClusterName); 9] = [
            ("", InvalidClusterName::Empty),
            (&"x".repeat(64), InvalidClusterName::TooLong { length: 64 }),
            ("East", InvalidClusterName::Character { character: 'E' }),
            ("a.b", InvalidClusterName::Character { character: '.' }),
            ("a/b", InvalidClusterName::Character { character: '/' }),
            ("a\n", InvalidClusterName::Character { character: '\n' }),
            ("ä", InvalidClusterName::Character { character: 'ä' }),
            ("-a", InvalidClusterName::Edge),
            ("a-", InvalidClusterName::Edge),
        ];
        for (text, why) in bad {
            assert_eq!(text.parse::<ClusterName>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn serde_goes_through_the_same_check() {
        let name: ClusterName = serde_json::from_str("\"east\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"east\"");
        let error = serde_json::from_str::<ClusterName>("\"East\"").unwrap_err().to_string();
        assert!(error.contains("lower-case"), "{error}");
    }

    #[test]
    fn knows_the_reserved_name() {
        assert!("management".parse::<ClusterName>().unwrap().is_reserved());
        assert!(!"managed".parse::<ClusterName>().unwrap().is_reserved());
    }
}

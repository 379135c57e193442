//! Kubernetes' grammar of labels, checked before a record takes them, so that a selector can name every one.

use std::collections::BTreeMap;

use thiserror::Error;

/// Why a set of labels was refused. The message names the key and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidLabels {
    /// More labels than a record may carry.
    #[error("a cluster may have at most {MAX_LABELS} labels, not {count}")]
    TooMany {
        /// How many there were.
        count: usize,
    },
    /// A key that Kubernetes would not take.
    #[error(
        "label key {key:?}: use an optional DNS name of at most 253 characters and '/', then 1 to 63 letters, digits, \
         '-', '_', '.', beginning and ending with a letter or digit"
    )]
    Key {
        /// The key.
        key: String,
    },
    /// A value that Kubernetes would not take.
    #[error(
        "label {key}={value:?}: a value is empty or 1 to 63 letters, digits, '-', '_', '.', beginning and ending with \
         a letter or digit"
    )]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

/// Labels on one cluster; Kubernetes bounds them by bytes only, a record must also stay small enough to list.
const MAX_LABELS: usize = 64;

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;

/// Checks labels by Kubernetes' rules ("Labels and Selectors: syntax and character set").
///
/// # Errors
/// The first label that breaks a rule.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), InvalidLabels> {
    if labels.len() > MAX_LABELS {
        return Err(InvalidLabels::TooMany { count: labels.len() });
    }
    for (key, value) in labels {
        if !is_key(key) {
            return Err(InvalidLabels::Key { key: key.clone() });
        }
        if !value.is_empty() && !is_name(value) {
            return Err(InvalidLabels::Value { key: key.clone(), value: value.clone() });
        }
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_dns_name(text: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= MAX_PREFIX && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str) -> Result<(), InvalidLabels> {
        check_labels(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn follows_kubernetes() {
        for (key, value) in [("zone", ""), ("a", "B_c.d-1"), ("example.com/Zone_1", "x"), (&"k".repeat(63), "v")] {
            assert_eq!(check(key, value), Ok(()), "{key}={value}");
        }
        for key in ["", "/a", "a/", "-a", "a-", "a b", "A.com/x", "a..b/x", "a/b/c", &"k".repeat(64), "ä"] {
            assert!(matches!(check(key, "v"), Err(InvalidLabels::Key { .. })), "{key}");
        }
        for value in ["-", "a b", "a/b", &"v".repeat(64), "\n"] {
            assert!(matches!(check("k", value), Err(InvalidLabels::Value { .. })), "{value}");
        }
    }
}

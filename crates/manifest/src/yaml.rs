//! YAML as it stands in a file: every value and the order of every map kept, whether we know the field or not.
//!
//! Manifests are made of it, and the command line reads and writes kubeconfigs with it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};
use thiserror::Error as ThisError;

/// A YAML value.
#[derive(Clone, Default, PartialEq)]
pub enum Node {
    /// `null`, or nothing.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// One that is too large for [`Node::Integer`].
    Large(u64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Self>),
    /// Keys and values, in the order of the file.
    Map(Vec<(String, Self)>),
}

/// The text is not YAML, or cannot be written back as it was. Says where, never what stands there.
#[derive(Debug, PartialEq, Eq, ThisError)]
#[error("{0}")]
pub struct InvalidYaml(String);

impl Node {
    /// Reads one document; an empty text is an empty map.
    ///
    /// # Errors
    /// It is no YAML.
    pub fn parse(yaml: &str) -> Result<Self, InvalidYaml> {
        // Only `true` and `false` are booleans, as for kubectl. No snippet: there are secrets in these files.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let node: Self = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
            let at = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
            InvalidYaml(format!("{}not valid YAML", at.unwrap_or_default()))
        })?;
        Ok(if node == Self::Null { Self::Map(Vec::new()) } else { node })
    }

    /// Writes the node, and makes sure that reading it gives the same again.
    ///
    /// # Errors
    /// It does not.
    pub fn to_yaml(&self) -> Result<String, InvalidYaml> {
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let yaml = serde_saphyr::to_string_with_options(self, options)
            .map_err(|error| InvalidYaml(format!("cannot be written as YAML: {error}")))?;
        if Self::parse(&yaml)? != *self {
            return Err(InvalidYaml("holds a value that would not survive being written again".to_owned()));
        }
        Ok(yaml)
    }

    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A map with these entries.
    #[must_use]
    pub fn map<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The text, when this is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The value at `key`, when this is a map that has it.
    #[must_use]
    pub fn at(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value at `key`, made if need be. `None` when this is not a map.
    pub fn entry(&mut self, key: &str) -> Option<&mut Self> {
        if *self == Self::Null {
            *self = Self::Map(Vec::new());
        }
        let Self::Map(entries) = self else { return None };
        let index = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.to_owned(), Self::Null));
            entries.len() - 1
        });
        entries.get_mut(index).map(|(_, value)| value)
    }

    /// Sets or replaces the value at `key`, in its place. False when this is not a map.
    pub fn set(&mut self, key: &str, value: Self) -> bool {
        self.entry(key).map(|place| *place = value).is_some()
    }

    /// Takes the value at `key` out, where there is one.
    pub fn remove(&mut self, key: &str) {
        if let Self::Map(entries) = self {
            entries.retain(|(name, _)| name != key);
        }
    }
}

impl From<bool> for Node {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for Node {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u16> for Node {
    fn from(value: u16) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Node {
    fn from(list: Vec<T>) -> Self {
        Self::List(list.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>> From<BTreeMap<String, T>> for Node {
    fn from(map: BTreeMap<String, T>) -> Self {
        Self::Map(map.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}

// Values may be secrets: the kind is all that is shown.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Bool(_) => "Bool",
            Self::Integer(_) | Self::Large(_) => "Integer",
            Self::Float(_) => "Float",
            Self::Text(_) => "Text",
            Self::List(_) => "List",
            Self::Map(_) => "Map",
        })
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Large(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => {
                let mut items = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| items.serialize_element(item))?;
                items.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML value")
            }

            fn visit_unit<E: Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_none<E: Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
                Ok(i64::try_from(value).map_or(Node::Large(value), Node::Integer))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Float(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
                Ok(Node::text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        let yaml = "b: 1\na: \"yes\"\nlist:\n- x\n- {z: null, y: true}\ntext: \"0123\"\nempty: {}\nnone: []\nlong: \"18446744073709551615\"\nline: \"a\\nb\"\n";
        let node = Node::parse(yaml).unwrap();
        assert_eq!(node.at("a"), Some(&Node::text("yes")));
        let again = node.to_yaml().unwrap();
        assert_eq!(Node::parse(&again).unwrap(), node);
        assert!(again.starts_with("b: 1\na: "), "{again}");
    }

    #[test]
    fn long_texts_stay_on_one_line() {
        let long = "QUJD".repeat(500);
        let yaml = Node::map([("certificate-authority-data", Node::text(&long))]).to_yaml().unwrap();
        assert_eq!(yaml, format!("certificate-authority-data: {long}\n"));
    }

    #[test]
    fn what_is_wrong_is_located_and_not_shown() {
        let error = Node::parse("users:\n- token: hunter2\n  - broken").unwrap_err().to_string();
        assert!(error.starts_with("line ") && !error.contains("hunter2"), "{error}");
    }
}

//! Reads the fields of a document one by one, so that every fault of a file is reported and not only the first.
//! Called by `document`.

use serde_json::{Map, Value};

use super::Found;

/// One object within a document, with its place in the file.
pub(super) struct Object<'a> {
    at: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Takes a value for an object and reports fields that are not `known`.
    pub(super) fn read(at: &str, value: &'a Value, known: &[&str], found: &mut Found) -> Option<Self> {
        let Some(fields) = value.as_object() else {
            found.add(at, "not an object", "write `field: value` lines");
            return None;
        };
        let object = Self { at: at.to_owned(), fields };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            found.add(object.at(name), "unknown field", format!("use one of {}", known.join(", ")));
        }
        Some(object)
    }

    /// The place of a field.
    pub(super) fn at(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// A field; null is as good as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// An object within.
    pub(super) fn object(&self, name: &str, known: &[&str], found: &mut Found) -> Option<Self> {
        Self::read(&self.at(name), self.get(name)?, known, found)
    }

    /// A text that may be absent.
    pub(super) fn text(&self, name: &str, found: &mut Found) -> Option<&'a str> {
        let value = self.get(name)?;
        if !value.is_string() {
            found.add(self.at(name), "not a text", "put it into quotes");
        }
        value.as_str()
    }

    /// A text that must be there and not be empty.
    pub(super) fn required(&self, name: &str, found: &mut Found) -> Option<&'a str> {
        match (self.get(name).is_some(), self.text(name, found)) {
            (true, None) => None,
            (_, Some(text)) if !text.is_empty() => Some(text),
            _missing => {
                found.add(self.at(name), "missing or empty", "add it");
                None
            }
        }
    }

    /// The elements of a list that may be absent, each with its place.
    pub(super) fn list(&self, name: &str, found: &mut Found) -> Vec<(String, &'a Value)> {
        let at = self.at(name);
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                values.iter().enumerate().map(|(index, value)| (format!("{at}[{index}]"), value)).collect()
            }
            Some(_other) => {
                found.add(at, "not a list", "write [one, two] or lines beginning with '-'");
                Vec::new()
            }
        }
    }

    /// Refuses an expression.
    pub(super) fn no_expression(&self, name: &str, instead: &str, found: &mut Found) {
        if self.get(name).is_some() {
            found.add(self.at(name), "expressions (CEL) are not supported", instead);
        }
    }
}

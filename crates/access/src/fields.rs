//! Reads the fields of a document one by one, so that every fault of a file is reported and not only the first.
//!
//! For the policy here and for other configuration in the grammar of Kubernetes, whose faults must be found as strictly.

use serde_json::{Map, Value};

use crate::Found;

/// One object within a document, with its place in the file.
#[derive(Debug)]
pub struct Object<'a> {
    at: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Takes a value for an object and reports fields that are not `known`.
    pub fn read(at: String, value: &'a Value, known: &[&str], found: &mut Found) -> Option<Self> {
        let object = Self::open(at, value, found)?;
        for name in object.fields.keys().filter(|name| !known.contains(&name.as_str())) {
            found.add(object.at(name), "unknown field", format!("use one of {}", known.join(", ")));
        }
        Some(object)
    }

    /// Takes a value for an object of which some fields only are looked at.
    pub fn open(at: String, value: &'a Value, found: &mut Found) -> Option<Self> {
        match value.as_object() {
            Some(fields) => Some(Self { at, fields }),
            None => {
                found.add(at, format!("{}, not an object", kind(value)), "write `field: value` lines");
                None
            }
        }
    }

    /// The place of a field.
    #[must_use]
    pub fn at(&self, name: &str) -> String {
        let separator = if self.at.ends_with(')') { ", " } else { "." };
        format!("{}{separator}{name}", self.at)
    }

    /// A field that must be there.
    pub fn required(&self, name: &str, found: &mut Found) -> Option<&'a Value> {
        let value = self.optional(name);
        if value.is_none() {
            found.add(self.at(name), "missing", "add it");
        }
        value
    }

    /// A field that may be absent, or null, which is the same.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A text that must be there and not be empty.
    pub fn text(&self, name: &str, found: &mut Found) -> Option<&'a str> {
        let text = string(self.at(name), self.required(name, found)?, found)?;
        if text.is_empty() {
            found.add(self.at(name), "empty", "write a name");
            return None;
        }
        Some(text)
    }

    /// A text that must be there and be one of these.
    pub fn one_of(&self, name: &str, allowed: &[&str], found: &mut Found) -> Option<&'a str> {
        let text = string(self.at(name), self.required(name, found)?, found)?;
        if !allowed.contains(&text) {
            let allowed: Vec<String> = allowed.iter().map(|word| format!("{word:?}")).collect();
            found.add(self.at(name), format!("{text:?}"), format!("write {}", allowed.join(" or ")));
            return None;
        }
        Some(text)
    }

    /// The elements of a list that may be absent, each with its place.
    pub fn list(&self, name: &str, found: &mut Found) -> Vec<(String, &'a Value)> {
        let at = self.at(name);
        match self.optional(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                values.iter().enumerate().map(|(index, value)| (format!("{at}[{index}]"), value)).collect()
            }
            Some(value) => {
                found.add(at, format!("{}, not a list", kind(value)), "write [one, two] or lines beginning with '-'");
                Vec::new()
            }
        }
    }

    /// A list of texts that may be absent.
    pub fn texts(&self, name: &str, found: &mut Found) -> Vec<String> {
        let list = self.list(name, found);
        list.into_iter().filter_map(|(at, value)| string(at, value, found).map(str::to_owned)).collect()
    }
}

fn string<'a>(at: String, value: &'a Value, found: &mut Found) -> Option<&'a str> {
    let text = value.as_str();
    if text.is_none() {
        found.add(at, format!("{}, not a text", kind(value)), "put it into quotes");
    }
    text
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

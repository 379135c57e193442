//! One thing that is wrong with what somebody typed.

use std::fmt;

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flag.
    pub field: &'static str,
    /// What is wrong with it, with the value unless that is secret.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(field: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.what, self.remedy)
    }
}

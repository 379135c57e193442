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

    /// One more, unless Kubernetes takes the text as the name of a namespace or a Secret.
    pub(crate) fn unless_a_name(field: &'static str, text: &str, problems: &mut Vec<Self>) {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > 63 || !text.chars().all(good) || text.starts_with('-') || text.ends_with('-')
        {
            let what = format!("{text:?} is no name of Kubernetes");
            problems.push(Self::new(field, what, "use up to 63 lower-case letters, digits and - between them"));
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.what, self.remedy)
    }
}

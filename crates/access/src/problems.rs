//! Everything that is wrong with a file, reported together: where, what, and what to do. Never a secret.

use std::fmt;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a line, or a document and the path of a field.
    pub at: String,
    /// What is wrong, with the value unless it is secret.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.at, self.what, self.remedy)
    }
}

/// All that is wrong with a file; at least one [`Problem`]. Displayed one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Problems as they are found.
#[derive(Debug, Default)]
pub struct Found(Vec<Problem>);

/// Problems kept of one file; a file of another kind altogether should not fill the screen.
const MAX_PROBLEMS: usize = 100;

impl Found {
    /// Notes one more; beyond the first hundred they are left out.
    pub fn add(&mut self, at: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(Problem { at: at.into(), what: what.into(), remedy: remedy.into() });
        }
    }

    /// The value, if nothing was found.
    ///
    /// # Errors
    /// All that was found.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() { Ok(value) } else { Err(Problems(self.0)) }
    }
}

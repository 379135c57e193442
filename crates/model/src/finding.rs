//! What a check found out: the answer of `doctor`, on both sides of the tunnel.
//!
//! Made by the agent's doctor and by the server's, shown by the programs and the command line as text, JSON or YAML.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a check went. Ordered by gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not looked at, since it does not apply here or something before it failed.
    Skipped,
    /// Works, and will not for ever or not for everything.
    Warn,
    /// Does not work.
    Fail,
}

/// What one check found out. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in kebab-case: `dns`, `certificate-expiry`. Stays the same between releases.
    pub check: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen.
    pub message: String,
    /// What to do about it; empty where there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// All that a doctor found out, in the order in which it looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The word as it is printed and serialised.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skipped => "SKIPPED",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, message, "")
    }

    /// Not looked at, and why.
    #[must_use]
    pub fn skipped(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, message, "")
    }

    /// Works for now.
    #[must_use]
    pub fn warn(check: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, message, remedy)
    }

    /// Does not work.
    #[must_use]
    pub fn fail(check: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, message, remedy)
    }

    fn new(check: impl Into<String>, verdict: Verdict, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), verdict, message: message.into(), remedy: remedy.into() }
    }
}

impl Report {
    /// Whether any check failed: the exit code of a doctor is 1 then.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Report {
    /// A line for each finding, its remedy on the next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, verdict, message, remedy } in &self.findings {
            writeln!(f, "{verdict:<7}  {check:<widest$}  {}", Line(message))?;
            if !remedy.is_empty() {
                writeln!(f, "{:<7}  {:<widest$}  remedy: {}", "", "", Line(remedy))?;
            }
        }
        Ok(())
    }
}

/// Text that stays on its line, whatever a peer put into it.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                None => f.write_str(part)?,
                Some(control) => {
                    f.write_str(part.strip_suffix(control).unwrap_or(part))?;
                    write!(f, "{}", control.escape_debug())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well_and_stays_in_its_lines() {
        let report = Report {
            findings: vec![
                Finding::ok("dns", "hub.example.com has 2 addresses"),
                Finding::fail("server-name", "it is for:\nother", "check the address"),
            ],
        };
        let text = report.to_string();
        assert_eq!(
            text,
            "OK       dns          hub.example.com has 2 addresses\n\
             FAIL     server-name  it is for:\\nother\n\
             \x20                     remedy: check the address\n"
        );
        assert!(report.failed());
        assert!(!Report { findings: vec![Finding::warn("a", "b", "c"), Finding::skipped("d", "e")] }.failed());
    }

    #[test]
    fn the_shape_is_fixed() {
        let report = Report { findings: vec![Finding::ok("dns", "fine")] };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json, r#"{"findings":[{"check":"dns","verdict":"OK","message":"fine"}]}"#);
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}

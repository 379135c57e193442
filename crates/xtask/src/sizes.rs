//! File sizes: near 150 lines by habit, 600 at most without the tests at the end of the file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::{Metadata, tracked_files};

const LIMIT: usize = 600;

/// Names that say nothing about what a module is for.
const EMPTY_NAMES: &[&str] = &["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "mod.rs", "misc.rs"];

/// Fails naming every source file that is too long, namelessly named, or without its opening `//!`.
pub(crate) fn run() -> Result<()> {
    let root = Metadata::read()?.workspace_root;
    let mut wrong = Vec::new();
    for path in tracked_files(&root)? {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        wrong.extend(complaints(&path, &text));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("source files that break the small laws:\n  {}", wrong.join("\n  "))
}

fn complaints(path: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if lines > LIMIT {
        complaints.push(format!("{}: {lines} lines before its tests, {LIMIT} at most", path.display()));
    }
    if path.file_name().is_some_and(|name| EMPTY_NAMES.iter().any(|empty| name == *empty)) {
        complaints.push(format!("{}: a name that says what it is for, please", path.display()));
    }
    if !text.trim_start().starts_with("//!") && !text.trim_start().starts_with("#![") {
        complaints.push(format!("{}: no //! that says what it does", path.display()));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::complaints;

    #[test]
    fn long_nameless_and_undocumented_files_are_named() {
        let long = "//! Doc.\n".to_owned() + &"x\n".repeat(700);
        assert_eq!(complaints(Path::new("a/b.rs"), &long).len(), 1);
        assert_eq!(complaints(Path::new("a/utils.rs"), "//! Doc.\n").len(), 1);
        assert_eq!(complaints(Path::new("a/b.rs"), "fn main() {}\n").len(), 1);
        assert!(complaints(Path::new("a/b.rs"), "//! Doc.\n").is_empty());
    }

    #[test]
    fn tests_at_the_end_do_not_count() {
        let text = "//! Doc.\n#[cfg(test)]\n".to_owned() + &"x\n".repeat(700);
        assert!(complaints(Path::new("a/b.rs"), &text).is_empty());
    }
}

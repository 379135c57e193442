//! Holds `tests/FAULTS.md` against the sources: every fault has a test where the table says, every such test a row.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where tests are, from the root of the repository.
const SOURCES: &[&str] = &["crates", "tests"];

/// A fault's number and a file with a test of it.
type Found = (String, PathBuf);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What the table says.
fn table() -> BTreeSet<Found> {
    let text = std::fs::read_to_string(root().join("tests/FAULTS.md")).unwrap();
    let mut listed = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with("| F")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let number = format!("{:0>2}", cells[0].trim_start_matches('F'));
        let files = cells.last().unwrap().split(',').map(|file| PathBuf::from(file.trim().trim_matches('`')));
        listed.extend(files.map(|file| (number.clone(), file)));
    }
    listed
}

/// What the sources have: the numbers at the beginning of the names of functions.
fn sources(directory: &Path, found: &mut BTreeSet<Found>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names =
                text.lines().filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "));
            for number in names.flat_map(numbers) {
                found.insert((number.to_owned(), path.strip_prefix(root()).unwrap().to_owned()));
            }
        }
    }
}

/// `03` and `40` of `f03_f40_and_so_on`.
fn numbers(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').map_while(|part| part.strip_prefix('f').filter(|rest| is_number(rest)))
}

fn is_number(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn the_table_of_faults_is_true() {
    let mut found = BTreeSet::new();
    for directory in SOURCES {
        sources(&root().join(directory), &mut found);
    }
    let listed = table();
    assert!(listed.len() > 30, "{listed:?}");
    let untrue: Vec<_> = listed.difference(&found).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(untrue.is_empty() && missing.is_empty(), "listed, not there: {untrue:?}; there, not listed: {missing:?}");
}

//! Durability: what was acknowledged before a SIGKILL in the middle of writing is there afterwards, and whole.
//!
//! The test runs itself as the victim: the same binary, told by an environment variable to write until it dies.

#![expect(clippy::unwrap_used, reason = "a test and its victim")]

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use moorline_model::{ActiveFingerprint, ClusterRecord, ClusterUid, Dialect, Fingerprint, Timestamp};
use moorline_store::Embedded;

const VICTIM: &str = "MOORLINE_STORE_TEST_VICTIM";
const ROUNDS: u32 = 20;

fn record(round: u32, serial: u32) -> ClusterRecord {
    let mut fingerprint = [0; 32];
    fingerprint[..4].copy_from_slice(&round.to_be_bytes());
    fingerprint[4..8].copy_from_slice(&serial.to_be_bytes());
    ClusterRecord {
        labels: [("padding".to_owned(), "x".repeat(40))].into(),
        fingerprints: vec![ActiveFingerprint {
            fingerprint: Fingerprint::from_bytes(fingerprint),
            not_after: Timestamp::from_unix_seconds(2_000_000_000),
            dialect: Dialect::Moorline,
            renews: None,
        }],
        ..ClusterRecord::new(
            format!("r{round}-c{serial}").parse().unwrap(),
            ClusterUid::from_bytes([7; 16]),
            Timestamp::from_unix_seconds(1_000_000_000),
        )
    }
}

/// Creates, changes and deletes until it is killed, telling each change once the store has acknowledged it.
fn be_the_victim(path: &Path, round: u32) -> ! {
    let store = Embedded::open(path).unwrap();
    // Ends the line that the test runner has begun.
    tell("");
    for serial in 0.. {
        let record = record(round, serial);
        store.create(&record).unwrap();
        tell(&format!("+{}", record.name));
        if serial % 3 == 1 {
            let clear = |record: &mut ClusterRecord| {
                record.labels.clear();
                Ok::<_, Infallible>(())
            };
            store.update(&record.name, clear).unwrap();
        }
        if serial % 5 == 4 {
            tell(&format!("?{}", record.name));
            store.delete(&record.name).unwrap();
            tell(&format!("-{}", record.name));
        }
    }
    unreachable!("more records than there are numbers")
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Runs a victim and kills it after it has acknowledged `acknowledged` changes, wherever it is by then.
fn run_victim(path: &Path, round: u32, acknowledged: usize) -> Vec<String> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["acknowledged_changes_survive_kill_nine", "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, format!("{round}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let is_change = |line: &String| line.starts_with(['+', '?', '-']) && line.contains("-c");
    let mut told: Vec<_> = lines.by_ref().map(Result::unwrap).filter(is_change).take(acknowledged).collect();
    victim.kill().unwrap();
    // What it still said before it died counts, except for a line that was cut.
    told.extend(lines.map_while(Result::ok).filter(is_change));
    victim.wait().unwrap();
    told
}

#[test]
fn acknowledged_changes_survive_kill_nine() {
    #[expect(clippy::disallowed_methods, reason = "how the victim is told what it is")]
    if let Ok(order) = std::env::var(VICTIM) {
        let (round, path) = order.split_once(':').unwrap();
        be_the_victim(Path::new(path), round.parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clusters.redb");
    let (mut there, mut unsure) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        // Moments spread over the life of a victim, the very first included.
        for line in run_victim(&path, round, usize::try_from(round * round % 97).unwrap()) {
            let (kind, name) = line.split_at(1);
            match kind {
                "+" => drop(there.insert(name.to_owned())),
                "?" => {
                    there.remove(name);
                    unsure.insert(name.to_owned());
                }
                _ => drop(unsure.remove(name)),
            }
        }
        check(&path, &there, &unsure, round);
    }
    assert!(there.len() > 200, "the victims did too little: {}", there.len());
}

fn check(path: &Path, there: &BTreeSet<String>, unsure: &BTreeSet<String>, round: u32) {
    let store = Embedded::open(path).unwrap();
    let records = store.list().unwrap();
    let names: BTreeSet<_> = records.iter().map(|record| record.name.to_string()).collect();
    let lost: Vec<_> = there.difference(&names).collect();
    assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    // The last change of each round may have happened without being told: one record at most for each.
    let extra = names.difference(there).filter(|name| !unsure.contains(*name)).count();
    assert!(extra <= usize::try_from(round + 1).unwrap(), "round {round}: {extra} records that were never told");
    for record in &records {
        let found = store.by_fingerprint(&record.fingerprints[0].fingerprint).unwrap();
        assert_eq!(found.as_ref(), Some(record), "round {round}: the index disagrees");
    }
    for name in names.symmetric_difference(there) {
        let (round, serial) = name[1..].split_once("-c").unwrap();
        let gone = record(round.parse().unwrap(), serial.parse().unwrap());
        let indexed = store.by_fingerprint(&gone.fingerprints[0].fingerprint).unwrap();
        assert_eq!(indexed.is_some(), names.contains(name), "a fingerprint outlived its record");
    }
}

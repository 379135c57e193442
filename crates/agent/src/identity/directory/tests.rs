//! The directory form: filled by people, by kubelet and by us, and read while all of them change it.

use std::{os::unix::fs::PermissionsExt as _, sync::mpsc, time::SystemTime};

use moorline_ca::Authority;
use moorline_model::{ClusterUid, Timestamp};

use super::*;
use crate::identity::Identity;

pub(in crate::identity) fn files(authority: &Authority) -> Files {
    let now = Timestamp::from(SystemTime::now());
    let issued = authority
        .issue_agent(&"east".parse().unwrap(), &ClusterUid::from_bytes([1; 16]), now, Duration::from_secs(3600))
        .unwrap();
    Files {
        roots_pem: authority.certificate_pem().to_owned(),
        certificate_pem: issued.certificate_pem,
        key_pem: issued.key_pem,
        address: None,
    }
}

pub(in crate::identity) fn authority() -> Authority {
    Authority::generate("tunnel", Timestamp::from(SystemTime::now()), Duration::from_secs(7200)).unwrap()
}

fn write_plain(path: &Path, files: &Files) {
    for (name, text) in [(ROOTS, &files.roots_pem), (CERTIFICATE, &files.certificate_pem), (KEY, &files.key_pem)] {
        fs::write(path.join(name), text).unwrap();
    }
}

#[test]
fn what_is_kept_comes_back_whole_private_and_without_leftovers() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path().join("certs"));
    for round in 0..3 {
        let address = (round > 0).then(|| format!("hub.example.com:{round}"));
        let kept = Files { address, ..files(&authority) };
        home.save_blocking(&kept).unwrap();
        assert!(home.load_blocking().unwrap() == kept);
        assert!(fs::read_to_string(home.path.join(KEY)).unwrap() == *kept.key_pem, "its own name leads to it");
        let mode = fs::metadata(home.path.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let names: Vec<_> = fs::read_dir(&home.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 7, "two versions, the link to one, and four names: {names:?}");
}

#[test]
fn names_are_there_before_there_is_anything_behind_them() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    // In the way of the switch, as if somebody were killed just before it.
    fs::create_dir(dir.path().join(NEXT)).unwrap();
    home.save_blocking(&files(&authority)).unwrap_err();
    for name in [ROOTS, CERTIFICATE, KEY] {
        assert_eq!(fs::read_link(dir.path().join(name)).unwrap(), Path::new(DATA).join(name));
    }
    assert!(matches!(home.load_blocking(), Err(HomeError::Read { .. })), "nothing was kept");
    fs::remove_dir(dir.path().join(NEXT)).unwrap();
    let kept = files(&authority);
    home.save_blocking(&kept).unwrap();
    assert!(fs::read_to_string(dir.path().join(CERTIFICATE)).unwrap() == kept.certificate_pem);
}

#[test]
fn a_directory_of_plain_files_is_read_and_becomes_a_linked_one() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let (first, second) = (files(&authority), files(&authority));
    write_plain(dir.path(), &first);
    assert!(home.load_blocking().unwrap() == first);
    home.save_blocking(&second).unwrap();
    assert!(home.load_blocking().unwrap() == second);
    for name in [ROOTS, CERTIFICATE, KEY] {
        assert_eq!(fs::read_link(dir.path().join(name)).unwrap(), Path::new(DATA).join(name));
    }
    let keys = fs::read_dir(dir.path()).unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join(KEY)).ok());
    let old = keys.filter(|key| key.as_slice() == first.key_pem.as_bytes()).count();
    assert_eq!(old, 1, "what was there before stays for whoever is just reading it");
}

#[test]
fn writers_wait_for_each_other() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let all: Vec<Files> = (0..3).map(|_| files(&authority)).collect();
    std::thread::scope(|scope| {
        for mine in &all {
            let home = Directory::new(dir.path());
            scope.spawn(move || {
                for _ in 0..20 {
                    home.save_blocking(mine).unwrap();
                    home.try_writing().unwrap();
                    // Nobody has taken away what somebody else has just put there.
                    home.load_blocking().unwrap();
                }
            });
        }
    });
    assert!(all.contains(&Directory::new(dir.path()).load_blocking().unwrap()));
}

#[test]
fn plain_files_in_the_place_of_links_are_what_counts() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let (kept, theirs, renewed) = (files(&authority), files(&authority), files(&authority));
    home.save_blocking(&kept).unwrap();
    // As `install`, `mv` and most programs that unpack replace a file: not through the link.
    for name in [ROOTS, CERTIFICATE, KEY] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    write_plain(dir.path(), &theirs);
    assert!(home.load_blocking().unwrap() == theirs);
    home.save_blocking(&renewed).unwrap();
    assert!(home.load_blocking().unwrap() == renewed);
    assert!(fs::read_to_string(dir.path().join(CERTIFICATE)).unwrap() == renewed.certificate_pem);
}

#[test]
fn whoever_reads_while_it_changes_sees_one_moment() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let all: Vec<Files> = (0..4).map(|_| files(&authority)).collect();
    write_plain(dir.path(), &all[0]);
    let (begin, begun) = mpsc::channel();
    std::thread::scope(|scope| {
        let (home, all) = (&home, &all);
        scope.spawn(move || {
            while begin.send(()).is_ok() {
                // By the names, one after the other, as a program that knows nothing of links would: each name leads
                // to a file at every moment.
                for name in [ROOTS, CERTIFICATE, KEY] {
                    fs::read(home.path.join(name)).unwrap();
                }
                let read = home.load_blocking().unwrap();
                assert!(all.contains(&read), "certificate and key of one moment");
            }
        });
        for round in 0..40 {
            home.save_blocking(&all[round % 4]).unwrap();
            // A version outlives one change and not two: whoever reads is not to sleep through both.
            while begun.try_recv().is_ok() {}
            begun.recv().expect("the reader found something wrong");
        }
        drop(begun);
    });
}

#[test]
fn what_a_crash_left_half_made_is_in_nobodys_way() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let (first, second) = (files(&authority), files(&authority));
    home.save_blocking(&first).unwrap();
    let half = dir.path().join(format!("{VERSION}dead"));
    fs::create_dir(&half).unwrap();
    fs::write(half.join(KEY), "half").unwrap();
    symlink("nowhere", dir.path().join(NEXT)).unwrap();
    assert!(home.load_blocking().unwrap() == first);
    home.save_blocking(&second).unwrap();
    assert!(home.load_blocking().unwrap() == second);
    assert!(!half.exists());
}

#[test]
fn halves_that_somebody_is_just_replacing_are_waited_for() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let (first, second) = (files(&authority), files(&authority));
    write_plain(dir.path(), &second);
    for (name, whole, other) in [
        (KEY, second.key_pem.as_str(), first.key_pem.as_str()),
        (CERTIFICATE, &second.certificate_pem, &first.certificate_pem),
        (ROOTS, &second.roots_pem, "no certificate yet"),
    ] {
        let write = |text: &str| fs::write(dir.path().join(name), text).unwrap();
        // As a copy in place goes: another one's, nothing, a part, all of it.
        write(other);
        let mut steps = ["", &whole[..whole.len() / 2], whole].into_iter();
        let read = home.load_resting(|| write(steps.next().unwrap())).unwrap();
        assert!(read == second && steps.next().is_none(), "{name}");
    }
}

#[test]
fn what_stays_of_no_use_is_told_after_a_second() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    write_plain(dir.path(), &files(&authority));
    for (other, words) in [(files(&authority).key_pem.as_str(), "does not belong"), ("", "private key")] {
        fs::write(dir.path().join(KEY), other).unwrap();
        let mut waited = Duration::ZERO;
        let error = home.load_resting(|| waited += REST).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(waited <= Duration::from_secs(1), "{waited:?}");
    }
}

#[tokio::test]
async fn the_identity_follows_what_others_keep_and_keeps_what_is_new() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let home = Directory::new(dir.path());
    let (first, second, third) = (files(&authority), files(&authority), files(&authority));
    write_plain(dir.path(), &first);
    let identity = Identity::new(std::sync::Arc::new(home.clone()), &first).unwrap();
    let shown = || identity.keys().current().fingerprint();
    let of = |files: &Files| files.check().unwrap().0.fingerprint();
    let mut changes = identity.changes();
    identity.refresh().await;
    assert!(!changes.has_changed().unwrap(), "the same is no change");
    home.save_blocking(&second).unwrap();
    identity.refresh().await;
    assert_eq!(shown(), of(&second));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    identity.change(|before| Files { certificate_pem: third.certificate_pem.clone(), ..before }).await.unwrap_err();
    assert_eq!(shown(), of(&second), "what does not hold together is not used");
    assert!(home.load_blocking().unwrap() == second, "nor kept");
    identity.change(|_| third.clone()).await.unwrap();
    assert_eq!(shown(), of(&third));
    assert!(home.load_blocking().unwrap() == third);
    assert!(changes.has_changed().unwrap());
    identity.home().writable().await.unwrap();
}

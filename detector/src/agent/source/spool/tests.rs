//! The file as the flow uses it: filled, found again, cleared, refused.

use std::fs;

use super::*;

const BOOT: &str = "0f1c2d3e-4b5a-6978-8796-a5b4c3d2e1f0";

fn open(path: &Path) -> Spool {
    Spool::open(path, BOOT).unwrap()
}

/// All that an earlier run left in `spool`, as text.
fn left(spool: &mut Spool) -> Vec<String> {
    std::iter::from_fn(|| spool.take_left()).map(|record| String::from_utf8(record).unwrap()).collect()
}

#[test]
fn what_a_killed_process_wrote_is_found_until_it_is_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut first = open(&path);
    assert!(!first.has_left() && first.is_empty());
    first.append(b"one");
    first.append(b"two");
    // Nothing is closed or flushed by a kill.
    std::mem::forget(first);
    let mut second = open(&path);
    assert_eq!(left(&mut second), ["one", "two"]);
    second.append(b"three");
    assert_eq!(left(&mut open(&path)), ["one", "two", "three"]);
    second.clear().unwrap();
    assert!(second.is_empty() && !open(&path).has_left());
}

#[test]
fn what_an_earlier_run_left_is_not_cleared_before_it_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut first = open(&path);
    first.append(b"one");
    first.append(b"two");
    // State may be saved, and the process killed, before it comes to its records.
    let mut second = open(&path);
    assert_eq!(second.take_left().as_deref(), Some(b"one".as_slice()));
    second.clear().unwrap();
    assert_eq!(left(&mut open(&path)), ["one", "two"]);
    assert_eq!(left(&mut second), ["two"]);
    second.clear().unwrap();
    assert!(!open(&path).has_left());
}

#[test]
fn a_damaged_end_is_cut_and_the_next_record_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    open(&path).append(b"one");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(b"\x05\x00\x00\x00half");
    fs::write(&path, bytes).unwrap();
    let mut spool = open(&path);
    assert_eq!(spool.found().damaged_bytes, 8);
    spool.append(b"two");
    assert_eq!(left(&mut open(&path)), ["one", "two"]);
}

#[test]
fn a_file_of_another_boot_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    Spool::open(&path, "another boot").unwrap().append(b"one");
    let mut spool = open(&path);
    assert_eq!((spool.has_left(), spool.found().other_boot), (false, 1));
    spool.append(b"two");
    assert_eq!(left(&mut open(&path)), ["two"]);
}

#[test]
fn foreign_bytes_are_no_hindrance() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    fs::write(&path, vec![0x5a; 10_000]).unwrap();
    let mut spool = open(&path);
    assert_eq!(spool.found().damaged_bytes, 10_000);
    spool.append(b"one");
    assert_eq!(left(&mut open(&path)), ["one"]);
}

#[test]
fn a_full_spool_is_told_once_and_again_after_it_worked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool");
    let mut spool = open(&path);
    let record = [7; 4096];
    let fit = (LIMIT as usize - HEAD) / (record.len() + 8);
    (0..fit).for_each(|_| spool.append(&record));
    assert!(spool.wants_clearing() && spool.take_trouble().is_none());
    spool.append(&record);
    spool.append(&record);
    assert!(matches!(spool.take_trouble(), Some(SpoolError::Full { .. })));
    assert!(spool.take_trouble().is_none());
    assert_eq!((spool.take_unspooled(), fs::metadata(&path).unwrap().len() <= LIMIT), (2, true));
    spool.clear().unwrap();
    assert!(!spool.wants_clearing());
    spool.append(&record);
    assert_eq!((spool.take_unspooled(), spool.take_trouble().is_none()), (0, true));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(matches!(Spool::open(&link, BOOT), Err(SpoolError::File { .. })));
    assert!(matches!(Spool::open(directory.path(), BOOT), Err(SpoolError::File { .. })));
}

//! One machine over several boots: what is found in each.

use std::fs;

use super::*;
use crate::{
    agent::source::small_file::under,
    contract::problem::previous_boot::{End, PreviousBoot},
};

/// 2025-11-22T12:00:00Z.
const EPOCH: i64 = 1_763_812_800;

fn present(boot_id: &str, booted: i64) -> Present {
    let time = |second| Timestamp::from_second(EPOCH + second).unwrap();
    Present { node: "node-a".into(), boot_id: boot_id.into(), booted: time(booted), now: time(booted + 90) }
}

fn owner() -> Owner {
    Owner { node: "node-a".into(), machine: None }
}

fn panic_at(root: &Path, id: u64, second: i64) {
    let path = under(root, &format!("{}/{id}/dmesg-erst-{id}", pstore::ARCHIVE));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("Panic#1 Part1\n<0>[  41.200000] Kernel panic - not syncing: number {id}\n")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs((EPOCH + second).try_into().unwrap());
    fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
}

/// Starts the agent in a boot; what it finds of the boot before.
fn start(root: &Path, boot_id: &str, booted: i64) -> Option<PreviousBoot> {
    let file = BootsFile::at(&root.join("boot.json"));
    let Looked { note, failures } = look(root, Some(&file), &present(boot_id, booted));
    assert_eq!(failures, Vec::<String>::new());
    file.write(&note).unwrap();
    note.latest().and_then(boots::Kept::found)
}

fn stop(root: &Path, boot_id: &str, booted: i64) {
    let file = BootsFile::at(&root.join("boot.json"));
    let mut note = look(root, Some(&file), &present(boot_id, booted)).note;
    note.boot.stopped = Some(note.boot.alive);
    file.write(&note).unwrap();
}

#[test]
fn a_panic_is_found_once_with_its_boot_its_time_and_its_line() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(start(root.path(), "b1", 0), None);
    panic_at(root.path(), 7, 1000);
    let found = start(root.path(), "b2", 1030).expect("a panic");
    assert_eq!((found.end, found.boot_id.as_deref()), (End::Panic, Some("b1")));
    assert_eq!(found.at, Timestamp::from_second(EPOCH + 1000).ok());
    assert_eq!(found.lines, ["Kernel panic - not syncing: number 7"]);
    assert_eq!(found.witness, "pstore (erst)");
    // The agent is restarted: the same, and no second one.
    assert_eq!(start(root.path(), "b2", 1030).as_ref(), Some(&found));
    let note = BootsFile::at(&root.path().join("boot.json")).read(&owner()).unwrap().unwrap();
    assert_eq!((note.findings.len(), note.totals.panic), (1, 1));
    // The next boot begins without a shutdown, and the old record is still there.
    assert_eq!(start(root.path(), "b3", 5000).map(|found| found.end), Some(End::Unclean));
    assert!(under(root.path(), &format!("{}/7/dmesg-erst-7", pstore::ARCHIVE)).exists(), "nothing is deleted");
}

#[test]
fn an_agent_that_was_told_to_stop_claims_nothing_of_the_end() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(start(root.path(), "b1", 0), None);
    stop(root.path(), "b1", 0);
    assert_eq!(start(root.path(), "b2", 1000), None);
}

#[test]
fn old_records_of_a_machine_that_the_agent_comes_to_are_not_those_of_the_boot_before() {
    let root = tempfile::tempdir().unwrap();
    panic_at(root.path(), 3, -100_000);
    assert_eq!(start(root.path(), "b1", 0), None);
    assert_eq!(start(root.path(), "b2", 1000).map(|found| found.end), Some(End::Unclean));
}

#[test]
fn a_panic_right_before_the_boot_is_found_by_an_agent_without_a_note() {
    let root = tempfile::tempdir().unwrap();
    panic_at(root.path(), 3, -40);
    let found = start(root.path(), "b1", 0).expect("a panic");
    assert_eq!((found.end, found.boot_id), (End::Panic, None));
}

#[test]
fn without_a_place_for_the_note_the_look_is_the_same_each_time() {
    let root = tempfile::tempdir().unwrap();
    panic_at(root.path(), 3, -40);
    let twice = [0, 1].map(|_| look(root.path(), None, &present("b1", 0)).note.findings);
    assert_eq!((twice[0].len(), &twice[0]), (1, &twice[1]));
}

#[test]
fn a_note_that_is_damaged_is_told_and_replaced() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("boot.json");
    fs::write(&path, "{").unwrap();
    let looked = look(root.path(), Some(&BootsFile::at(&path)), &present("b1", 0));
    assert_eq!((looked.failures.len(), looked.note.findings.len()), (1, 0), "{:?}", looked.failures);
}

#[test]
fn a_disk_that_came_from_another_machine_claims_nothing_of_this_one() {
    let root = tempfile::tempdir().unwrap();
    let name = under(root.path(), MACHINE);
    fs::create_dir_all(name.parent().unwrap()).unwrap();
    fs::write(&name, "4c4c4544-0000-0000-0000-000000000001\n").unwrap();
    assert_eq!(start(root.path(), "b1", 0), None);
    // The image of its disk is started on another one, which got the same name.
    fs::write(&name, "4c4c4544-0000-0000-0000-000000000002\n").unwrap();
    assert_eq!(start(root.path(), "c1", 5000), None);
    // From now on it is known, also where the firmware does not tell its name any more.
    fs::remove_file(&name).unwrap();
    assert_eq!(start(root.path(), "c2", 9000).map(|found| found.boot_id), Some(Some("c1".to_owned())));
    fs::write(&name, "4c4c4544-0000-0000-0000-000000000001\n").unwrap();
    assert_eq!(start(root.path(), "b2", 9500), None, "it is remembered");
}

#[test]
fn a_clock_that_was_set_back_while_the_agent_was_there_is_remembered() {
    let root = tempfile::tempdir().unwrap();
    start(root.path(), "b1", 50_000);
    // The agent is started again; by then the time was asked for.
    start(root.path(), "b1", 0);
    start(root.path(), "b1", 50_000);
    panic_at(root.path(), 7, 1000);
    assert_eq!(start(root.path(), "b2", 1030).map(|found| found.end), Some(End::Panic));
}

#[test]
fn a_place_that_does_not_answer_is_told_and_left_out() {
    let root = tempfile::tempdir().unwrap();
    let (go_on, hangs) = mpsc::sync_channel::<()>(1);
    let place = Place::ask("/var/crash", root.path(), move |_, _| {
        hangs.recv().ok();
        vec![1]
    });
    let mut failures = Vec::new();
    assert_eq!(place.answer(Duration::from_millis(1), &mut failures), Vec::<i32>::new());
    assert_eq!(failures, ["reading /var/crash: no answer within 0 s"]);
    drop(go_on);
}

#[test]
fn what_one_place_cannot_tell_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::ask("x", root.path(), |root, failed| {
        for _ in 0..100 {
            failed(root, io::Error::other("no"));
        }
        7
    });
    let mut failures = Vec::new();
    assert_eq!((place.answer(PATIENCE, &mut failures), failures.len()), (7, FAILURES));
}

#[test]
fn new_records_that_cannot_be_read_are_told_once() {
    let root = tempfile::tempdir().unwrap();
    let file = BootsFile::at(&root.path().join("boot.json"));
    start(root.path(), "b1", 0);
    let directory = under(root.path(), pstore::LIVE);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("dmesg-erst-1.enc.z"), [1, 2, 3]).unwrap();
    let Looked { note, failures } = look(root.path(), Some(&file), &present("b2", 1000));
    assert_eq!(failures, ["1 new records in pstore cannot be read: packed by another kernel, or cut short"]);
    assert_eq!(note.latest().and_then(boots::Kept::found).map(|found| found.end), Some(End::Unclean));
    file.write(&note).unwrap();
    assert_eq!(look(root.path(), Some(&file), &present("b2", 1000)).failures, Vec::<String>::new());
    assert_eq!(look(root.path(), Some(&file), &present("b3", 2000)).failures, Vec::<String>::new());
}

#[test]
fn a_record_that_is_hidden_for_a_while_is_not_found_again() {
    let root = tempfile::tempdir().unwrap();
    start(root.path(), "b1", 0);
    // With a time that cannot be, only its digest tells that it was there.
    panic_at(root.path(), 7, 1_000_000);
    assert_eq!(start(root.path(), "b2", 1000).map(|found| found.end), Some(End::Panic));
    let (archive, away) = (under(root.path(), pstore::ARCHIVE), root.path().join("away"));
    fs::rename(&archive, &away).unwrap();
    assert_eq!(start(root.path(), "b3", 2000).map(|found| found.end), Some(End::Unclean));
    fs::rename(&away, &archive).unwrap();
    assert_eq!(start(root.path(), "b4", 3000).map(|found| found.end), Some(End::Unclean));
}

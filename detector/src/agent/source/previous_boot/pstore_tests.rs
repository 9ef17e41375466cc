//! Files in the layouts of all kernels and versions of systemd, put together.

use std::{fs, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    piece::{Piece, Reason},
    pstore::{ARCHIVE, LIVE, Records, assemble, read},
};
use crate::agent::source::small_file::under;

fn file(root: &Path, path: &str, second: i64, content: &str) {
    let path = under(root, path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second.try_into().unwrap());
    fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
}

fn found(root: &Path) -> Records {
    read(root, &mut |path, error| panic!("{}: {error}", path.display()))
}

const PANICKED: i64 = 1_763_812_800;

#[test]
fn parts_are_put_together_with_the_oldest_lines_first() {
    let root = tempfile::tempdir().unwrap();
    for (id, part, text) in [(11, 1, "<0>[9.000000] c\n"), (12, 2, "<0>[8.000000] b\n"), (13, 3, "<0>[7.000000] a\n")] {
        let path = format!("{LIVE}/dmesg-erst-{id}");
        file(root.path(), &path, PANICKED + i64::from(part) - 1, &format!("Panic#1 Part{part}\n{text}"));
    }
    let Records { dumps, consoles, .. } = found(root.path());
    assert_eq!(consoles, []);
    assert_eq!(dumps.len(), 1);
    assert_eq!((dumps[0].reason, dumps[0].backend.as_str()), (Reason::Panic, "erst"));
    assert_eq!(dumps[0].text, "<0>[7.000000] a\n<0>[8.000000] b\n<0>[9.000000] c\n");
    assert_eq!(dumps[0].at.map(Timestamp::as_second), Some(PANICKED));
}

#[test]
fn the_archives_layouts_of_all_versions_are_read() {
    let root = tempfile::tempdir().unwrap();
    let panic = "Panic#1 Part1\nx\n";
    file(root.path(), &format!("{ARCHIVE}/176381280/1/dmesg-efi_pstore-176381280001001"), 1_763_900_000, panic);
    file(root.path(), &format!("{ARCHIVE}/176381280/1/dmesg.txt"), 1_763_900_000, "Panic#1 Part1\nx\n");
    file(root.path(), &format!("{ARCHIVE}/7319283498172645377/dmesg-erst-7319283498172645377"), 1_763_700_000, panic);
    file(root.path(), &format!("{ARCHIVE}/dmesg-ramoops-0"), 1_763_600_000, "Oops#1 Part1\ny\n");
    file(root.path(), &format!("{ARCHIVE}/console-ramoops-0"), 1_763_650_000, "[1.000000] reboot: Power down\n");
    let Records { dumps, consoles, .. } = found(root.path());
    let told: Vec<_> = dumps.iter().map(|dump| (dump.backend.as_str(), dump.reason)).collect();
    assert_eq!(told, [("ramoops", Reason::Oops), ("erst", Reason::Panic), ("efi_pstore", Reason::Panic)]);
    assert_eq!(dumps[2].at.map(Timestamp::as_second), Some(1_763_812_800), "the time is in the name");
    assert_eq!((consoles.len(), consoles[0].backend.as_str()), (1, "ramoops"));
}

#[test]
fn a_dump_that_is_moved_is_one_dump_before_meanwhile_and_after() {
    let root = tempfile::tempdir().unwrap();
    let name = "dmesg-erst-7319283498172645377";
    file(root.path(), &format!("{LIVE}/{name}"), PANICKED, "Panic#1 Part1\nx\n");
    let before = found(root.path()).dumps;
    file(root.path(), &format!("{ARCHIVE}/7319283498172645377/{name}"), PANICKED, "Panic#1 Part1\nx\n");
    let meanwhile = found(root.path()).dumps;
    fs::remove_file(under(root.path(), &format!("{LIVE}/{name}"))).unwrap();
    let after = found(root.path()).dumps;
    assert_eq!((&before, &meanwhile), (&meanwhile, &after));
    assert_eq!(before.len(), 1);
}

#[test]
fn two_panics_of_the_same_number_are_two_dumps() {
    let root = tempfile::tempdir().unwrap();
    for (id, second, part) in [(1, 0, 1), (2, 1, 2), (9, 20, 1), (10, 21, 2)] {
        let path = format!("{LIVE}/dmesg-erst-{id}");
        file(root.path(), &path, PANICKED + second, &format!("Panic#1 Part{part}\nline {id}\n"));
    }
    let dumps = found(root.path()).dumps;
    let texts: Vec<_> = dumps.iter().map(|dump| dump.text.as_str()).collect();
    assert_eq!(texts, ["line 2\nline 1\n", "line 10\nline 9\n"]);
    assert_ne!(dumps[0].digest, dumps[1].digest);
}

#[test]
fn what_other_writers_left_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    for name in ["pmsg-ramoops-0", "ftrace-ramoops-0", "mce-erst-9", "notes", "dmesg-erst-x", "dmesg.txt"] {
        file(root.path(), &format!("{LIVE}/{name}"), PANICKED, "Panic#1 Part1\nx\n");
    }
    file(root.path(), &format!("{ARCHIVE}/1/2/3/dmesg-erst-6"), PANICKED, "Panic#1 Part1\nx\n");
    assert_eq!(found(root.path()), Records::default());
}

#[test]
fn what_is_packed_or_cut_short_is_known_to_be_there() {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), &format!("{LIVE}/dmesg-ramoops-0.enc.z"), PANICKED, "\u{1}\u{2}\u{3}");
    file(root.path(), &format!("{LIVE}/console-ramoops-0.enc.z"), PANICKED, "\u{1}");
    for (id, content) in [(5, "Panic#1 Pa"), (6, "")] {
        file(root.path(), &format!("{LIVE}/dmesg-erst-{id}"), PANICKED, content);
        // Moved while we look.
        file(root.path(), &format!("{ARCHIVE}/{id}/dmesg-erst-{id}"), PANICKED, content);
    }
    let Records { dumps, consoles, unreadable } = found(root.path());
    assert_eq!((dumps.len(), consoles.len(), unreadable.len()), (0, 0, 4));
}

#[test]
fn of_a_dump_that_is_not_whole_the_rest_is_told() {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), &format!("{LIVE}/dmesg-erst-11"), PANICKED, "Panic#1 Part1\n<0>[9.000000] Kernel pan");
    file(root.path(), &format!("{LIVE}/dmesg-erst-13"), PANICKED, "Panic#1 Part3\n<0>[7.000000] a\n");
    file(root.path(), &format!("{LIVE}/dmesg-erst-14"), PANICKED, "Panic#1");
    let Records { dumps, unreadable, .. } = found(root.path());
    assert_eq!((dumps.len(), unreadable.len()), (1, 1));
    assert_eq!((dumps[0].reason, dumps[0].text.as_str()), (Reason::Panic, "<0>[7.000000] a\n<0>[9.000000] Kernel pan"));
}

#[test]
fn of_a_full_archive_the_newest_records_are_read_and_no_more_than_a_few_megabytes() {
    let root = tempfile::tempdir().unwrap();
    let long = format!("Panic#1 Part1\n{}\n", "x".repeat(255 << 10));
    for second in 0..40 {
        file(root.path(), &format!("{LIVE}/dmesg-erst-{second}"), PANICKED + second, &long);
    }
    let dumps = found(root.path()).dumps;
    assert!((10..=16).contains(&dumps.len()), "{}", dumps.len());
    assert_eq!(dumps.last().and_then(|dump| dump.at).map(Timestamp::as_second), Some(PANICKED + 39));
}

#[test]
fn a_dump_that_was_moved_without_its_time_is_one_dump() {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), &format!("{LIVE}/dmesg-erst-7"), PANICKED, "Panic#1 Part1\nx\n");
    file(root.path(), &format!("{ARCHIVE}/7/dmesg-erst-7"), PANICKED + 5000, "Panic#1 Part1\nx\n");
    let dumps = found(root.path()).dumps;
    assert_eq!(dumps.len(), 1);
    assert_eq!(dumps[0].at.map(Timestamp::as_second), Some(PANICKED));
}

#[test]
fn panics_with_the_same_words_are_two_where_their_numbers_tell_them_apart() {
    let root = tempfile::tempdir().unwrap();
    for (id, second) in [(7, 0), (8, 500)] {
        file(root.path(), &format!("{LIVE}/dmesg-erst-{id}"), PANICKED + second, "Panic#1 Part1\nx\n");
    }
    assert_eq!(found(root.path()).dumps.len(), 2);
}

#[test]
fn a_place_that_cannot_be_entered_is_told_and_the_other_one_is_read() {
    let root = tempfile::tempdir().unwrap();
    file(root.path(), &format!("{ARCHIVE}/7/dmesg-erst-7"), PANICKED, "Panic#1 Part1\nx\n");
    let live = under(root.path(), LIVE);
    fs::create_dir_all(live.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&live, &live).unwrap();
    let mut told = Vec::new();
    let records = read(root.path(), &mut |path, _| told.push(path.to_owned()));
    assert_eq!((records.dumps.len(), told), (1, vec![live]));
}

#[test]
fn a_machine_without_pstore_has_no_records() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(found(root.path()), Records::default());
}

fn piece() -> impl Strategy<Value = Piece> {
    let name = prop_oneof!["dmesg-(erst|efi_pstore|ramoops)-[0-9]{1,6}", Just("console-ramoops-0".to_owned())];
    let times = prop::option::of(1_763_812_800_i64..1_763_813_000);
    (name, times, "(Panic|Oops)#[12] Part[1-4]\n[a-z \n]{0,20}").prop_filter_map("readable", |(name, second, text)| {
        Piece::read(&name, second.and_then(|second| Timestamp::from_second(second).ok()), text.as_bytes())
    })
}

proptest! {
    #[test]
    fn no_line_is_lost_or_told_twice_in_any_order_of_pieces(pieces in prop::collection::vec(piece(), 0..12), turn in 0..12_usize) {
        let mut turned = pieces.clone();
        turned.rotate_left(turn.min(pieces.len()));
        let (records, again) = (assemble(pieces.clone()), assemble(turned));
        let bytes = |records: &Records| records.dumps.iter().map(|dump| dump.text.len()).sum::<usize>();
        let given: usize = pieces.iter().filter(|piece| piece.header.is_some()).map(|piece| piece.text.len()).sum();
        prop_assert!(bytes(&records) <= given);
        prop_assert_eq!(bytes(&records), bytes(&again));
        let digests: std::collections::BTreeSet<u64> = records.dumps.iter().map(|dump| dump.digest).collect();
        prop_assert_eq!(digests.len(), records.dumps.len());
        prop_assert!(records.dumps.len() <= pieces.len());
    }
}

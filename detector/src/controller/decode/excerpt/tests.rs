//! What stays of a long log.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::{Header, Userdata},
    *,
};

fn line(sequence: u64, text: &str) -> Line {
    let header = Header { facility: 0, level: 4, sequence, uptime: Duration::from_millis(sequence) };
    let text = text.to_owned();
    Line { header: Some(header), release: None, text, userdata: Userdata::default(), torn: false }
}

fn filled(excerpt: &mut Excerpt, from: u64, count: u64) -> u64 {
    for sequence in from..from + count {
        excerpt.push(&line(sequence, &format!("line {sequence} of a log")), Note::Nothing);
    }
    from + count
}

#[test]
fn fault_and_panic_stay_whatever_comes_before_between_and_after() {
    let mut excerpt = Excerpt::new();
    let next = filled(&mut excerpt, 0, 5000);
    excerpt.push(&line(next, "BUG: kernel NULL pointer dereference"), Note::Signature);
    let next = filled(&mut excerpt, next + 1, 5000);
    excerpt.push(&line(next, "Kernel panic - not syncing: Fatal exception"), Note::Panic);
    let last = filled(&mut excerpt, next + 1, 5000);
    let text = excerpt.text();
    assert!(text.len() <= MAX_LOG_BYTES, "{}", text.len());
    let seen = |what: &str| text.contains(what);
    assert!(seen("NULL pointer") && seen("Fatal exception") && seen("left out"), "{text}");
    assert!(seen("line 4999 of") && seen("line 5001 of") && seen(&format!("line {} of", next - 1)));
    assert!(seen(&format!("line {} of", next + 1)) && seen(&format!("line {} of", last - 1)));
    let told = u64::try_from(text.lines().filter(|line| line.contains("line ")).count()).expect("few");
    let mark = |line: &str| line.strip_prefix("[... ")?.split(' ').next()?.parse::<u64>().ok();
    let marks: u64 = text.lines().filter_map(mark).sum();
    assert_eq!(excerpt.lines_missing(), marks);
    assert!(told + marks < last && told > 500);
}

#[test]
fn a_short_log_is_whole_and_in_order() {
    let mut excerpt = Excerpt::new();
    excerpt.push(&line(1, "before"), Note::Nothing);
    excerpt.push(&line(2, "BUG: x"), Note::Signature);
    excerpt.push(&line(3, "Kernel panic - not syncing: x"), Note::Panic);
    excerpt.push(&Line { torn: true, ..line(4, "after") }, Note::Nothing);
    let text = "[    0.001000] before\n[    0.002000] BUG: x\n[    0.003000] Kernel panic - not syncing: x\n\
                [    0.004000] after [...]\n";
    assert_eq!((excerpt.text().as_str(), excerpt.lines_missing()), (text, 0));
}

#[test]
fn numbers_are_missed_only_since_the_panic() {
    let mut excerpt = Excerpt::new();
    excerpt.push(&line(1, "a"), Note::Nothing);
    excerpt.push(&line(90, "Kernel panic - not syncing: x"), Note::Panic);
    assert_eq!(excerpt.lines_missing(), 0, "records below the console's level have numbers too");
    excerpt.push(&line(94, "d"), Note::Nothing);
    assert_eq!(excerpt.lines_missing(), 3);
    excerpt.push(&line(92, "late"), Note::Nothing);
    assert_eq!(excerpt.lines_missing(), 2);
}

#[test]
fn what_programs_wrote_is_left_out() {
    let mut excerpt = Excerpt::new();
    excerpt.push(&line(1, "hello"), Note::Foreign);
    assert_eq!(excerpt.text(), "");
}

#[test]
fn a_later_fault_takes_the_place_of_an_earlier_one() {
    let mut excerpt = Excerpt::new();
    excerpt.push(&line(1, "WARNING: one"), Note::Signature);
    let next = filled(&mut excerpt, 2, 2000);
    excerpt.push(&line(next, "BUG: two"), Note::Signature);
    assert!(!excerpt.text().contains("WARNING: one") && excerpt.text().ends_with("BUG: two\n"));
    assert_eq!(excerpt.lines_missing(), 0);
}

proptest! {
    #[test]
    fn no_log_is_larger_than_its_bound(
        lines in prop::collection::vec((0_u8..5, 0_usize..5000, any::<u64>()), 0..200),
    ) {
        let mut excerpt = Excerpt::new();
        for (note, length, sequence) in lines {
            let note = [Note::Foreign, Note::Nothing, Note::Detail, Note::Signature, Note::Panic][usize::from(note)];
            excerpt.push(&line(sequence, &"\u{e4}".repeat(length / 2)), note);
            prop_assert!(excerpt.text().len() <= MAX_LOG_BYTES);
            prop_assert!(excerpt.bytes() <= 2 * MAX_LOG_BYTES);
        }
    }
}

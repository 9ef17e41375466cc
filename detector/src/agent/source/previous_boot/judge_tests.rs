//! What is claimed of each case, row by row of the table in [`super::judge`].

use std::collections::BTreeSet;

use jiff::Timestamp;
use rstest::rstest;

use super::{
    boots::Boot,
    judge::{Evidence, judge},
    kdump::Crash,
    piece::Reason,
    pstore::{Console, Dump, Records, Unreadable},
    wtmp::Shutdown,
};
use crate::contract::problem::previous_boot::{End, PreviousBoot};

const BOOTED: i64 = 10_000;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_763_812_800 + second).unwrap()
}

/// A boot that began at 0 and was seen last at 9,000.
fn running() -> Boot {
    Boot { id: "b1".into(), began: time(0), alive: time(9000), stopped: None }
}

fn stopped() -> Boot {
    Boot { stopped: Some(time(9000)), ..running() }
}

fn dump(digest: u64, reason: Reason, second: Option<i64>) -> Dump {
    let text = "<0>[1.000000] Kernel panic - not syncing: x\n".to_owned();
    Dump { backend: "erst".into(), reason, count: 1, at: second.map(time), text, digest }
}

fn crash(digest: u64, second: i64) -> Crash {
    Crash { name: "c".into(), at: Some(time(second)), text: "[1.000000] BUG: y\n".into(), digest }
}

fn console(text: &str, shown: i64) -> Console {
    Console { backend: "ramoops".into(), shown: Some(time(shown)), text: text.into(), digest: 77 }
}

fn with(dumps: Vec<Dump>) -> Evidence {
    Evidence { records: Records { dumps, ..Records::default() }, ..Evidence::default() }
}

fn with_console(text: &str, shown: i64) -> Evidence {
    let records = Records { consoles: vec![console(text, shown)], ..Records::default() };
    Evidence { records, ..Evidence::default() }
}

fn judged(noted: Option<&Boot>, evidence: &Evidence) -> Vec<(End, Option<String>)> {
    let findings = judge(noted, &BTreeSet::from([1]), evidence, time(BOOTED));
    findings.into_iter().map(|finding| (finding.found.end, finding.found.boot_id)).collect()
}

fn b1() -> Option<String> {
    Some("b1".to_owned())
}

#[rstest]
#[case::since_the_noted_boot(Some(running()), dump(2, Reason::Panic, Some(9500)), vec![(End::Panic, b1())])]
#[case::told_to_stop_before(Some(stopped()), dump(2, Reason::Panic, Some(9500)), vec![(End::Panic, None)])]
#[case::without_a_note(None, dump(2, Reason::Panic, Some(9500)), vec![(End::Panic, None)])]
#[case::without_a_time(Some(running()), dump(2, Reason::Panic, None), vec![(End::Panic, b1())])]
#[case::without_time_and_note(None, dump(2, Reason::Panic, None), vec![])]
#[case::of_this_boot_without_a_note(None, dump(2, Reason::Panic, Some(BOOTED + 2)), vec![])]
#[case::without_a_note_long_ago(None, dump(2, Reason::Panic, Some(8000)), vec![])]
#[case::before_the_noted_boot(Some(stopped()), dump(2, Reason::Panic, Some(-500)), vec![])]
#[case::known(Some(stopped()), dump(1, Reason::Panic, Some(9500)), vec![])]
#[case::known_and_no_shutdown(Some(running()), dump(1, Reason::Panic, Some(9500)), vec![(End::Unclean, b1())])]
#[case::an_oops_that_it_survived(Some(running()), dump(2, Reason::Oops, Some(9500)), vec![(End::Unclean, b1())])]
#[case::a_shutdown(Some(stopped()), dump(2, Reason::Shutdown, Some(9500)), vec![(End::Clean, b1())])]
fn a_dump_tells_an_end(#[case] noted: Option<Boot>, #[case] dump: Dump, #[case] ends: Vec<(End, Option<String>)>) {
    assert_eq!(judged(noted.as_ref(), &with(vec![dump])), ends);
}

#[test]
fn a_panic_that_seems_to_be_of_this_boot_has_no_time() {
    let at = |second| {
        let evidence = with(vec![dump(2, Reason::Panic, Some(second))]);
        judge(Some(&running()), &BTreeSet::new(), &evidence, time(BOOTED))[0].found.at
    };
    assert_eq!((at(9500), at(BOOTED + 1), at(BOOTED + 3000)), (Some(time(9500)), None, None));
}

#[test]
fn each_of_several_panics_is_told_and_the_first_ended_the_noted_boot() {
    let dumps = vec![dump(2, Reason::Panic, Some(9200)), dump(3, Reason::Panic, Some(9600))];
    assert_eq!(judged(Some(&running()), &with(dumps)), [(End::Panic, b1()), (End::Panic, None)]);
}

#[rstest]
#[case::a_panic_while_it_panicked((1, Some(9500)), (2, Some(9503)), 1)]
#[case::without_times((1, None), (2, None), 1)]
#[case::numbered_anew_after_a_boot((1, Some(9500)), (1, Some(9530)), 2)]
#[case::long_after((1, Some(9500)), (2, Some(9900)), 2)]
fn two_dumps_of_one_death_are_one_panic(
    #[case] first: (u32, Option<i64>),
    #[case] second: (u32, Option<i64>),
    #[case] panics: usize,
) {
    let dumps =
        [(2, first), (3, second)].map(|(digest, (count, at))| Dump { count, ..dump(digest, Reason::Panic, at) });
    let found = judge(Some(&running()), &BTreeSet::new(), &with(dumps.to_vec()), time(BOOTED));
    assert_eq!((found.len(), found[0].id), (panics, 2), "the first says why");
}

#[rstest]
#[case::of_a_boot_that_was_not_shut_down(Some(running()), Some(9500), Some(true))]
#[case::without_a_time(Some(running()), None, Some(true))]
#[case::of_an_older_boot(Some(running()), Some(-9500), Some(false))]
#[case::told_to_stop(Some(stopped()), Some(9500), None)]
#[case::without_a_note(None, Some(9990), None)]
fn a_record_that_cannot_be_read_is_a_witness_and_no_panic(
    #[case] noted: Option<Boot>,
    #[case] at: Option<i64>,
    #[case] named: Option<bool>,
) {
    let unreadable = vec![Unreadable { backend: "ramoops".into(), at: at.map(time), digest: 5 }];
    let evidence = Evidence { records: Records { unreadable, ..Records::default() }, ..Evidence::default() };
    let found = judge(noted.as_ref(), &BTreeSet::new(), &evidence, time(BOOTED)).pop().map(|finding| finding.found);
    let witness = |found: &PreviousBoot| found.witness.ends_with("a record in pstore (ramoops) that cannot be read");
    assert_eq!(found.as_ref().map(witness), named);
    if let Some(found) = found {
        assert_eq!((found.end, PreviousBoot::read(&found.message(1024))), (End::Unclean, Some(found.clone())));
    }
}

#[rstest]
#[case::while_it_ran(Boot { began: time(5000), alive: time(100), ..running() }, Some(150), BOOTED)]
#[case::before_this_boot(running(), Some(9500), 3000)]
#[case::to_1970(running(), None, 3000)]
fn a_clock_that_was_set_back_hides_no_panic(#[case] noted: Boot, #[case] at: Option<i64>, #[case] booted: i64) {
    let evidence = with(vec![dump(2, Reason::Panic, at)]);
    let found = judge(Some(&noted), &BTreeSet::new(), &evidence, time(booted));
    assert_eq!(found.iter().map(|finding| finding.found.end).collect::<Vec<_>>(), [End::Panic]);
}

#[test]
fn one_panic_that_pstore_and_kdump_tell_is_one() {
    let mut evidence = with(vec![dump(2, Reason::Panic, Some(9500))]);
    evidence.crashes = vec![crash(3, 9560)];
    assert_eq!(judged(Some(&running()), &evidence).len(), 1);
    evidence.crashes = vec![crash(3, 3000)];
    assert_eq!(judged(Some(&running()), &evidence), [(End::Panic, b1()), (End::Panic, None)]);
}

#[test]
fn kdump_alone_tells_a_panic_and_where() {
    let evidence = Evidence { crashes: vec![crash(3, 9500)], ..Evidence::default() };
    let found = judge(Some(&running()), &BTreeSet::new(), &evidence, time(BOOTED)).remove(0).found;
    assert_eq!((found.end, found.witness.as_str()), (End::Panic, "kdump (/var/crash/c)"));
    assert_eq!(found.lines, ["BUG: y"]);
}

const PANIC: &str = "[1.000000] Kernel panic - not syncing: z\n";
const RESTART: &str = "[1.000000] reboot: Restarting system\n";

#[rstest]
#[case::a_panic(PANIC, BOOTED + 5, vec![(End::Panic, b1())])]
#[case::a_restart(RESTART, BOOTED + 5, vec![(End::Clean, b1())])]
#[case::of_an_older_boot(PANIC, 5000, vec![(End::Unclean, b1())])]
#[case::that_just_ends("[1.000000] eth0: link up\n", BOOTED + 5, vec![(End::Unclean, b1())])]
fn a_console_tells_an_end(#[case] text: &str, #[case] shown: i64, #[case] ends: Vec<(End, Option<String>)>) {
    assert_eq!(judged(Some(&running()), &with_console(text, shown)), ends);
}

#[rstest]
#[case::of_the_noted_boot(Some(running()), (0, BOOTED, Some(9400)), vec![(End::Clean, b1())])]
#[case::of_another_boot(Some(running()), (5000, BOOTED, Some(9400)), vec![(End::Clean, None)])]
#[case::without_a_note(None, (5000, BOOTED, Some(9400)), vec![(End::Clean, None)])]
#[case::not_written_at_this_boot(Some(running()), (0, 5000, Some(4000)), vec![(End::Unclean, b1())])]
#[case::no_shutdown(Some(running()), (0, BOOTED, None), vec![(End::Unclean, b1())])]
#[case::no_shutdown_and_stopped(Some(stopped()), (0, BOOTED, None), vec![])]
fn wtmp_tells_a_shutdown(
    #[case] noted: Option<Boot>,
    #[case] (began, next, shut_down): (i64, i64, Option<i64>),
    #[case] ends: Vec<(End, Option<String>)>,
) {
    let shutdown = Shutdown { began: time(began), next: time(next), shut_down: shut_down.map(time) };
    let evidence = Evidence { shutdown: Some(shutdown), ..Evidence::default() };
    assert_eq!(judged(noted.as_ref(), &evidence), ends);
}

#[rstest]
#[case::running(Some(running()), vec![(End::Unclean, b1())])]
#[case::stopped(Some(stopped()), vec![])]
#[case::unknown(None, vec![])]
fn without_any_evidence_the_note_tells(#[case] noted: Option<Boot>, #[case] ends: Vec<(End, Option<String>)>) {
    assert_eq!(judged(noted.as_ref(), &Evidence::default()), ends);
}

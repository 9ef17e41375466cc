//! What is one kill, what is none, and which kills belong together.

use detector_common::oom::{OomMark, known};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    recording::{Recording, dying, further_victim},
    session::{Lines, Session, drain, told},
};

/// The recorded kill as that of a cgroup with `memory.oom.group`.
fn group_mark() -> OomMark {
    let mut mark = Recording::of("kubepods-systemd").on_version_2().mark();
    mark.levels[0].oom_group = 1;
    mark
}

/// The same as a probe of the decision would have completed it.
fn decided(mut mark: OomMark) -> OomMark {
    mark.known |= known::DECISION;
    mark.decision.boot_ns = mark.header.boot_ns - 1000;
    mark.decision.domain = mark.victim.cgroup;
    mark.decision.constraint = 3;
    mark
}

fn incidents(lines: &Lines) -> Vec<(&Value, &Value)> {
    lines.kills().into_iter().map(|kill| (&kill["incident"], &kill["incident_victim"])).collect()
}

#[rstest]
#[case::seen_by_tracepoints_alone(group_mark())]
#[case::seen_with_the_decision(decided(group_mark()))]
fn a_group_kill_is_one_incident_with_all_its_victims(#[case] first: OomMark) {
    let machine = Machine::version_2();
    let marks = (0..4).map(|index| further_victim(&first, index));
    let mut records = Recording::of("kubepods-systemd").on_version_2().with_marks(marks);
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        // The kernel counts the chosen victim twice.
        machine.kernel_counted(5);
        drain(pipeline, records);
    });
    let expected = [1, 2, 3, 4].map(|victim| (json!(1), json!(victim)));
    assert_eq!(incidents(&lines), expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    for kill in lines.kills() {
        assert_eq!((&kill["group_kill"], &kill["limit"]["hit"]), (&json!(true), &json!("container")));
    }
    let pids: std::collections::BTreeSet<_> = lines.kills().iter().map(|kill| kill["victim"]["pid"].as_u64()).collect();
    assert_eq!(pids.len(), 4);
    let summary = lines.summary();
    assert_eq!((&summary["kills"], &summary["incidents"]), (&json!(4), &json!(1)));
    assert_eq!((&summary["kernel_kills"], &summary["unaccounted"]), (&json!(5), &json!(0)));
}

#[test]
fn two_kills_in_turn_are_two_incidents() {
    let lines = told(Recording::of("two-in-turn"));
    assert_eq!(incidents(&lines), [(&json!(1), &json!(1)), (&json!(2), &json!(1))]);
    for kill in lines.kills() {
        assert_eq!(kill["limit"]["hit"], "container");
    }
}

#[test]
fn a_task_that_was_already_dying_is_no_kill() {
    let lines = told(Recording::of("kubepods-systemd").with_mark(dying));
    assert_eq!(lines.kills().len(), 0);
    assert_eq!((&lines.summary()["kills"], &lines.summary()["already_dying"]), (&json!(0), &json!(1)));
}

#[test]
fn a_dying_task_does_not_take_the_limit_from_the_kill_behind_it() {
    let records = Recording::of("kubepods-systemd");
    let kill = further_victim(&records.mark(), 1);
    let mut first = records.mark();
    dying(&mut first);
    let lines = told(records.with_marks([first, kill]));
    assert_eq!(lines.kill()["limit"]["hit"], "container");
}

#[test]
fn a_second_thread_of_a_victim_is_no_second_kill() {
    let records = Recording::of("four-threads");
    let first = records.mark();
    let mut second = first;
    second.header.sequence += 1;
    second.victim.pid += 1;
    let lines = told(records.with_marks([first, second]));
    assert_eq!(lines.kills().len(), 1);
    assert_eq!((&lines.summary()["kills"], &lines.summary()["duplicates"]), (&json!(1), &json!(1)));
}

#[test]
fn the_same_number_of_a_later_process_is_another_kill() {
    let records = Recording::of("plain-child");
    let mut again = records.mark();
    again.header.sequence += 1;
    again.victim.leader_start_ns += 5;
    again.levels[0].oom_events += 1;
    again.reclaim.boot_ns += 5;
    let marks = [records.mark(), again];
    assert_eq!(told(records.with_marks(marks)).summary()["incidents"], 2);
}

//! The end: the count of kills held against the kernel's, the number that was asked for, and an output that breaks.

use std::io::{self, Write};

use detector::agent::{AgentError, Failure, pipeline::Progress, sink::json::Json};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    recording::Recording,
    session::{Lines, Session, UNITS, drain},
};

/// Runs `recording`, with `between` done after the start and before any record is read.
fn run(machine: &Machine, session: &Session<'_>, recording: &str, between: impl FnOnce(&Machine)) -> Lines {
    session.run(&mut Recording::of(recording), |pipeline, records| {
        between(machine);
        drain(pipeline, records);
    })
}

fn reckoning(lines: &Lines) -> [&Value; 3] {
    ["kills", "kernel_kills", "unaccounted"].map(|field| &lines.summary()[field])
}

#[rstest]
#[case::as_many(2, 0)]
#[case::more(5, 3)]
#[case::fewer(1, -1)]
fn the_difference_to_the_kernels_count_is_shown(#[case] kernel: u64, #[case] difference: i64) {
    let machine = Machine::version_1();
    let lines = run(&machine, &Session::new(&machine), "two-in-turn", |machine| machine.kernel_counted(kernel));
    assert_eq!(reckoning(&lines), [&json!(2), &json!(kernel), &json!(difference)]);
}

#[test]
fn a_difference_is_traced_to_the_cgroup_whose_own_count_is_higher() {
    let machine = Machine::version_2();
    machine.make_cgroup("/unseen");
    machine.write("/sys/fs/cgroup/unseen/memory.events", "oom 1\noom_kill 4\n");
    let lines = run(&machine, &Session::new(&machine), "life", |machine| {
        machine.write("/sys/fs/cgroup/unseen/memory.events", "oom 2\noom_kill 6\n");
        machine.kernel_counted(2);
    });
    assert_eq!(reckoning(&lines), [&json!(0), &json!(2), &json!(2)]);
    assert_eq!(lines.summary()["differences"], json!({ "/unseen": 2 }));
}

#[test]
fn a_count_that_vanished_is_null_and_never_zero() {
    let machine = Machine::version_1();
    let lines = run(&machine, &Session::new(&machine), "two-in-turn", |machine| machine.remove("/proc/vmstat"));
    assert_eq!(reckoning(&lines), [&json!(2), &Value::Null, &Value::Null]);
}

#[test]
fn a_count_that_was_not_there_at_the_start_is_null_and_never_zero() {
    let machine = Machine::version_1();
    machine.write("/proc/vmstat", "nr_free_pages 1\n");
    let lines = run(&machine, &Session::new(&machine), "two-in-turn", |machine| machine.kernel_counted(2));
    assert_eq!(reckoning(&lines), [&json!(2), &Value::Null, &Value::Null]);
}

#[test]
fn a_kill_before_the_first_look_at_the_kernels_count_is_told_but_not_held_against_it() {
    let machine = Machine::version_1();
    let session = Session::new(&machine);
    session.set_time(Recording::of("plain-child").mark().header.boot_ns + 1);
    let lines = run(&machine, &session, "plain-child", |_| {});
    assert_eq!(reckoning(&lines), [&json!(1), &json!(0), &json!(0)]);
}

#[test]
fn it_ends_after_the_number_of_kills_that_was_asked_for() {
    let machine = Machine::version_1();
    let lines = Session::with_count(&machine, 1).run(&mut Recording::of("two-in-turn"), |pipeline, records| {
        machine.kernel_counted(2);
        assert_eq!(drain(pipeline, records), Progress::Enough);
    });
    assert_eq!(lines.kills().len(), 1);
    // More waited unread: the kernel's count says nothing about what was missed.
    assert_eq!(reckoning(&lines), [&json!(1), &json!(2), &Value::Null]);
}

#[test]
fn the_last_kill_that_was_asked_for_leaves_nothing_unaccounted() {
    let machine = Machine::version_1();
    let lines = Session::with_count(&machine, 2).run(&mut Recording::of("two-in-turn"), |pipeline, records| {
        machine.kernel_counted(2);
        assert_eq!(drain(pipeline, records), Progress::Enough);
    });
    assert_eq!(reckoning(&lines), [&json!(2), &json!(2), &json!(0)]);
}

#[test]
fn what_is_no_kill_does_not_count_towards_the_number() {
    let machine = Machine::version_1();
    let mut records = Recording::of("four-threads").with_mark(crate::recording::dying);
    let lines = Session::with_count(&machine, 1).run(&mut records, |pipeline, records| {
        assert_eq!(drain(pipeline, records), Progress::Waiting);
    });
    assert_eq!(lines.summary()["kills"], 0);
}

#[test]
fn records_that_wait_at_the_end_are_still_told() {
    let machine = Machine::version_1();
    let lines = Session::new(&machine).run(&mut Recording::of("two-in-turn"), |_, _| machine.kernel_counted(2));
    assert_eq!(reckoning(&lines), [&json!(2), &json!(2), &json!(0)]);
}

/// An output that takes some writes and then fails.
struct Breaking {
    writes_left: usize,
    kind: io::ErrorKind,
}

impl Write for Breaking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(self.kind)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[rstest]
#[case::a_reader_that_went_away(io::ErrorKind::BrokenPipe, Failure::OutputClosed)]
#[case::a_full_disk(io::ErrorKind::StorageFull, Failure::Other)]
fn an_output_that_breaks_ends_the_flow_with_its_error(
    #[case] kind: io::ErrorKind,
    #[case] failure: Failure,
    #[values(0, 1, 2, 3)] writes_left: usize,
) {
    let machine = Machine::version_1();
    let mut sink = Json::new(Breaking { writes_left, kind }, UNITS);
    let error = Session::new(&machine)
        .run_into(&mut sink, &mut Recording::of("two-in-turn"), |pipeline, records| pipeline.drain(records).map(|_| ()))
        .expect_err("four lines do not fit");
    assert!(matches!(&error, AgentError::Output(source) if source.kind() == kind), "{error:?}");
    assert_eq!(error.failure(), failure);
}

//! The kernel's log in the flow: as witness of a better method, and as the method.

use detector::agent::source::bpf::health::Dropped;
use detector::agent::{
    Detector, Method,
    pipeline::{Pipeline, Silent},
    sink::MethodChange,
};
use serde_json::json;

use crate::{
    machine::Machine,
    recording::{Recording, dying},
    session::{SECOND, Session, drain},
};

/// More than the grace that a record has.
const LATER: u64 = 3 * SECOND;

/// The line that the kernel logs of a kill of thread `tid`, as one record of `/dev/kmsg`.
fn killed(tid: u32) -> Vec<u8> {
    format!(
        "3,900,1000000,-;Memory cgroup out of memory: Killed process {tid} (worker) total-vm:90000kB, anon-rss:41000kB, \
         file-rss:500kB, shmem-rss:0kB, UID:0 pgtables:120kB oom_score_adj:0\n"
    )
    .into_bytes()
}

/// The end of the report before it.
fn report(cgroup: &str, pid: u32) -> Vec<u8> {
    format!(
        "6,899,999990,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={cgroup},\
         task_memcg={cgroup},task=worker,pid={pid},uid=0\n"
    )
    .into_bytes()
}

fn read(pipeline: &mut Pipeline<'_>, line: &[u8]) {
    pipeline.take_line(line, 0).expect("a Vec takes all");
}

fn silent(pipeline: &mut Pipeline<'_>) -> Vec<(Detector, String)> {
    let silent = pipeline.look_after().expect("a Vec takes all");
    silent.into_iter().map(|Silent { detector, reason }| (detector, reason)).collect()
}

fn tid(records: &Recording) -> u32 {
    records.mark().victim.pid
}

#[test]
fn a_line_whose_record_came_is_not_told_again() {
    let (machine, mut records) = (Machine::version_1(), Recording::of("kubepods-systemd"));
    let (session, tid) = (Session::new(&machine), tid(&records));
    let lines = session.run(&mut records, |pipeline, records| {
        drain(pipeline, records);
        read(pipeline, &killed(tid));
        session.pass(LATER);
        assert_eq!(silent(pipeline), []);
        session.pass(LATER);
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "raw_tracepoint");
}

#[test]
fn a_line_alone_is_told_after_its_grace_and_the_method_was_silent() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        read(pipeline, &killed(4711));
        session.pass(SECOND);
        assert_eq!(silent(pipeline), []);
        session.pass(LATER);
        drain(pipeline, records);
        let reason = "the kernel's log told of the kill of thread 4711, and no record came";
        assert_eq!(silent(pipeline), [(Detector::Oom, reason.to_owned())]);
        assert_eq!(silent(pipeline), []);
    });
    let kill = lines.kill();
    assert_eq!((&kill["method"], &kill["victim"]["tid"]), (&json!("kmsg"), &json!(4711)));
    assert_eq!((&kill["cpu"], &kill["cgroup"], &kill["limit"]["hit"]), (&json!(null), &json!(null), &json!("unknown")));
}

#[test]
fn a_record_lost_to_a_full_ring_is_told_by_the_log_and_its_method_is_not_silent() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    records.dropped = vec![Dropped { kind: "oom_mark", count: 1 }];
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        read(pipeline, &killed(4711));
        session.pass(SECOND);
        assert_eq!(silent(pipeline), []);
        drain(pipeline, records);
        session.pass(2 * SECOND);
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "kmsg");
}

#[test]
fn a_detector_that_lives_by_the_log_is_told_each_kill_once_with_the_cgroup_of_its_report() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, _| {
        pipeline.set_method(Detector::Oom, Some(Method::Kmsg));
        read(pipeline, &report("/plain/here", 4711));
        read(pipeline, &killed(4711));
        session.pass(LATER);
        assert_eq!(silent(pipeline), []);
    });
    let kill = lines.kill();
    assert_eq!(kill["cgroup"], json!({ "hierarchy": null, "id": null, "path": "/plain/here" }));
    assert_eq!((&kill["limit"]["hit"], &kill["victim"]["pid"]), (&json!("cgroup"), &json!(4711)));
}

#[test]
fn what_waits_for_its_record_is_told_when_the_method_changes() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, _| {
        read(pipeline, &killed(4711));
        session.pass(SECOND);
        silent(pipeline);
        let change = MethodChange {
            boot_ns: SECOND,
            detector: Detector::Oom,
            before: Method::RawTracepoint,
            now: Some(Method::Kmsg),
            reason: "its link was closed from outside".to_owned(),
        };
        pipeline.method_changed(&change).expect("a Vec takes all");
    });
    let told: Vec<_> = lines.0.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    assert_eq!(told, ["started", "method_changed", "oom_kill", "summary"]);
}

#[test]
fn what_the_log_told_last_is_told_at_the_end() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let lines = Session::new(&machine).run(&mut records, |pipeline, _| read(pipeline, &killed(4711)));
    assert_eq!(lines.kill()["victim"]["tid"], 4711);
}

#[test]
fn a_detector_that_is_off_is_told_nothing() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let lines = Session::new(&machine).run(&mut records, |pipeline, _| {
        pipeline.set_method(Detector::Oom, None);
        read(pipeline, &killed(4711));
    });
    assert_eq!(lines.kills(), Vec::<&serde_json::Value>::new());
}

#[test]
fn a_task_called_already_dying_that_the_log_says_was_killed_is_a_kill() {
    let machine = Machine::version_1();
    let mut records = Recording::of("kubepods-systemd").with_mark(dying);
    let (session, tid) = (Session::new(&machine), tid(&records));
    session.set_time(records.mark().header.boot_ns);
    let lines = session.run(&mut records, |pipeline, records| {
        drain(pipeline, records);
        read(pipeline, &killed(tid));
        session.pass(LATER);
        drain(pipeline, records);
        // Its record came, after all.
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "kmsg");
    assert_eq!(lines.summary()["already_dying"], 0);
}

#[test]
fn lines_that_were_overwritten_are_counted_and_prove_nothing() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, _| {
        pipeline.take_line(b"6,77,5,-;usb 1-1: new device\n", 40).expect("a Vec takes all");
        session.pass(LATER);
        assert_eq!(silent(pipeline), []);
    });
    // The log was a witness only.
    assert_eq!(lines.summary()["lost"], 0);
    assert_eq!(lines.notices(), [("source", "log_overrun", 40)]);
    let lines = session.run(&mut records, |pipeline, _| {
        pipeline.set_method(Detector::HungTask, Some(Method::Kmsg));
        pipeline.take_line(b"6,77,5,-;usb 1-1: new device\n", 40).expect("a Vec takes all");
    });
    assert_eq!(lines.summary()["lost_ring"], json!({ "kernel_log": 40 }));
}

#[test]
fn what_no_kernel_writes_is_counted_by_its_reason() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let lines = Session::new(&machine).run(&mut records, |pipeline, _| read(pipeline, b"no prefix"));
    assert_eq!(lines.summary()["lost_decode"], json!({ "log_prefix": 1 }));
}

#[test]
fn a_flow_that_was_held_up_between_a_record_and_its_line_tells_the_kill_once() {
    let (machine, mut records) = (Machine::version_1(), Recording::of("kubepods-systemd"));
    let (session, tid) = (Session::new(&machine), tid(&records));
    session.set_time(records.mark().header.boot_ns + 1_000_000);
    let lines = session.run(&mut records, |pipeline, records| {
        drain(pipeline, records);
        // The write of the row waited for its reader; then the log is read.
        session.pass(LATER);
        read(pipeline, &killed(tid));
        pipeline.log_was_read();
        session.pass(LATER);
        drain(pipeline, records);
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "raw_tracepoint");
    assert_eq!(lines.summary()["kills"], 1);
}

#[test]
fn a_kill_between_two_methods_is_told_by_the_log_and_the_new_one_was_not_silent() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        let change = MethodChange {
            boot_ns: SECOND,
            detector: Detector::Oom,
            before: Method::Fentry,
            now: Some(Method::Kprobe),
            reason: "its link was closed from outside".to_owned(),
        };
        pipeline.method_changed(&change).expect("a Vec takes all");
        // Killed between detach and attach, read after.
        session.pass(SECOND / 20);
        read(pipeline, &killed(4711));
        session.pass(LATER);
        drain(pipeline, records);
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "kmsg");
}

#[test]
fn a_kill_while_the_same_method_was_attached_anew_is_told_by_the_log_and_it_was_not_silent() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        pipeline.attached_anew(Detector::Oom);
        read(pipeline, &killed(4711));
        session.pass(LATER);
        drain(pipeline, records);
        assert_eq!(silent(pipeline), []);
    });
    assert_eq!(lines.kill()["method"], "kmsg");
}

#[test]
fn classic_tracepoints_are_silent_only_after_several_kills_in_a_row() {
    let (machine, mut records) = (Machine::version_1(), Recording::default());
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        pipeline.set_method(Detector::Oom, Some(Method::Tracepoint));
        for (tid, silences) in [(1, 0), (2, 0), (3, 1)] {
            read(pipeline, &killed(tid));
            session.pass(LATER);
            drain(pipeline, records);
            assert_eq!(silent(pipeline).len(), silences, "{tid}");
        }
    });
    assert_eq!(lines.kills().len(), 3);
}

//! Whose cgroup it was: learned in time, remembered after its end, and named by the runtime's files.

use std::{path::PathBuf, time::Duration};

use detector::agent::{
    locate::{
        NameReader,
        cgroups::RETENTION_NS,
        names::reader::{Reply, Request},
    },
    pipeline::WALK_INTERVAL_NS,
    source::bpf::health::Dropped,
};
use serde_json::{Value, json};

use crate::{
    kills::ID,
    machine::Machine,
    recording::{Recording, further_victim},
    session::{SECOND, Session, drain, told},
};

const CONFIG: &str = include_str!("../../../tests/fixtures/runtime/containerd-container.json");

fn bundle(file: &str) -> String {
    format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/{file}")
}

fn names(kill: &Value) -> [&Value; 3] {
    ["namespace", "pod", "container"].map(|field| &kill["owner"][field])
}

#[test]
fn a_kill_whose_cgroup_was_removed_before_the_record_was_read_is_still_named() {
    let lines = told(Recording::of("removed-at-once"));
    let kill = lines.kill();
    assert_eq!(kill["owner"]["container_id"], ID);
    assert_eq!(kill["limit"]["hit"], "container");
    assert_eq!(lines.summary()["unresolved"], 0);
}

#[test]
fn ten_minutes_after_its_end_a_cgroup_is_forgotten() {
    for (late_ns, resolved) in [(RETENTION_NS - 60 * SECOND, true), (RETENTION_NS + 60 * SECOND, false)] {
        let mut records = Recording::of("removed-at-once").with_mark(|mark| mark.header.boot_ns += late_ns);
        let at = records.mark().header.boot_ns;
        records.bulk.push_back(records.unrelated_cgroup(at));
        let lines = told(records);
        assert_eq!(lines.kill()["cgroup"]["path"].is_string(), resolved, "{late_ns} ns late");
        assert_eq!(lines.summary()["unresolved"], u64::from(!resolved));
    }
}

#[test]
fn a_kill_that_was_read_before_the_record_of_its_cgroup_is_named() {
    let mut records = Recording::of("kubepods-systemd");
    records.bulk_is_late = true;
    let lines = told(records);
    assert_eq!(lines.kill()["owner"]["container_id"], ID);
    assert_eq!(lines.notices(), []);
}

#[test]
fn the_runtimes_files_name_namespace_pod_and_container() {
    let machine = Machine::version_1();
    machine.write(&bundle("config.json"), CONFIG);
    let mut records = Recording::of("namespace-child");
    let init = records.mark().victim.tgid;
    machine.write(&bundle("init.pid"), &init.to_string());
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!(names(lines.kill()), [&json!("shop"), &json!("web-7d9c-x2x5k"), &json!("app")]);
    // The runtime's word goes before the number in the pid namespace.
    assert_eq!(lines.kill()["victim"]["process"], "init");
}

#[test]
fn names_that_were_read_in_time_outlive_the_runtimes_files() {
    let machine = Machine::version_1();
    machine.write(&bundle("config.json"), CONFIG);
    let mut records = Recording::of("removed-at-once");
    let kill = records.precious.split_off(0);
    let ends = records.bulk.split_off(4);
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
        machine.remove(&bundle("config.json"));
        (records.bulk, records.precious) = (ends, kill);
        drain(pipeline, records);
    });
    assert_eq!(names(lines.kill()), [&json!("shop"), &json!("web-7d9c-x2x5k"), &json!("app")]);
}

#[test]
fn a_damaged_file_of_a_runtime_is_told_and_the_kill_keeps_what_its_path_says() {
    let machine = Machine::version_1();
    machine.write(&bundle("config.json"), "{\"annotations\": {");
    let mut records = Recording::of("kubepods-systemd");
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!(names(lines.kill()), [&Value::Null; 3]);
    assert_eq!(lines.kill()["owner"]["container_id"], ID);
    assert_eq!(lines.notices().iter().map(|(stage, kind, _)| (*stage, *kind)).next(), Some(("locate", "names")));
}

#[test]
fn a_damaged_file_of_a_runtime_is_told_as_soon_as_it_was_read() {
    let machine = Machine::version_1();
    machine.write(&bundle("config.json"), "{\"annotations\": {");
    let mut records = Recording::of("kubepods-systemd");
    records.precious.clear();
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        drain(pipeline, records);
        session.pass(3600 * SECOND);
    });
    assert_eq!(lines.of_type("notice")[0]["time"], lines.of_type("started")[0]["time"]);
}

#[test]
fn a_cgroup_that_was_there_before_the_start_is_known_from_the_walk() {
    let machine = Machine::version_1();
    let id = machine.make_cgroup("/system.slice/db.service");
    let mut records = Recording::of("plain-child").with_mark(|mark| mark.victim.cgroup.id = id);
    records.bulk.clear();
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!(lines.kill()["cgroup"]["path"], "/system.slice/db.service");
    assert_eq!(
        (&lines.kill()["owner"]["kind"], &lines.kill()["owner"]["unit"]),
        (&json!("unit"), &json!("db.service"))
    );
}

#[test]
fn an_unknown_cgroup_is_found_by_the_process_that_lives_in_it() {
    let machine = Machine::version_1();
    let mut records = Recording::of("plain-child");
    records.bulk.clear();
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        let id = machine.make_cgroup("/late");
        *records = records.clone().with_mark(|mark| mark.victim.cgroup.id = id);
        machine.write(&format!("/proc/{}/cgroup", records.mark().victim.pid), "4:memory:/late\n");
        drain(pipeline, records);
    });
    assert_eq!(lines.kill()["cgroup"]["path"], "/late");
}

#[test]
fn a_kill_in_a_cgroup_that_nobody_knows_is_told_and_counted() {
    let mut records = Recording::of("kubepods-systemd");
    records.bulk.clear();
    let lines = told(records);
    let kill = lines.kill();
    assert_eq!((&kill["cgroup"]["path"], &kill["owner"]["kind"]), (&Value::Null, &json!("unknown")));
    assert_eq!((&kill["limit"]["hit"], &kill["victim"]["process"]), (&json!("unknown"), &json!("unknown")));
    assert_eq!((&lines.summary()["kills"], &lines.summary()["unresolved"]), (&json!(1), &json!(1)));
}

#[test]
fn unknown_cgroups_are_told_once_a_minute() {
    let machine = Machine::version_1();
    let mut records = Recording::of("plain-child");
    records.bulk.clear();
    let first = records.mark();
    let mut records = records.with_marks((0..3).map(|index| further_victim(&first, index)));
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        let rest = records.precious.split_off(1);
        drain(pipeline, records);
        records.precious = rest;
        session.pass(30 * SECOND);
        drain(pipeline, records);
        session.pass(30 * SECOND);
        pipeline.look_after().expect("a Vec takes all");
    });
    assert_eq!(lines.notices(), [("locate", "unresolved", 1), ("locate", "unresolved", 2)]);
    assert_eq!(lines.summary()["unresolved"], 3);
}

#[test]
fn after_lost_records_of_cgroup_life_the_tree_is_walked_again_even_if_they_were_lost_right_after_a_walk() {
    let machine = Machine::version_1();
    let mut records = Recording::of("plain-child");
    records.bulk.clear();
    let kill = records.precious.split_off(0);
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        let id = machine.make_cgroup("/missed");
        records.dropped = vec![Dropped { kind: "cgroup_made", count: 7 }];
        drain(pipeline, records);
        session.pass(WALK_INTERVAL_NS);
        records.precious = kill;
        *records = records.clone().with_mark(|mark| mark.victim.cgroup.id = id);
        records.dropped = vec![Dropped { kind: "cgroup_made", count: 7 }];
        drain(pipeline, records);
    });
    assert_eq!(lines.kill()["cgroup"]["path"], "/missed");
}

#[test]
fn a_kill_whose_cgroup_was_lost_in_the_same_batch_is_named_by_a_walk() {
    let machine = Machine::version_1();
    let mut records = Recording::of("plain-child");
    records.bulk.clear();
    let session = Session::new(&machine);
    let lines = session.run(&mut records, |pipeline, records| {
        session.pass(WALK_INTERVAL_NS);
        let id = machine.make_cgroup("/missed");
        *records = records.clone().with_mark(|mark| mark.victim.cgroup.id = id);
        records.dropped = vec![Dropped { kind: "cgroup_made", count: 1 }];
        drain(pipeline, records);
    });
    assert_eq!(lines.kill()["cgroup"]["path"], "/missed");
}

#[test]
fn where_only_a_part_of_the_cgroups_is_seen_that_is_told_and_new_ones_are_known() {
    let machine = Machine::version_2();
    machine.write("/sys/fs/cgroup/cgroup.events", "populated 1\n");
    let mut records = Recording::of("kubepods-systemd").on_version_2();
    let lines = Session::new(&machine).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!(lines.notices(), [("locate", "partial_view", 1)]);
    assert_eq!(lines.kill()["owner"]["container_id"], ID);
}

/// A reader that answers nothing, as one that a dead file system holds.
#[derive(Debug)]
struct Stuck;

impl NameReader for Stuck {
    fn ask(&mut self, _request: Request) -> std::io::Result<()> {
        Ok(())
    }

    fn hurry(&mut self, _id: &str) {}

    fn take(&mut self) -> Option<Reply> {
        None
    }

    fn wait(&mut self, patience: Duration) -> Duration {
        patience
    }

    fn reading(&self) -> Option<PathBuf> {
        Some("/run/containerd/config.json".into())
    }
}

#[test]
fn a_file_system_that_does_not_answer_costs_a_kill_its_names_and_nothing_else() {
    let machine = Machine::version_1();
    let mut records = Recording::of("kubepods-systemd");
    let lines = Session::new(&machine).with_reader(|_| Box::new(Stuck)).run(&mut records, |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!((names(lines.kill()), &lines.kill()["owner"]["container_id"]), ([&Value::Null; 3], &json!(ID)));
    assert_eq!(lines.notices(), [("locate", "names_slow", 1)]);
    let message = lines.of_type("notice")[0]["message"].as_str().expect("text");
    assert!(message.contains("held up by /run/containerd/config.json"), "{message}");
}

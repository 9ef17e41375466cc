//! Each recorded kill becomes one line that names victim, owner and limit.

use detector::{agent::sink::terminal::Terminal, ops::screen::Screen};
use insta::assert_snapshot;
use rstest::rstest;
use serde_json::json;

use crate::{
    machine::Machine,
    recording::Recording,
    session::{Session, UNITS, drain, told},
};

pub(crate) const POD_UID: &str = "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11";
pub(crate) const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";
pub(crate) const POD: &str =
    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d6dfc9d_3f4b_4c55_8a6b_2a0a6f4f4d11.slice";
const LIMIT: u64 = 32 << 20;

#[test]
fn a_kill_in_a_plain_cgroup_is_told_with_its_path_and_limit() {
    let lines = told(Recording::of("plain-child"));
    let kill = lines.kill();
    assert_eq!(kill["cgroup"]["path"], "/recorded/plain");
    assert_eq!(kill["owner"]["kind"], "cgroup");
    assert_eq!(kill["limit"]["hit"], "cgroup");
    assert_eq!(kill["limit"]["bytes"], LIMIT);
    assert_eq!(kill["limit"]["cgroup"]["path"], "/recorded/plain");
    assert_eq!(kill["victim"]["comm"], "worker");
    assert_eq!(kill["victim"]["oom_score_adj"], 500);
    assert_eq!(kill["victim"]["process"], "unknown");
    assert_eq!(kill["group_kill"], false);
    let anon = kill["victim"]["anon_bytes"].as_u64().expect("known");
    // What it shares with its parent since the fork is charged to another cgroup.
    assert!((LIMIT / 2..=2 * LIMIT).contains(&anon), "{anon} bytes of {LIMIT}");
}

#[rstest]
#[case::of_the_cgroupfs_driver("kubepods-cgroupfs", "unknown", "container")]
#[case::of_the_systemd_driver("kubepods-systemd", "containerd", "container")]
#[case::by_the_pods_limit("pod-limit", "containerd", "pod")]
#[case::by_the_limit_of_all_pods("ancestor-limit", "unknown", "ancestor")]
#[case::by_equal_limits("equal-limits", "containerd", "container")]
#[case::of_four_threads("four-threads", "containerd", "container")]
fn a_kill_in_a_container_names_container_pod_and_limit(
    #[case] recording: &str,
    #[case] runtime: &str,
    #[case] limit: &str,
) {
    let lines = told(Recording::of(recording));
    let kill = lines.kill();
    let owner = json!({
        "kind": "container", "runtime": runtime, "container_id": ID, "container": null, "pod_uid": POD_UID,
        "pod": null, "namespace": null, "qos": "burstable", "unit": null,
    });
    assert_eq!(kill["owner"], owner);
    assert_eq!((&kill["limit"]["hit"], &kill["limit"]["bytes"]), (&json!(limit), &json!(LIMIT)));
    assert_eq!(kill["victim"]["comm"], "worker");
    assert_eq!((&kill["incident"], &kill["incident_victim"]), (&json!(1), &json!(1)));
    assert_eq!(lines.summary()["unresolved"], 0);
    assert_eq!(lines.notices(), []);
}

#[test]
fn the_cgroup_whose_limit_was_hit_has_a_path_of_its_own() {
    assert_eq!(told(Recording::of("pod-limit")).kill()["limit"]["cgroup"]["path"], POD);
    assert_eq!(told(Recording::of("ancestor-limit")).kill()["limit"]["cgroup"]["path"], "/kubepods");
}

#[test]
fn a_thread_that_outlived_its_leader_is_told_with_both_names() {
    let lines = told(Recording::of("thread-victim"));
    let victim = &lines.kill()["victim"];
    assert_eq!((&victim["comm"], &victim["leader_comm"]), (&json!("late-thread"), &json!("leader")));
    assert_ne!(victim["pid"], victim["tid"]);
}

#[rstest]
#[case("namespace-init", 1, "init")]
#[case("namespace-child", 2, "child")]
fn a_pid_namespace_tells_init_from_child(#[case] recording: &str, #[case] pid: u32, #[case] process: &str) {
    let lines = told(Recording::of(recording));
    let victim = &lines.kill()["victim"];
    assert_eq!((&victim["namespace_pid"], &victim["process"]), (&json!(pid), &json!(process)));
}

#[test]
fn cgroups_that_come_and_go_are_no_lines() {
    let lines = told(Recording::of("life"));
    assert_eq!(lines.0.len(), 2, "{:?}", lines.0);
    assert_eq!(lines.summary()["lost"], 0);
}

#[test]
fn whole_lines_in_json() {
    let machine = Machine::version_1();
    let lines = Session::new(&machine).run(&mut Recording::of("kubepods-systemd"), |pipeline, records| {
        machine.kernel_counted(1);
        drain(pipeline, records);
    });
    let pretty: Vec<String> =
        lines.0.iter().map(|line| serde_json::to_string_pretty(line).expect("it was JSON")).collect();
    assert_snapshot!(pretty.join("\n"));
}

#[test]
fn whole_rows_on_a_terminal() {
    let machine = Machine::version_1();
    let (mut table, mut beside) = (Vec::new(), Vec::new());
    let screen = Screen { width: || Some(120), colour: false };
    let mut sink = Terminal::new(&mut table, &mut beside, screen, UNITS);
    let mut records = Recording::of("two-in-turn");
    let session = Session::new(&machine);
    session
        .run_into(&mut sink, &mut records, |pipeline, records| {
            machine.kernel_counted(2);
            pipeline.drain(records).map(|_| ())
        })
        .expect("a Vec takes all");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert_snapshot!(format!("{}--- beside the table ---\n{}", text(table), text(beside)));
}

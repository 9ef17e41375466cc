//! Tasks that hang: from the record, by way of `/proc`, to the lines of their lives.

mod conditions;

use detector::{
    agent::{
        Detector, Method,
        pipeline::{Pipeline, Progress},
    },
    clock,
};
use detector_common::{
    ABI, Header, Kind,
    counter::Ring,
    hung_task::{FRAMES, HungTask, Task, flags, known, lock_kind},
    oom::COMM_LENGTH,
};
use serde_json::{Value, json};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    machine::Machine,
    recording::Recording,
    session::{Lines, SECOND, Session, drain},
};

const HIERARCHY: u32 = 4;
const TID: u32 = 4711;
/// When all tasks of these tests start, in ticks of user space and nanoseconds.
const START_TICKS: u64 = 5_000;
const START_NS: u64 = 50_001_234_567;
const POD: &str = "/kubepods/burstable/pod0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11";
const KALLSYMS: &str = "\
ffffffff81001000 T io_schedule
ffffffff81002000 t __mutex_lock
ffffffff81003000 D end
ffffffffc0401000 t ext4_map_blocks\t[ext4]
";

const CONFIG: &str = include_str!("../../../tests/fixtures/runtime/containerd-container.json");

fn container(digit: char) -> String {
    format!("{POD}/{}", digit.to_string().repeat(64))
}

fn comm(name: &str) -> [u8; COMM_LENGTH] {
    let mut comm = [0; COMM_LENGTH];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

/// What the kernel writes of thread `tid` of a process of its own, in cgroup `cgroup`, `at_s` seconds after boot.
pub(crate) fn hung(tid: u32, cgroup: u64, at_s: u64) -> HungTask {
    let mut record = HungTask::new_zeroed();
    record.header = Header {
        abi: ABI,
        kind: Kind::HUNG_TASK,
        length: size_of::<HungTask>() as u32,
        boot_ns: at_s * SECOND,
        sequence: at_s,
        cpu: 0,
        ring: Ring::Precious as u32,
    };
    record.known = known::TGID | known::PID | known::START | known::LEADER_START | known::COMM | known::LEADER_COMM;
    record.known |= known::CGROUP | known::SWITCHES | known::HUNG | known::STACK;
    record.flags = flags::NO_LOCK;
    record.task = task(tid, "writer", cgroup);
    record.switches = 42;
    record.hung_jiffies = jiffies(10);
    record.frame_count = 2;
    record.stack[..2].copy_from_slice(&[0xffff_ffff_8100_1046, 0xffff_ffff_c040_1012]);
    record
}

fn task(tid: u32, name: &str, cgroup: u64) -> Task {
    let mut task = Task::new_zeroed();
    (task.tgid, task.pid) = (tid, tid);
    (task.start_ns, task.leader_start_ns) = (START_NS, START_NS);
    (task.comm, task.leader_comm) = (comm(name), comm(name));
    (task.cgroup.id, task.cgroup.hierarchy) = (cgroup, HIERARCHY);
    task
}

/// So many seconds in jiffies of this machine.
fn jiffies(seconds: u64) -> u64 {
    seconds * SECOND / u64::try_from(clock::tick().as_nanos()).expect("a tick is short")
}

/// The fake kernel shows this task.
fn show(machine: &Machine, tid: u32, state: char, switches: u64, start_ticks: u64) {
    let status = format!(
        "Name:\twriter\nState:\t{state} (so it is)\nTgid:\t{tid}\nvoluntary_ctxt_switches:\t{switches}\n\
         nonvoluntary_ctxt_switches:\t0\n"
    );
    machine.write(&format!("/proc/{tid}/status"), &status);
    let stat = format!("{tid} (writer) {state} 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 0 0\n");
    machine.write(&format!("/proc/{tid}/stat"), &stat);
    machine.write(&format!("/proc/{tid}/comm"), "writer\n");
}

fn remove(machine: &Machine, tid: u32) {
    for file in ["status", "stat", "comm"] {
        machine.remove(&format!("/proc/{tid}/{file}"));
    }
}

/// A machine with a container in which task [`TID`] hangs; the container's cgroup.
fn machine() -> (Machine, u64) {
    let machine = Machine::version_1();
    machine.write("/proc/kallsyms", KALLSYMS);
    let cgroup = machine.make_cgroup(&container('a'));
    let id = "a".repeat(64);
    machine.write(&format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"), CONFIG);
    show(&machine, TID, 'D', 42, START_TICKS);
    (machine, cgroup)
}

fn records(records: impl IntoIterator<Item = HungTask>) -> Recording {
    let precious = records.into_iter().map(|record| record.as_bytes().to_vec()).collect();
    Recording { precious, ..Recording::default() }
}

fn push(into: &mut Recording, record: &HungTask) {
    into.precious.push_back(record.as_bytes().to_vec());
}

/// The time of the next look comes, and open hangs are looked at.
fn poll(session: &Session<'_>, pipeline: &mut Pipeline<'_>) {
    let after = pipeline.next_due().expect("a task hangs");
    session.pass(u64::try_from(after.as_nanos()).expect("soon"));
    pipeline.look_after().expect("a Vec takes all");
}

/// Number and state of each line of a hang.
fn states(lines: &Lines) -> Vec<(u64, &str)> {
    let state = |line: &'_ Value| line["hang"].as_u64().expect("a number");
    lines.of_type("hung_task").into_iter().map(|line| (state(line), line["state"].as_str().expect("a word"))).collect()
}

/// One record, then what `change` makes of the machine, then a look.
fn told_after(change: impl FnOnce(&Machine)) -> Lines {
    let (machine, cgroup) = machine();
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    session.run(&mut records([hung(TID, cgroup, 100)]), |pipeline, records| {
        drain(pipeline, records);
        change(&machine);
        poll(&session, pipeline);
    })
}

#[test]
fn a_hang_is_raised_with_its_container_its_stack_and_its_length() {
    let lines = told_after(|_| {});
    let hang = lines.of_type("hung_task")[0];
    assert_eq!(hang["time"], "2023-11-14T22:15:00.000000Z");
    assert_eq!((&hang["hang"], &hang["state"], &hang["hung_ms"]), (&json!(1), &json!("raised"), &json!(10_000)));
    let expected = json!({
        "pid": TID, "tid": TID, "comm": "writer", "leader_comm": "writer", "started_boot_ns": START_NS,
        "thread_started_boot_ns": START_NS,
    });
    assert_eq!(hang["task"], expected);
    assert_eq!(hang["cgroup"]["path"], container('a'));
    assert_eq!(hang["owner"]["container_id"], "a".repeat(64));
    let names = ["namespace", "pod", "container"].map(|field| &hang["owner"][field]);
    assert_eq!(names, [&json!("shop"), &json!("web-7d9c-x2x5k"), &json!("app")]);
    assert_eq!(hang["owner"]["pod_uid"], "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11");
    assert_eq!(hang["lock"], json!({ "kind": "none", "holder": null }));
    assert_eq!(hang["stack"], json!(["io_schedule+0x46", "ext4_map_blocks+0x12 [ext4]"]));
    assert_eq!((&lines.summary()["hangs"], &lines.summary()["hangs_open"]), (&json!(1), &json!(1)));
    assert_eq!(lines.notices(), []);
}

#[test]
fn a_task_that_stands_is_told_at_each_scan_and_stays_open_at_the_end() {
    let (machine, cgroup) = machine();
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let lines = session.run(&mut records([hung(TID, cgroup, 100)]), |pipeline, records| {
        drain(pipeline, records);
        // Symbols cost one look a hang.
        machine.remove("/proc/kallsyms");
        for scan in 1..=2 {
            poll(&session, pipeline);
            session.set_time((100 + 10 * scan) * SECOND);
            let mut again = hung(TID, cgroup, 100 + 10 * scan);
            again.known &= !known::HUNG;
            push(records, &again);
            drain(pipeline, records);
        }
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "sustained"), (1, "sustained")]);
    let hangs = lines.of_type("hung_task");
    assert_eq!(hangs.iter().map(|hang| &hang["hung_ms"]).collect::<Vec<_>>(), [10_000, 20_000, 30_000]);
    assert_eq!(hangs[0]["stack"], hangs[2]["stack"]);
    assert_eq!((&lines.summary()["hangs"], &lines.summary()["hangs_open"]), (&json!(1), &json!(1)));
    assert_eq!(lines.notices(), []);
}

#[test]
fn a_task_that_runs_again_is_told_once_and_looked_at_no_more() {
    let (machine, cgroup) = machine();
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let lines = session.run(&mut records([hung(TID, cgroup, 100)]), |pipeline, records| {
        assert_eq!(pipeline.next_due(), None);
        drain(pipeline, records);
        poll(&session, pipeline);
        show(&machine, TID, 'D', 43, START_TICKS);
        poll(&session, pipeline);
        assert_eq!(pipeline.next_due(), None);
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "ran")]);
    let end = lines.of_type("hung_task")[1];
    assert_eq!((&end["boot_ns"], &end["hung_ms"]), (&json!(102 * SECOND), &json!(11_000)));
    assert_eq!(end["owner"]["container_id"], "a".repeat(64));
    assert_eq!(lines.summary()["hangs_open"], 0);
}

#[test]
fn a_task_that_waits_for_something_else_by_now_ran() {
    assert_eq!(states(&told_after(|machine| show(machine, TID, 'S', 42, START_TICKS))), [(1, "raised"), (1, "ran")]);
}

#[test]
fn a_task_that_is_gone_exited() {
    assert_eq!(states(&told_after(|machine| remove(machine, TID))), [(1, "raised"), (1, "exited")]);
    assert_eq!(states(&told_after(|machine| show(machine, TID, 'Z', 44, START_TICKS))), [(1, "raised"), (1, "exited")]);
}

#[test]
fn a_thread_id_that_is_another_tasks_by_now_means_exited() {
    let lines = told_after(|machine| show(machine, TID, 'D', 42, START_TICKS + 100));
    assert_eq!(states(&lines), [(1, "raised"), (1, "exited")]);
}

#[test]
fn a_task_that_cannot_be_looked_at_stays_open_and_that_is_told() {
    let lines = told_after(|machine| machine.write(&format!("/proc/{TID}/status"), "nonsense"));
    assert_eq!(states(&lines), [(1, "raised")]);
    assert_eq!(lines.notices(), [("source", "task_unreadable", 1)]);
}

#[test]
fn a_record_that_is_written_while_tasks_are_looked_at_does_not_raise_an_ended_hang_again() {
    let (machine, cgroup) = machine();
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let lines = session.run(&mut records([hung(TID, cgroup, 100)]), |pipeline, records| {
        drain(pipeline, records);
        show(&machine, TID, 'R', 43, START_TICKS);
        session.set_time(110 * SECOND);
        session.set_pace(SECOND);
        pipeline.look_after().expect("a Vec takes all");
        // The first look at the clock came before it, and the last one after it.
        push(records, &hung(TID, cgroup, 112));
        drain(pipeline, records);
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "ran")]);
}

#[test]
fn thirty_tasks_that_hang_at_once_are_all_told_and_all_end() {
    let (machine, cgroup) = machine();
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let tids = 5000..5030;
    let lines = session.run(&mut records(tids.clone().map(|tid| hung(tid, cgroup, 100))), |pipeline, records| {
        tids.clone().for_each(|tid| show(&machine, tid, 'D', 42, START_TICKS));
        drain(pipeline, records);
        tids.clone().for_each(|tid| show(&machine, tid, 'R', 43, START_TICKS));
        poll(&session, pipeline);
    });
    let states = states(&lines);
    assert_eq!(states[..30], (1..=30).map(|number| (number, "raised")).collect::<Vec<_>>());
    assert_eq!(states[30..], (1..=30).map(|number| (number, "ran")).collect::<Vec<_>>());
    assert_eq!((&lines.summary()["hangs"], &lines.summary()["hangs_open"]), (&json!(30), &json!(0)));
}

#[test]
fn the_holder_of_the_lock_is_told_with_its_own_container() {
    let (machine, cgroup) = machine();
    let other = machine.make_cgroup(&container('b'));
    let mut record = hung(TID, cgroup, 100);
    record.flags = flags::HOLDER_LIKELY;
    record.known |= known::LOCK | known::HOLDER | known::HOLDER_CGROUP;
    record.lock_kind = lock_kind::RWSEM_WRITER;
    record.holder = task(4800, "reader", other);
    show(&machine, 4800, 'D', 7, START_TICKS);
    let session = Session::new(&machine);
    let lines = session.run(&mut records([record]), |pipeline, records| {
        drain(pipeline, records);
    });
    let lock = &lines.of_type("hung_task")[0]["lock"];
    assert_eq!((&lock["kind"], &lock["holder"]["likely"]), (&json!("rwsem_writer"), &json!(true)));
    assert_eq!((&lock["holder"]["pid"], &lock["holder"]["comm"]), (&json!(4800), &json!("reader")));
    assert_eq!(lock["holder"]["cgroup"]["path"], container('b'));
    assert_eq!(lock["holder"]["owner"]["container_id"], "b".repeat(64));
}

#[test]
fn a_likely_holder_that_is_no_task_any_more_is_not_told() {
    let (machine, cgroup) = machine();
    let mut record = hung(TID, cgroup, 100);
    record.flags = flags::HOLDER_LIKELY;
    record.known |= known::LOCK | known::HOLDER;
    record.lock_kind = lock_kind::RWSEM_WRITER;
    record.holder = task(4800, "long gone", 0);
    let lines = Session::new(&machine).run(&mut records([record]), |pipeline, records| {
        drain(pipeline, records);
    });
    let lock = &lines.of_type("hung_task")[0]["lock"];
    assert_eq!((&lock["kind"], &lock["holder"]), (&json!("rwsem_writer"), &json!(null)));
}

#[test]
fn where_proc_is_not_the_machines_a_hang_ends_when_the_kernel_finds_it_no_more() {
    let (machine, cgroup) = machine();
    machine.link("/proc/self/ns/pid", "pid:[4026532999]");
    machine.write("/proc/sys/kernel/hung_task_timeout_secs", "10\n");
    remove(&machine, TID);
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let lines = session.run(&mut records([hung(TID, cgroup, 100)]), |pipeline, records| {
        drain(pipeline, records);
        while pipeline.next_due().is_some() {
            poll(&session, pipeline);
        }
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "exited")]);
    let ended = lines.of_type("hung_task")[1]["boot_ns"].as_u64().expect("a time");
    assert!(ended > 130 * SECOND, "{ended}");
}

#[test]
fn what_neither_record_nor_proc_tells_is_null() {
    let (machine, cgroup) = machine();
    remove(&machine, TID);
    let mut record = hung(TID, cgroup, 100);
    (record.known, record.flags) = (known::PID, 0);
    let lines = Session::new(&machine).run(&mut records([record]), |pipeline, records| {
        drain(pipeline, records);
    });
    let hang = lines.of_type("hung_task")[0];
    let nothing = json!({
        "pid": null, "tid": TID, "comm": null, "leader_comm": null, "started_boot_ns": null,
        "thread_started_boot_ns": null,
    });
    assert_eq!(hang["task"], nothing);
    assert_eq!((&hang["cgroup"], &hang["lock"], &hang["stack"]), (&json!(null), &json!(null), &json!([])));
    assert_eq!((&hang["owner"]["kind"], &hang["hung_ms"]), (&json!("unknown"), &json!(0)));
}

#[test]
fn a_record_with_pid_and_name_alone_is_completed_by_proc_and_ends_as_any_other() {
    let (machine, cgroup) = machine();
    machine.write(&format!("/proc/{TID}/stack"), "[<0>] io_schedule+0x46/0x80\n[<0>] ext4_sync+0x1/0x2 [ext4]\n");
    let bare = |at_s| {
        let mut record = hung(TID, cgroup, at_s);
        (record.known, record.flags) = (known::PID | known::COMM, 0);
        record
    };
    let session = Session::new(&machine);
    session.set_time(100 * SECOND);
    let lines = session.run(&mut records([bare(100), bare(110)]), |pipeline, records| {
        pipeline.set_method(Detector::HungTask, Some(Method::Tracepoint));
        drain(pipeline, records);
        show(&machine, TID, 'D', 43, START_TICKS);
        poll(&session, pipeline);
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "sustained"), (1, "ran")]);
    let hang = lines.of_type("hung_task")[1];
    assert_eq!((&hang["method"], &hang["task"]["pid"]), (&json!("tracepoint"), &json!(TID)));
    assert_eq!(hang["task"]["leader_comm"], "writer");
    assert_eq!(hang["task"]["thread_started_boot_ns"], START_TICKS * 10_000_000);
    assert_eq!(hang["stack"], json!(["io_schedule+0x46", "ext4_sync+0x1 [ext4]"]));
}

#[test]
fn hidden_symbols_are_told_once_and_the_hang_all_the_same() {
    let (machine, cgroup) = machine();
    machine.write("/proc/kallsyms", "0000000000000000 T io_schedule\n");
    let lines = Session::new(&machine).run(&mut records([hung(TID, cgroup, 100), hung(4712, cgroup, 100)]), |p, r| {
        drain(p, r);
    });
    assert_eq!(lines.of_type("hung_task")[0]["stack"], json!(["?", "?"]));
    assert_eq!(lines.notices(), [("source", "symbols", 1)]);
}

#[test]
fn hangs_that_begin_count_towards_the_number_asked_for_and_their_further_lines_do_not() {
    let (machine, cgroup) = machine();
    let all = [hung(TID, cgroup, 100), hung(TID, cgroup, 110), hung(4712, cgroup, 110), hung(4713, cgroup, 110)];
    let lines = Session::with_count(&machine, 2).run(&mut records(all), |pipeline, records| {
        assert_eq!(drain(pipeline, records), Progress::Enough);
    });
    assert_eq!(states(&lines), [(1, "raised"), (1, "sustained"), (2, "raised")]);
}

#[test]
fn a_stack_as_long_as_a_record_can_tell_is_told_whole() {
    let (machine, cgroup) = machine();
    let mut record = hung(TID, cgroup, 100);
    record.frame_count = FRAMES as u32;
    record.stack = [0xffff_ffff_8100_1046; FRAMES];
    let lines = Session::new(&machine).run(&mut records([record]), |pipeline, records| {
        drain(pipeline, records);
    });
    assert_eq!(lines.of_type("hung_task")[0]["stack"], json!(vec!["io_schedule+0x46"; FRAMES]));
}

//! Hung tasks from their record to what the Node says of them, over restarts of the agent.

use std::{io, time::Duration};

use detector::{
    agent::{
        Sink,
        pipeline::Pipeline,
        problem::Transition,
        sink::{
            Handover, MethodChange, Notice, Started, Summary,
            condition::{ConditionWrite, Conditions, Restored, Setup, Snapshot, Standing, write},
            delivery::Next,
            report::{HangEdge, HangReport},
        },
    },
    clock::WallClock,
    cluster::Outcome,
    config,
};

use super::TID;
use crate::{
    hangs,
    machine::Machine,
    recording::Recording,
    session::{SECOND, Session, UNITS, drain},
};

const BOOT: &str = "6a1f2f0e-6f0b-4c55-9d35-3b1c52a0a111";
/// The kernel's watch scans so often.
const SCAN_S: u64 = 10;

/// The agent's conditions as a sink of the flow, and the Node that its writes go to.
struct Node {
    conditions: Conditions,
    /// What stands there, as the API server would tell it.
    standing: Vec<Standing>,
    /// Status of `TaskHung` in each write.
    written: Vec<&'static str>,
    /// What was told of hangs.
    told: Vec<HangEdge>,
    /// What the flow handed over to the next run.
    saved: Handover,
}

impl Node {
    /// An agent starts `now_s` seconds after boot, where this stands. What is left of a state that is lost is the default.
    fn new(now_s: u64, standing: Vec<Standing>, snapshot: Snapshot) -> Self {
        let setup = Setup {
            config: config::Conditions::default(),
            node: "node-a".to_owned(),
            boot_id: BOOT.to_owned(),
            scan: Some(Duration::from_secs(SCAN_S)),
            wall: UNITS.wall,
        };
        let mut conditions = Conditions::new(setup, now_s * SECOND);
        conditions.restore(snapshot, now_s * SECOND);
        let mut node = Self { conditions, standing, written: Vec::new(), told: Vec::new(), saved: Handover::default() };
        node.write(now_s * SECOND);
        node
    }

    /// Makes what is due.
    fn write(&mut self, now_ns: u64) {
        while let Next::Write(write) = self.conditions.next(now_ns) {
            match write {
                ConditionWrite::Read => self.conditions.adopt(&self.standing, now_ns),
                ConditionWrite::Apply(conditions) => {
                    let body = write::apply_body("node-a", &conditions).to_string();
                    self.standing = write::standing(body.as_bytes()).expect("what is written can be read");
                    let task_hung = conditions.iter().find(|condition| condition.kind() == "TaskHung");
                    self.written.push(task_hung.expect("each write has all types").status());
                    self.conditions.done(Outcome::Done, now_ns);
                }
            }
        }
    }

    fn message(&self) -> &str {
        let found = self.standing.iter().find(|standing| standing.kind == "TaskHung");
        &found.expect("it was written").message
    }
}

impl Sink for Node {
    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        if let Transition::HungTask(hang) = transition {
            let report = HangReport::of(hang, &UNITS, BOOT);
            self.told.push(report.edge);
            self.conditions.hang(&report);
            // A write a second at most, and the flow's own clock does not come here.
            self.write(hang.boot_ns.saturating_add(SECOND));
        }
        Ok(())
    }

    fn started(&mut self, _: &Started) -> io::Result<()> {
        Ok(())
    }

    fn method_changed(&mut self, _: &MethodChange) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, _: &Notice) -> io::Result<()> {
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn save(&mut self, handover: Handover) -> bool {
        let text = serde_json::to_string(&handover).expect("JSON");
        self.saved = serde_json::from_str(&text).expect("JSON of ours");
        true
    }

    fn set_wall_clock(&mut self, wall: WallClock) {
        self.conditions.set_wall_clock(wall);
    }
}

/// Runs an agent that reads `records` at `at_s` seconds after boot.
fn run(
    node: &mut Node,
    machine: &Machine,
    at_s: u64,
    records: Recording,
    script: impl FnOnce(&Session<'_>, &mut Pipeline<'_>),
) {
    run_after(&Handover::default(), node, machine, at_s, records, script);
}

/// The same with what an earlier run handed over.
fn run_after(
    handover: &Handover,
    node: &mut Node,
    machine: &Machine,
    at_s: u64,
    mut records: Recording,
    script: impl FnOnce(&Session<'_>, &mut Pipeline<'_>),
) {
    let session = Session::new(machine);
    session.set_time(at_s * SECOND);
    let ran = session.resume_into(node, &mut records, &handover.cgroups, |pipeline, records| {
        pipeline.inherit_hangs(&handover.hangs);
        drain(pipeline, records);
        script(&session, pipeline);
        pipeline.save(Vec::new);
        Ok(())
    });
    ran.expect("the sink takes all");
}

/// A machine with a task that hangs, and the agent that told of it and is gone.
fn gone() -> (Machine, u64, Node) {
    let (machine, cgroup) = hangs::machine();
    let mut node = Node::new(50, Vec::new(), Snapshot::default());
    run(&mut node, &machine, 100, hangs::records([hangs::hung(TID, cgroup, 100)]), |_, _| {});
    assert_eq!((node.told.as_slice(), node.saved.hangs.len()), ([HangEdge::Raised].as_slice(), 1));
    (machine, cgroup, node)
}

#[test]
fn a_hang_makes_the_condition_true_and_its_end_makes_it_false() {
    let (machine, cgroup) = hangs::machine();
    let mut node = Node::new(50, Vec::new(), Snapshot::default());
    run(&mut node, &machine, 100, hangs::records([hangs::hung(TID, cgroup, 100)]), |session, pipeline| {
        hangs::show(&machine, TID, 'R', 43, hangs::START_TICKS);
        hangs::poll(session, pipeline);
    });
    assert_eq!(node.written, ["False", "True", "False"]);
}

#[test]
fn the_condition_names_the_container() {
    let (machine, cgroup) = hangs::machine();
    let mut node = Node::new(50, Vec::new(), Snapshot::default());
    run(&mut node, &machine, 100, hangs::records([hangs::hung(TID, cgroup, 100)]), |_, _| {});
    assert_eq!(
        node.message(),
        "task writer (tid 4711, pid 4711) in pod shop/web-7d9c-x2x5k container app hangs for 11 s since \
         2023-11-14T22:14:50Z"
    );
}

#[test]
fn a_restart_in_between_keeps_it_true_and_the_end_is_told_by_whoever_looks() {
    let (_machine, _, node) = gone();
    let mut node = Node::new(105, node.standing, node.conditions.snapshot());
    let restored = Restored { tid: TID, start_ns: Some(hangs::START_NS), switches: Some(42) };
    assert_eq!(node.conditions.restored_hangs(), [restored]);
    node.conditions.ended(TID, Some(hangs::START_NS), 106 * SECOND);
    node.write(106 * SECOND);
    assert_eq!(node.written, ["True", "False"]);
}

#[test]
fn a_restart_in_between_and_the_next_scan_are_one_hang() {
    let (machine, cgroup, node) = gone();
    let mut node = Node::new(105, node.standing, node.conditions.snapshot());
    run(&mut node, &machine, 110, hangs::records([hangs::hung(TID, cgroup, 110)]), |session, pipeline| {
        hangs::remove(&machine, TID);
        hangs::poll(session, pipeline);
    });
    assert_eq!(node.written, ["True", "False"]);
}

#[test]
fn with_the_state_lost_it_stays_true_until_two_scans_found_nothing() {
    let (_machine, _, node) = gone();
    let mut node = Node::new(105, node.standing, Snapshot::default());
    assert!(node.message().starts_with("stood before the agent started, is being verified: task writer"));
    node.write((105 + 2 * SCAN_S) * SECOND - 1);
    assert_eq!(node.written, ["True"]);
    node.write((105 + 2 * SCAN_S) * SECOND);
    assert_eq!(node.written, ["True", "False"]);
}

#[test]
fn with_the_state_lost_a_task_that_still_hangs_never_shows_false() {
    let (machine, cgroup, node) = gone();
    let mut node = Node::new(105, node.standing, Snapshot::default());
    run(&mut node, &machine, 110, hangs::records([hangs::hung(TID, cgroup, 110)]), |_, _| {});
    node.write(300 * SECOND);
    assert!(node.written.iter().all(|status| *status == "True"), "{:?}", node.written);
    assert!(node.message().starts_with("task writer"), "{}", node.message());
}

#[test]
fn a_hang_that_outlasts_the_agent_is_told_as_going_on_and_not_a_second_time() {
    let (machine, cgroup, before) = gone();
    let mut node = Node::new(105, before.standing, before.conditions.snapshot());
    let scan = hangs::records([hangs::hung(TID, cgroup, 110)]);
    run_after(&before.saved, &mut node, &machine, 110, scan, |_, _| {});
    assert_eq!(node.told, [HangEdge::Sustained]);
    assert_eq!(node.written, ["True"]);
    let again = node.saved.clone();
    run_after(&again, &mut node, &machine, 120, hangs::records([]), |session, pipeline| {
        hangs::remove(&machine, TID);
        hangs::poll(session, pipeline);
    });
    assert_eq!(node.told, [HangEdge::Sustained, HangEdge::Exited]);
    assert_eq!(node.saved.hangs, []);
}

#[test]
fn the_next_run_looks_at_once_at_what_hung_and_tells_it_with_its_container() {
    let (machine, _, before) = gone();
    let mut node = Node::new(105, before.standing, before.conditions.snapshot());
    run_after(&before.saved, &mut node, &machine, 106, hangs::records([]), |session, pipeline| {
        assert_eq!(pipeline.next_due(), Some(Duration::ZERO));
        hangs::poll(session, pipeline);
        hangs::poll(session, pipeline);
    });
    assert_eq!(node.told, [HangEdge::Sustained]);
    assert_eq!(node.conditions.restored_hangs(), [], "the flow looks after it from now on");
    assert!(node.message().contains("in pod shop/web-7d9c-x2x5k container app hangs for"), "{}", node.message());
    assert!(node.message().ends_with("since 2023-11-14T22:14:50Z"), "{}", node.message());
}

#[test]
fn a_task_that_ran_while_no_agent_did_is_over_at_the_first_look_although_it_waits_again() {
    let (machine, _, before) = gone();
    let mut node = Node::new(105, before.standing, before.conditions.snapshot());
    hangs::show(&machine, TID, 'D', 43, hangs::START_TICKS);
    run_after(&before.saved, &mut node, &machine, 106, hangs::records([]), |session, pipeline| {
        hangs::poll(session, pipeline);
    });
    assert_eq!((node.told, node.written), (vec![HangEdge::Ran], vec!["True", "False"]));
}

#[test]
fn where_no_task_can_be_looked_up_a_hang_of_an_earlier_run_is_believed_until_scans_find_it_no_more() {
    let (machine, _, before) = gone();
    machine.link("/proc/self/ns/pid", "pid:[4026532999]");
    machine.write("/proc/sys/kernel/hung_task_timeout_secs", "10\n");
    let mut node = Node::new(105, before.standing, before.conditions.snapshot());
    run_after(&before.saved, &mut node, &machine, 106, hangs::records([]), |session, pipeline| {
        while pipeline.next_due().is_some() {
            hangs::poll(session, pipeline);
        }
    });
    assert_eq!(node.told, [HangEdge::Sustained, HangEdge::Exited]);
}

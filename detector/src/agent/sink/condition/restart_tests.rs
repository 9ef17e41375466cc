//! What stood before the agent started: kept, confirmed, ended, with its state and without. Then random sequences of accounts
//! in any order, of failures and of restarts, held against a model: a condition is True exactly while a task hangs by the
//! latest account of it, or while what stood before is believed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{tests::*, *};

/// An agent that had told of one hang and is gone.
fn gone(report: &HangReport) -> (Snapshot, Vec<Standing>) {
    let mut agent = Agent::start(100);
    agent.pass(100);
    agent.hang(report);
    (agent.conditions.snapshot(), agent.standing())
}

fn statuses(agent: &Agent, kind: &str) -> Vec<&'static str> {
    let of = |conditions: &Vec<NodeCondition>| conditions.iter().find(|c| c.kind() == kind).map(NodeCondition::status);
    let mut statuses: Vec<_> = agent.writes.iter().filter_map(|(_, conditions)| of(conditions)).collect();
    statuses.dedup();
    statuses
}

#[test]
fn a_restored_hang_goes_on_until_somebody_sees_its_end() {
    let (snapshot, standing) = gone(&report(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, snapshot, &standing);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    assert!(agent.message("TaskHung").contains("pod shop/cart-0"), "{}", agent.message("TaskHung"));
    let restored = Restored { tid: 7, start_ns: Some(7 * SECOND), switches: Some(42) };
    assert_eq!(agent.conditions.restored_hangs(), [restored]);
    agent.pass(30);
    agent.conditions.ended(7, Some(7 * SECOND + 5_000_000), 330 * SECOND);
    agent.pass(0);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:18:50");
    assert_eq!(agent.conditions.restored_hangs(), []);
    assert_eq!(statuses(&agent, "TaskHung"), ["True", "False"]);
}

#[test]
fn a_restored_hang_that_is_told_anew_is_the_same() {
    let (snapshot, standing) = gone(&report(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, snapshot, &standing);
    agent.pass(20);
    agent.hang(&HangReport { hung_seconds: 130, ..report(7, HangEdge::Raised, 320) });
    assert_eq!(agent.conditions.restored_hangs(), []);
    agent.pass(10 * SCAN);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    agent.hang(&report(7, HangEdge::Ran, 320 + 10 * SCAN));
    assert_eq!(statuses(&agent, "TaskHung"), ["True", "False"]);
}

#[test]
fn a_restored_hang_that_nobody_can_look_at_ends_after_two_scans() {
    let (snapshot, standing) = gone(&kubelet(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, snapshot, &standing);
    agent.pass(2 * SCAN - 1);
    assert!(agent.stands("KernelDeadlock").starts_with("True"));
    agent.pass(1);
    assert!(agent.stands("KernelDeadlock").starts_with("False"));
}

#[test]
fn a_restored_hang_that_is_seen_hanging_goes_on() {
    let (snapshot, standing) = gone(&report(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, snapshot, &standing);
    for _ in 0..5 {
        agent.pass(SCAN);
        agent.conditions.still_hangs(7, Some(7 * SECOND), 42, agent.now_s * SECOND);
    }
    assert!(agent.stands("TaskHung").starts_with("True"));
    agent.pass(2 * SCAN);
    assert!(agent.stands("TaskHung").starts_with("False"));
}

#[test]
fn with_its_state_lost_the_agent_keeps_what_stands_for_two_scans() {
    let (_, standing) = gone(&kubelet(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, Snapshot::default(), &standing);
    assert_eq!(agent.stands("KernelDeadlock"), "True/RuntimeTaskHung 22:16:40");
    let message = agent.message("KernelDeadlock");
    assert!(message.starts_with("stood before the agent started, is being verified: task kubelet"), "{message}");
    agent.pass(2 * SCAN);
    assert_eq!(agent.stands("KernelDeadlock"), "False/KernelHasNoDeadlock 22:20:20");
    assert_eq!(statuses(&agent, "KernelDeadlock"), ["True", "False"]);
}

#[test]
fn with_its_state_lost_a_hang_that_is_told_anew_takes_over_without_a_flap() {
    let (_, standing) = gone(&report(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, Snapshot::default(), &standing);
    agent.pass(SCAN);
    agent.hang(&report(7, HangEdge::Raised, 300 + SCAN));
    agent.pass(5 * SCAN);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    assert!(agent.message("TaskHung").starts_with("task writer"), "{}", agent.message("TaskHung"));
    agent.hang(&report(7, HangEdge::Ran, 300 + 6 * SCAN));
    assert_eq!(statuses(&agent, "TaskHung"), ["True", "False"]);
}

#[test]
fn with_its_state_lost_the_end_of_what_was_told_anew_is_the_end() {
    let (_, standing) = gone(&report(7, HangEdge::Raised, 200));
    let mut agent = Agent::start_on(300, Snapshot::default(), &standing);
    agent.pass(10);
    agent.hang(&report(7, HangEdge::Raised, 310));
    agent.pass(10);
    agent.hang(&report(7, HangEdge::Ran, 320));
    assert!(agent.stands("TaskHung").starts_with("False"));
}

#[test]
fn what_another_boot_told_is_over_at_once() {
    let (snapshot, standing) = gone(&report(7, HangEdge::Raised, 200));
    let another = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap().replace("boot-1", "boot-0")).unwrap();
    let agent = Agent::start_on(300, another, &standing);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:18:20");
    assert_eq!(agent.conditions.restored_hangs(), []);
}

#[test]
fn what_was_asserted_before_the_boot_is_over_at_once_even_with_the_state_lost() {
    let (_, mut standing) = gone(&report(7, HangEdge::Raised, 200));
    for found in &mut standing {
        found.last_heartbeat_time = Some("2023-11-14T22:13:00Z".parse().unwrap());
    }
    let agent = Agent::start_on(300, Snapshot::default(), &standing);
    assert!(agent.stands("TaskHung").starts_with("False"));
}

#[test]
fn what_another_program_set_is_kept_likewise_with_a_reason_of_ours() {
    let standing = Standing {
        kind: "KernelDeadlock".into(),
        status: "True".into(),
        reason: "no reason of ours".into(),
        message: "task docker:7 blocked\nfor more than 120 seconds.".into(),
        ..Standing::default()
    };
    let mut agent = Agent::start_on(300, Snapshot::default(), &[standing]);
    assert!(agent.stands("KernelDeadlock").starts_with("True/RuntimeTaskHung"));
    assert!(agent.message("KernelDeadlock").ends_with("blocked\u{fffd}for more than 120 seconds."));
    agent.pass(2 * SCAN);
    assert!(agent.stands("KernelDeadlock").starts_with("False"));
}

#[test]
fn a_clear_condition_keeps_its_time_over_a_restart() {
    let (snapshot, standing) = (Agent::start(100).conditions.snapshot(), Agent::start(100).standing());
    for snapshot in [snapshot, Snapshot::default()] {
        let agent = Agent::start_on(300, snapshot, &standing);
        assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:15:00");
    }
}

#[test]
fn an_unknown_status_gives_way_to_what_we_know() {
    let unknown = Standing { kind: "TaskHung".into(), status: "Unknown".into(), ..Standing::default() };
    let agent = Agent::start_on(300, Snapshot::default(), &[unknown]);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:18:20");
}

#[test]
fn a_snapshot_survives_the_disk() {
    let (snapshot, _) = gone(&report(7, HangEdge::Raised, 200));
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
}

const KINDS: [&str; 2] = ["KernelDeadlock", "TaskHung"];
/// What stood before is believed for so long.
const QUIET_S: u64 = QUIET_SCANS as u64 * SCAN;
/// Tasks that bear one number one after another begin at these times.
const STARTS_S: [u64; 4] = [5, 1_300, 2_200, 3_600];
/// Accounts between two restarts come in any order, within so many seconds.
const EPOCH_S: u64 = 1_000;

/// What is told of thread id `tid` at `at_s`.
#[derive(Clone, Copy, Debug)]
struct Account {
    tid: u32,
    edge: HangEdge,
    at_s: u64,
}

impl Account {
    /// Tasks with an even number are of the runtime: a task does not change what it is.
    fn report(self) -> HangReport {
        let Self { tid, edge, at_s } = self;
        let start_s = STARTS_S.into_iter().rfind(|start_s| *start_s <= at_s);
        let report = if tid.is_multiple_of(2) { kubelet(tid, edge, at_s) } else { report(tid, edge, at_s) };
        HangReport { start_ns: start_s.map(|start_s| start_s * SECOND), ..report }
    }

    fn hangs(self) -> bool {
        matches!(self.edge, HangEdge::Raised | HangEdge::Sustained)
    }
}

fn kind_of(tid: u32) -> &'static str {
    KINDS[usize::from(!tid.is_multiple_of(2))]
}

#[derive(Clone, Debug)]
enum Step {
    /// An account, so many seconds after the last restart.
    Hang(u32, HangEdge, u64),
    Pass(u64),
    /// A write is made, and its answer lost.
    Fail,
    Restart {
        keeps_state: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let edge = prop::sample::select(vec![HangEdge::Raised, HangEdge::Sustained, HangEdge::Ran, HangEdge::Exited]);
    let step = prop_oneof![
        8 => (1_u32..5, edge, 0..EPOCH_S / 2).prop_map(|(tid, edge, at_s)| Step::Hang(tid, edge, at_s)),
        3 => (1_u64..60).prop_map(Step::Pass),
        1 => Just(Step::Fail),
        1 => any::<bool>().prop_map(|keeps_state| Step::Restart { keeps_state }),
    ];
    prop::collection::vec(step, 0..60)
}

/// What is known of hung tasks by what was told.
#[derive(Default)]
struct Model {
    /// The latest account of each number.
    latest: BTreeMap<u32, Account>,
    /// Numbers whose task is believed to hang since a restart, and until when.
    believed: BTreeMap<u32, u64>,
    /// Conditions that are believed since a restart without state, and until when.
    held: BTreeMap<&'static str, u64>,
}

impl Model {
    fn hanging(&self, kind: &str) -> BTreeSet<u32> {
        let of_kind = self.latest.values().filter(|account| account.hangs() && kind_of(account.tid) == kind);
        of_kind.map(|account| account.tid).collect()
    }

    fn told(&mut self, account: Account) {
        let kind = kind_of(account.tid);
        let before = self.hanging(kind);
        let latest = self.latest.entry(account.tid).or_insert(account);
        if account.at_s >= latest.at_s {
            *latest = account;
            self.believed.remove(&account.tid);
        }
        if !before.is_empty() && self.hanging(kind).is_empty() {
            self.held.remove(kind);
        }
    }

    fn restarted(&mut self, keeps_state: bool, now_s: u64, stood: impl Fn(&str) -> bool) {
        let until_s = now_s + QUIET_S;
        self.latest.retain(|_, account| keeps_state && account.hangs());
        self.believed = self.latest.keys().map(|tid| (*tid, until_s)).collect();
        let held = KINDS.into_iter().filter(|kind| stood(kind) && self.hanging(kind).is_empty());
        self.held = held.map(|kind| (kind, until_s)).collect();
    }

    /// Statuses as they have to stand at `now_s`.
    fn statuses(&mut self, now_s: u64) -> [bool; 2] {
        for (tid, _) in self.believed.extract_if(.., |_, until_s| *until_s <= now_s) {
            self.latest.remove(&tid);
        }
        self.held.retain(|_, until_s| *until_s > now_s);
        KINDS.map(|kind| !self.hanging(kind).is_empty() || self.held.contains_key(kind))
    }
}

/// An agent that starts one hour after the boot, and what it has to say.
struct Run {
    agent: Agent,
    model: Model,
    epoch: u64,
    /// Times at which something was told: no two accounts of one number have the same.
    times: BTreeSet<(u32, u64)>,
    seen_true: BTreeSet<&'static str>,
}

impl Run {
    fn new() -> Self {
        let (times, seen_true) = (BTreeSet::new(), BTreeSet::new());
        Self { agent: Agent::start(3_600), model: Model::default(), epoch: 0, times, seen_true }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Hang(tid, edge, at_s) => self.tell(Account { tid, edge, at_s: self.epoch * EPOCH_S + at_s + 10 }),
            Step::Pass(seconds) => self.agent.pass(seconds),
            Step::Fail => self.agent.fail(),
            Step::Restart { keeps_state } => self.restart(keeps_state),
        }
        self.check()
    }

    fn tell(&mut self, account: Account) {
        if !self.times.insert((account.tid, account.at_s)) {
            return;
        }
        self.agent.conditions.hang(&account.report());
        self.model.told(account);
    }

    /// As the service does it: what is lost is the default.
    fn restart(&mut self, keeps_state: bool) {
        let snapshot = if keeps_state { self.agent.conditions.snapshot() } else { Snapshot::default() };
        let standing = self.agent.standing();
        self.agent.restart(snapshot, &standing);
        let stood = |kind: &str| standing.iter().any(|found| found.kind == kind && found.status == "True");
        self.model.restarted(keeps_state, self.agent.now_s, stood);
        self.epoch += 1;
    }

    /// After a pass in which nothing fails, what stands is what has to.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let before = self.model.statuses(self.agent.now_s);
        self.agent.pass(2);
        let now = self.model.statuses(self.agent.now_s);
        for (index, kind) in KINDS.into_iter().enumerate() {
            let means = self.agent.conditions.conditions(self.agent.now_s * SECOND);
            let means = means.iter().any(|condition| condition.kind() == kind && condition.status() == "True");
            prop_assert_eq!(means, now[index], "{} is meant", kind);
            if before[index] == now[index] {
                prop_assert_eq!(self.agent.stands(kind).starts_with("True"), now[index], "{} stands", kind);
            }
            if self.agent.stands(kind).starts_with("True") {
                self.seen_true.insert(kind);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_condition_is_true_exactly_while_a_task_hangs_or_what_stood_is_believed(first in 1_u32..5, steps in steps()) {
        let mut run = Run::new();
        run.take(&Step::Hang(first, HangEdge::Raised, 0))?;
        prop_assert!(run.seen_true.contains(kind_of(first)));
        for step in &steps {
            run.take(step)?;
        }
    }

    #[test]
    fn whatever_happened_it_clears_when_nothing_hangs_and_then_rests(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step)?;
        }
        for tid in 1..5 {
            run.tell(Account { tid, edge: HangEdge::Exited, at_s: (run.epoch + 1) * EPOCH_S - 1 });
        }
        run.check()?;
        run.agent.pass(600);
        prop_assert!(KINDS.iter().all(|kind| run.agent.stands(kind).starts_with("False")));
        let writes = run.agent.writes.len();
        run.agent.pass(1000);
        prop_assert!(run.agent.writes.len() <= writes + 1);
    }

    #[test]
    fn what_is_written_obeys_the_catalogue_and_its_transitions_are_those_of_the_status(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step)?;
        }
        for condition in run.agent.writes.iter().flat_map(|(_, conditions)| conditions) {
            prop_assert!(condition.message().len() <= MAX_MESSAGE && !condition.message().is_empty());
            let known = crate::contract::problem::condition(condition.kind()).expect("a type of ours");
            prop_assert_eq!(known.known_reason(condition.reason()).is_some(), condition.status() == "True");
            prop_assert!(["True", "False"].contains(&condition.status()));
        }
        for pair in run.agent.writes.windows(2) {
            for (before, after) in pair[0].1.iter().zip(&pair[1].1) {
                if before.status() == after.status() {
                    prop_assert_eq!(before.last_transition_time(), after.last_transition_time());
                }
            }
        }
    }

    #[test]
    fn a_restart_never_shows_false_between_two_trues(tid in 1_u32..5, keeps_state in any::<bool>(), again_s in 1_u64..100) {
        let mut run = Run::new();
        run.take(&Step::Hang(tid, HangEdge::Raised, 0))?;
        let first = run.agent.writes.len() - 1;
        run.take(&Step::Restart { keeps_state })?;
        run.agent.pass(again_s);
        run.take(&Step::Hang(tid, HangEdge::Raised, 0))?;
        run.take(&Step::Pass(1_000))?;
        let statuses: Vec<_> = run.agent.writes[first..].iter().map(|(_, conditions)| {
            conditions.iter().find(|condition| condition.kind() == kind_of(tid)).map(NodeCondition::status)
        }).collect();
        prop_assert!(statuses.len() >= 2, "{:?}", statuses);
        prop_assert!(statuses.iter().all(|status| *status == Some("True")), "{:?}", statuses);
    }
}

//! Conditions over time: raised, told otherwise, cleared, paced; and while the clock is set.

use rstest::rstest;

use super::{
    super::report::{RecordId, Subject},
    *,
};

pub(super) const SECOND: u64 = 1_000_000_000;
/// Boot of all tests, seconds since 1970 UTC: 2023-11-14T22:13:20Z.
const BOOT_S: i64 = 1_700_000_000;
pub(super) const WALL: WallClock = WallClock::with_offset(BOOT_S as i128 * SECOND as i128);
pub(super) const SCAN: u64 = 60;

pub(super) fn setup() -> Setup {
    Setup {
        config: config::Conditions::default(),
        node: "node-a".into(),
        boot_id: "boot-1".into(),
        scan: Some(Duration::from_secs(SCAN)),
        wall: WALL,
    }
}

fn in_pod() -> Subject {
    Subject {
        namespace: Some("shop".into()),
        pod: Some("cart-0".into()),
        pod_uid: Some("uid".into()),
        container: Some("php".into()),
        container_id: Some("id".into()),
        cgroup: Some("/kubepods/poduid/id".into()),
        unit: None,
    }
}

fn of_kubelet() -> Subject {
    Subject {
        unit: Some("kubelet.service".into()),
        cgroup: Some("/system.slice/kubelet.service".into()),
        ..Subject::default()
    }
}

pub(super) fn report(tid: u32, edge: HangEdge, at_s: u64) -> HangReport {
    HangReport {
        id: RecordId { boot_id: "boot-1".into(), cpu: 0, sequence: at_s },
        time_us: WALL.time(at_s * SECOND).as_microsecond(),
        boot_ns: at_s * SECOND,
        edge,
        hung_seconds: 10,
        subject: in_pod(),
        tid: Some(tid),
        pid: Some(tid),
        start_ns: Some(u64::from(tid) * SECOND),
        switches: Some(42),
        comm: Some("writer".into()),
        leader_comm: Some("writer".into()),
        lock: None,
        holder: None,
        stack: Vec::new(),
    }
}

pub(super) fn kubelet(tid: u32, edge: HangEdge, at_s: u64) -> HangReport {
    let name = || Some("kubelet".to_owned());
    HangReport { subject: of_kubelet(), comm: name(), leader_comm: name(), ..report(tid, edge, at_s) }
}

/// A machine's conditions, and an API server that takes what it is given.
pub(super) struct Agent {
    pub(super) conditions: Conditions,
    pub(super) setup: Setup,
    pub(super) now_s: u64,
    pub(super) writes: Vec<(u64, Vec<NodeCondition>)>,
}

impl Agent {
    /// Starts `at_s` seconds after boot; nothing stands on the Node.
    pub(super) fn start(at_s: u64) -> Self {
        Self::start_on(at_s, Snapshot::default(), &[])
    }

    /// The same as the service does it: what is left of a state that is lost is the default.
    pub(super) fn start_on(at_s: u64, snapshot: Snapshot, standing: &[Standing]) -> Self {
        Self::start_with(setup(), at_s, snapshot, standing)
    }

    pub(super) fn start_with(setup: Setup, at_s: u64, snapshot: Snapshot, standing: &[Standing]) -> Self {
        let conditions = Conditions::new(setup.clone(), at_s * SECOND);
        let mut agent = Self { conditions, setup, now_s: at_s, writes: Vec::new() };
        agent.restart(snapshot, standing);
        agent
    }

    /// Another run begins, with what the one before left in its state and on the Node.
    pub(super) fn restart(&mut self, snapshot: Snapshot, standing: &[Standing]) {
        let now_ns = self.now_s * SECOND;
        self.conditions = Conditions::new(self.setup.clone(), now_ns);
        self.conditions.restore(snapshot, now_ns);
        assert_eq!(self.conditions.next(now_ns), Next::Write(ConditionWrite::Read));
        self.conditions.adopt(standing, now_ns);
        self.pass(0);
    }

    /// The next write, if one is due, is made, and its answer lost.
    pub(super) fn fail(&mut self) {
        if let Next::Write(_) = self.conditions.next(self.now_s * SECOND) {
            let outcome = Outcome::Retry { after: None, reason: "lost".into() };
            self.conditions.done(outcome, self.now_s * SECOND);
        }
    }

    /// The clock is set by so many seconds, and measured anew.
    pub(super) fn set_clock(&mut self, seconds: i64) {
        self.setup.wall = WallClock::with_offset(i128::from(BOOT_S + seconds) * i128::from(SECOND));
        self.conditions.set_wall_clock(self.setup.wall);
    }

    /// Time passes, and what is due is written.
    pub(super) fn pass(&mut self, seconds: u64) {
        let end_ns = (self.now_s + seconds) * SECOND;
        let mut now_ns = self.now_s * SECOND;
        loop {
            match self.conditions.next(now_ns) {
                Next::Write(ConditionWrite::Apply(conditions)) => {
                    self.writes.push((now_ns / SECOND, conditions));
                    self.conditions.done(Outcome::Done, now_ns);
                }
                Next::Write(ConditionWrite::Read) => self.conditions.done(Outcome::Done, now_ns),
                Next::At(at_ns) if at_ns <= end_ns => now_ns = at_ns,
                Next::At(_) | Next::Nothing => break,
            }
        }
        self.now_s += seconds;
    }

    pub(super) fn hang(&mut self, report: &HangReport) {
        self.conditions.hang(report);
        self.pass(0);
    }

    /// `TYPE=STATUS/REASON since` as written last.
    pub(super) fn stands(&self, kind: &str) -> String {
        let (_, last) = self.writes.last().expect("a write");
        let found = last.iter().find(|condition| condition.kind() == kind).expect("each write has all types");
        let seconds = &found.last_transition_time()[11..19];
        format!("{}/{} {seconds}", found.status(), found.reason())
    }

    pub(super) fn message(&self, kind: &str) -> &str {
        let (_, last) = self.writes.last().expect("a write");
        last.iter().find(|condition| condition.kind() == kind).expect("each write has all types").message()
    }

    /// What the API server holds, as a later start finds it.
    pub(super) fn standing(&self) -> Vec<Standing> {
        let (_, last) = self.writes.last().expect("a write");
        write::standing(write::apply_body("node-a", last).to_string().as_bytes()).expect("what is written can be read")
    }
}

#[test]
fn a_hang_raises_and_its_end_clears() {
    let mut agent = Agent::start(100);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:15:00");
    agent.pass(100);
    agent.hang(&report(7, HangEdge::Raised, 200));
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    assert_eq!(
        agent.message("TaskHung"),
        "task writer (tid 7, pid 7) in pod shop/cart-0 container php hangs for 10 s since 2023-11-14T22:16:30Z"
    );
    assert_eq!(agent.stands("KernelDeadlock"), "False/KernelHasNoDeadlock 22:15:00");
    agent.pass(50);
    agent.hang(&report(7, HangEdge::Ran, 250));
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:17:30");
    assert_eq!(agent.message("TaskHung"), "no task hangs");
}

#[test]
fn a_hung_runtime_process_is_a_deadlock_and_nothing_else() {
    let mut agent = Agent::start(100);
    agent.pass(100);
    agent.hang(&kubelet(7, HangEdge::Raised, 200));
    assert_eq!(agent.stands("KernelDeadlock"), "True/RuntimeTaskHung 22:16:40");
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:15:00");
    agent.pass(50);
    agent.hang(&kubelet(7, HangEdge::Exited, 250));
    assert_eq!(agent.stands("KernelDeadlock"), "False/KernelHasNoDeadlock 22:17:30");
}

#[test]
fn the_last_of_several_clears() {
    let mut agent = Agent::start(100);
    agent.pass(100);
    for tid in [7, 8, 9] {
        agent.conditions.hang(&report(tid, HangEdge::Raised, 200));
    }
    agent.pass(0);
    assert!(agent.message("TaskHung").ends_with("; 2 more tasks hang"), "{}", agent.message("TaskHung"));
    agent.conditions.hang(&report(7, HangEdge::Ran, 210));
    agent.conditions.hang(&report(9, HangEdge::Exited, 210));
    agent.pass(20);
    assert!(agent.message("TaskHung").starts_with("task writer (tid 8"), "{}", agent.message("TaskHung"));
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    agent.hang(&report(8, HangEdge::Ran, 220));
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:17:00");
}

#[test]
fn at_rest_there_is_no_more_than_one_write_in_half_an_hour() {
    let mut agent = Agent::start(0);
    agent.pass(24 * 3600);
    let times: Vec<u64> = agent.writes.iter().map(|(at_s, _)| *at_s).collect();
    assert!(times.windows(2).all(|pair| (1800..=1980).contains(&(pair[1] - pair[0]))), "{times:?}");
    assert!(times.len() >= 24 * 3600 / 1980, "{times:?}");
}

#[test]
fn a_heartbeat_keeps_the_time_of_the_transition() {
    let mut agent = Agent::start(100);
    agent.pass(2000);
    assert_eq!(agent.writes.len(), 2);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:15:00");
    let body = write::apply_body("node-a", &agent.writes[1].1);
    let beat = &body["status"]["conditions"][0]["lastHeartbeatTime"];
    assert_eq!(*beat, write::apply_body("", &agent.writes[1].1)["status"]["conditions"][1]["lastHeartbeatTime"]);
    assert_ne!(*beat, "2023-11-14T22:15:00Z");
}

#[test]
fn a_hang_that_is_told_again_costs_no_write() {
    let mut agent = Agent::start(100);
    agent.pass(100);
    agent.hang(&report(7, HangEdge::Raised, 200));
    let writes = agent.writes.len();
    for scan in 1..10 {
        agent.pass(SCAN);
        let at_s = 200 + scan * SCAN;
        agent.hang(&HangReport { hung_seconds: 10 + scan * SCAN, ..report(7, HangEdge::Sustained, at_s) });
    }
    assert_eq!(agent.writes.len(), writes);
}

#[test]
fn a_storm_of_changes_is_written_every_ten_seconds() {
    let mut agent = Agent::start(100);
    agent.pass(100);
    for second in 0..100 {
        agent.pass(1);
        agent.hang(&report(1000 + u32::try_from(second).unwrap(), HangEdge::Raised, 201 + second));
    }
    let during = agent.writes.iter().filter(|(at_s, _)| *at_s > 200).count();
    assert!((9..=12).contains(&during), "{during}");
}

#[test]
fn while_a_write_is_under_way_there_is_no_other_and_the_newest_state_follows() {
    let mut agent = Agent::start(100);
    let at_ns = 200 * SECOND;
    agent.conditions.hang(&report(7, HangEdge::Raised, 200));
    assert!(matches!(agent.conditions.next(at_ns), Next::Write(_)));
    agent.conditions.hang(&report(7, HangEdge::Ran, 201));
    agent.conditions.hang(&report(8, HangEdge::Raised, 202));
    agent.conditions.hang(&report(8, HangEdge::Ran, 203));
    assert_eq!(agent.conditions.next(at_ns + SECOND), Next::Nothing);
    agent.conditions.done(Outcome::Done, at_ns + SECOND);
    agent.now_s = 203;
    agent.pass(0);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:16:43");
}

#[test]
fn after_a_failure_the_newest_state_is_written_even_if_it_is_the_old_one() {
    let mut agent = Agent::start(100);
    agent.conditions.hang(&report(7, HangEdge::Raised, 200));
    assert!(matches!(agent.conditions.next(200 * SECOND), Next::Write(_)));
    agent.conditions.hang(&report(7, HangEdge::Ran, 201));
    agent.conditions.done(Outcome::Retry { after: None, reason: "answer lost".into() }, 201 * SECOND);
    let writes = agent.writes.len();
    agent.now_s = 201;
    agent.pass(2);
    assert_eq!(agent.writes.len(), writes + 1);
    assert_eq!(agent.stands("TaskHung"), "False/NoTaskHung 22:16:41");
}

#[test]
fn the_time_of_an_outage_is_told_truly_afterwards() {
    let mut agent = Agent::start(100);
    agent.conditions.hang(&report(7, HangEdge::Raised, 200));
    for at_s in (200..800).step_by(100) {
        assert!(matches!(agent.conditions.next(at_s * SECOND), Next::Write(_)), "{at_s}");
        agent.conditions.done(Outcome::Retry { after: None, reason: "down".into() }, at_s * SECOND);
    }
    agent.now_s = 900;
    agent.pass(0);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
}

#[test]
fn a_read_that_is_refused_does_not_stop_writes() {
    let mut conditions = Conditions::new(setup(), 0);
    assert_eq!(conditions.next(0), Next::Write(ConditionWrite::Read));
    conditions.done(Outcome::Final("no dry run".into()), 0);
    assert!(matches!(conditions.next(0), Next::Write(ConditionWrite::Apply(_))));
    conditions.done(Outcome::Final("no right".into()), 0);
    let Next::At(at_ns) = conditions.next(0) else { panic!("waits") };
    assert_eq!(conditions.next(at_ns), Next::Write(ConditionWrite::Read), "rights may have been given since");
}

#[test]
fn switched_off_it_asks_nothing() {
    let mut setup = setup();
    setup.config.enabled = false;
    assert_eq!(Conditions::new(setup, 0).next(u64::MAX), Next::Nothing);
}

#[test]
fn a_hang_whose_place_becomes_known_moves_to_its_condition() {
    let mut agent = Agent::start(100);
    agent.pass(100);
    agent.hang(&HangReport { subject: Subject::default(), ..kubelet(7, HangEdge::Raised, 200) });
    assert!(agent.stands("TaskHung").starts_with("True"));
    agent.pass(SCAN);
    agent.hang(&kubelet(7, HangEdge::Sustained, 200 + SCAN));
    agent.pass(2);
    assert!(agent.stands("TaskHung").starts_with("False") && agent.stands("KernelDeadlock").starts_with("True"));
    agent.hang(&kubelet(7, HangEdge::Ran, 300));
    agent.pass(2);
    assert!(agent.stands("TaskHung").starts_with("False") && agent.stands("KernelDeadlock").starts_with("False"));
}

#[test]
fn a_number_that_another_task_bears_by_now_is_another_cause() {
    let mut agent = Agent::start(100);
    agent.hang(&report(7, HangEdge::Raised, 200));
    let other =
        HangReport { start_ns: Some(150 * SECOND), comm: Some("other".into()), ..report(7, HangEdge::Raised, 220) };
    agent.now_s = 220;
    agent.hang(&other);
    agent.hang(&report(7, HangEdge::Sustained, 210));
    agent.hang(&report(7, HangEdge::Exited, 230));
    assert_eq!(agent.conditions.snapshot(), {
        let mut alone = Agent::start(100);
        alone.hang(&report(7, HangEdge::Raised, 200));
        alone.now_s = 220;
        alone.hang(&other);
        alone.conditions.snapshot()
    });
    agent.hang(&HangReport { edge: HangEdge::Ran, ..HangReport { boot_ns: 240 * SECOND, ..other } });
    agent.pass(2);
    assert!(agent.stands("TaskHung").starts_with("False"));
}

const HOUR: i64 = 3_600;

/// The hang of task 7, told by the clock as it was set by so many seconds.
fn told(agent: &Agent, edge: HangEdge) -> HangReport {
    let at_s = agent.now_s;
    let time_us = agent.setup.wall.time(at_s * SECOND).as_microsecond();
    HangReport { time_us, ..report(7, edge, at_s) }
}

/// An agent, started so long after the boot, with a hang at 22:13:20 and as much later.
fn hanging(at_s: u64) -> Agent {
    let mut agent = Agent::start(at_s);
    agent.pass(100);
    agent.hang(&told(&agent, HangEdge::Raised));
    agent
}

#[rstest]
#[case::forward(2 * HOUR, "2023-11-15T00:", "00:51:20")]
#[case::back(-2 * HOUR, "2023-11-14T20:", "20:51:20")]
fn what_was_written_keeps_its_time_and_what_comes_is_told_by_the_clock_as_it_is_then(
    #[case] set: i64,
    #[case] beat: &str,
    #[case] cleared: &str,
) {
    let mut agent = hanging(100);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    agent.set_clock(set);
    agent.hang(&told(&agent, HangEdge::Sustained));
    let writes = agent.writes.len();
    agent.pass(2_000);
    assert_eq!(agent.writes.len(), writes + 1, "the clock alone is no reason to write, the heartbeat is");
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 22:16:40");
    let heartbeat = agent.standing()[1].last_heartbeat_time.expect("each write has one");
    assert!(heartbeat.to_string().starts_with(beat), "{heartbeat}");
    let message = agent.message("TaskHung");
    assert!(message.contains(" since 2023-11-14T22:16:30Z"), "{message}");
    agent.pass(80);
    agent.hang(&told(&agent, HangEdge::Ran));
    assert_eq!(agent.stands("TaskHung"), format!("False/NoTaskHung {cleared}"));
}

#[rstest]
fn a_restart_after_the_clock_was_set_shows_no_false(
    #[values(2 * HOUR, -2 * HOUR)] set: i64,
    #[values(true, false)] keeps_state: bool,
) {
    let mut agent = hanging(HOUR.unsigned_abs());
    agent.set_clock(set);
    let first = agent.writes.len();
    let snapshot = if keeps_state { agent.conditions.snapshot() } else { Snapshot::default() };
    let standing = agent.standing();
    agent.restart(snapshot, &standing);
    agent.pass(30);
    agent.hang(&told(&agent, HangEdge::Sustained));
    agent.pass(5 * SCAN);
    let standing = |(_, conditions): &(u64, Vec<NodeCondition>)| conditions[1].status() == "True";
    assert!(agent.writes.len() > first && agent.writes[first..].iter().all(standing), "{:?}", agent.writes);
    assert_eq!(agent.stands("TaskHung"), "True/TaskHung 23:15:00");
}

#[test]
fn a_state_of_this_boot_is_believed_whatever_the_clock_says() {
    let mut agent = hanging(100);
    agent.set_clock(2 * HOUR);
    let mut standing = agent.standing();
    // Another program set it, and the agent knew of no hang.
    standing[0].status = "True".to_owned();
    let snapshot = agent.conditions.snapshot();
    agent.restart(snapshot, &standing);
    assert!(agent.stands("KernelDeadlock").starts_with("True"));
}

#[test]
fn soon_after_a_boot_what_was_asserted_before_it_is_over_although_the_state_is_lost() {
    let standing = hanging(100).standing();
    let setup = Setup { boot_id: "boot-2".into(), wall: WallClock::with_offset(1_700_010_000_000_000_000), ..setup() };
    let agent = Agent::start_with(setup, 60, Snapshot::default(), &standing);
    assert!(agent.stands("TaskHung").starts_with("False"));
}

//! One step, cut off at every point.

use std::cell::{Cell, RefCell};

use futures::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::contract::incident::{
    Confidence, EvidenceEntry, EvidenceKind, KernelIncidentSpec, KernelIncidentStatus, Origin,
};

/// What outlives a process: the object, and what was done to the node. Every answer may be the last thing that is heard.
struct World {
    incident: RefCell<KernelIncident>,
    effects: RefCell<Vec<StepKind>>,
    writes: RefCell<Vec<StepState>>,
    /// Points that are passed until the process is cut off; each write and each effect has one before and one after it.
    left: Cell<u32>,
    refuses: Cell<Option<Report>>,
    second: Cell<i64>,
}

impl World {
    fn new() -> Self {
        let time = MicroTime(Timestamp::UNIX_EPOCH);
        let spec = KernelIncidentSpec { node: "a".to_owned(), node_uid: None, boot_id: None, time };
        let incident =
            KernelIncident { status: Some(KernelIncidentStatus::default()), ..KernelIncident::new("i", spec) };
        Self {
            incident: RefCell::new(incident),
            effects: RefCell::default(),
            writes: RefCell::default(),
            left: Cell::new(u32::MAX),
            refuses: Cell::default(),
            second: Cell::new(0),
        }
    }

    async fn point(&self) {
        if self.left.get() == 0 {
            std::future::pending::<()>().await;
        }
        self.left.set(self.left.get() - 1);
    }

    /// One process: goes through the step until its end or until it is cut off (`None`).
    fn run(&self, kind: StepKind, act: bool, leads: &dyn Fn() -> bool) -> Option<Course> {
        let incident = self.incident.borrow().clone();
        let now = || {
            self.second.set(self.second.get() + 1);
            Timestamp::from_second(self.second.get()).expect("a time")
        };
        let at = Circumstances { incident: &incident, act, leads, now: &now };
        go(kind, &at, self, self).now_or_never()
    }

    fn put(&self, entry: &StepEntry) {
        let mut incident = self.incident.borrow_mut();
        let steps = &mut incident.status.get_or_insert_default().steps;
        steps.retain(|one| one.kind != entry.kind);
        steps.push(entry.clone());
    }

    fn state(&self) -> Option<StepState> {
        let incident = self.incident.borrow();
        incident.status.as_ref()?.steps.first().map(|entry| entry.state)
    }
}

impl Ledger for World {
    async fn write(&self, _: &KernelIncident, entry: &StepEntry) -> Result<(), Unwritten> {
        self.point().await;
        self.put(entry);
        self.writes.borrow_mut().push(entry.state);
        self.point().await;
        Ok(())
    }
}

impl Hands for World {
    async fn take(&self, kind: StepKind) -> Report {
        assert_eq!(self.state(), Some(StepState::Intended), "nothing is taken before it stands written down");
        self.point().await;
        if let Some(report) = self.refuses.take() {
            self.refuses.set(Some(report.clone()));
            return report;
        }
        // As the executors do: what stands is left as it is.
        if !self.effects.borrow().contains(&kind) {
            self.effects.borrow_mut().push(kind);
        }
        self.point().await;
        Report::Done("done".to_owned())
    }

    fn foretell(&self, _: StepKind) -> String {
        "would".to_owned()
    }
}

const KINDS: [StepKind; 3] = [StepKind::Cordon, StepKind::DeletePods, StepKind::Uncordon];

proptest! {
    #[test]
    fn a_step_that_was_cut_off_anywhere_is_finished_by_the_next_leader(
        cuts in prop::collection::vec(0_u32..7, 0..6),
        kind in prop::sample::select(&KINDS[..]),
    ) {
        let world = World::new();
        for cut in cuts {
            world.left.set(cut);
            world.run(kind, true, &|| true);
        }
        world.left.set(u32::MAX);
        let course = world.run(kind, true, &|| true);
        prop_assert!(matches!(course, Some(Course::Ended(_))), "{course:?}");
        prop_assert_eq!(&*world.effects.borrow(), &[kind], "one effect");
        let writes = world.writes.borrow();
        prop_assert_eq!(&writes[..], &[StepState::Intended, StepState::Done], "each stands once");
    }

    #[test]
    fn who_does_not_lead_takes_nothing(deposed_at in 0_u32..3) {
        let world = World::new();
        let asked = Cell::new(0_u32);
        let leads = || {
            asked.set(asked.get() + 1);
            asked.get() <= deposed_at
        };
        prop_assert_eq!(world.run(StepKind::Cordon, true, &leads), Some(Course::Deposed));
        prop_assert_eq!(world.effects.borrow().len(), usize::from(deposed_at == 2));
        prop_assert_eq!(world.writes.borrow().len(), usize::from(deposed_at > 0));
        let course = world.run(StepKind::Cordon, true, &|| true);
        prop_assert!(matches!(course, Some(Course::Ended(_))), "the one who leads then finishes it: {course:?}");
        prop_assert_eq!(world.effects.borrow().len(), 1);
    }
}

#[test]
fn in_dry_run_a_step_is_told_once_and_not_taken() {
    let world = World::new();
    for _ in 0..2 {
        let Some(Course::Ended(entry)) = world.run(StepKind::DeletePods, false, &|| true) else { panic!("it ends") };
        assert_eq!((entry.state, entry.message.as_str()), (StepState::Told, "would"));
    }
    assert_eq!(*world.writes.borrow(), [StepState::Told]);
    assert!(world.effects.borrow().is_empty());
}

#[test]
fn a_step_under_way_when_dry_run_is_chosen_was_not_only_told() {
    let world = World::new();
    world.left.set(3);
    world.run(StepKind::Cordon, true, &|| true);
    world.left.set(u32::MAX);
    world.run(StepKind::Cordon, false, &|| true);
    assert_eq!(*world.writes.borrow(), [StepState::Intended, StepState::Failed]);
}

#[test]
fn what_is_refused_for_good_is_written_down_and_never_asked_again() {
    let world = World::new();
    world.refuses.set(Some(Report::Refused("no\x1b[2J".to_owned())));
    let Some(Course::Ended(entry)) = world.run(StepKind::DeleteNode, true, &|| true) else { panic!("it ends") };
    assert_eq!((entry.state, entry.message.as_str()), (StepState::Failed, "no\u{fffd}[2J"));
    world.refuses.set(None);
    assert_eq!(world.run(StepKind::DeleteNode, true, &|| true), Some(Course::Ended(entry)));
    assert!(world.effects.borrow().is_empty());
}

#[test]
fn what_is_not_allowed_is_waited_for_but_not_for_ever() {
    let world = World::new();
    let reason = "403".to_owned();
    world.refuses.set(Some(Report::Later { after: None, reason, forbidden: true, all_but: None }));
    assert!(matches!(world.run(StepKind::Cordon, true, &|| true), Some(Course::Unfinished { .. })));
    assert_eq!(world.state(), Some(StepState::Intended));
    world.second.set(i64::try_from(FORBIDDEN_FOR.as_secs()).expect("a time") + 10);
    let Some(Course::Ended(entry)) = world.run(StepKind::Cordon, true, &|| true) else { panic!("it ends") };
    assert_eq!((entry.state, entry.message.as_str()), (StepState::Failed, "not allowed: 403"));
}

#[test]
fn an_outage_never_makes_a_step_fail() {
    let world = World::new();
    let reason = "no answer".to_owned();
    world.refuses.set(Some(Report::Later { after: None, reason, forbidden: false, all_but: None }));
    world.run(StepKind::Cordon, true, &|| true);
    world.second.set(1_000_000);
    assert!(matches!(world.run(StepKind::Cordon, true, &|| true), Some(Course::Unfinished { .. })));
}

#[test]
fn one_pod_that_fails_for_ever_does_not_keep_the_step_from_ending() {
    let world = World::new();
    let all_but = Some("9 pods told the reason; 1 pod not told the reason: 500".to_owned());
    let report = Report::Later { after: None, reason: "500".to_owned(), forbidden: false, all_but: all_but.clone() };
    world.refuses.set(Some(report));
    assert!(matches!(world.run(StepKind::Annotate, true, &|| true), Some(Course::Unfinished { .. })));
    world.second.set(i64::try_from(STUCK_FOR.as_secs()).expect("a time") + 10);
    let Some(Course::Ended(entry)) = world.run(StepKind::Annotate, true, &|| true) else { panic!("it ends") };
    assert_eq!((entry.state, Some(entry.message)), (StepState::Done, all_but));
}

fn fresh() -> EvidenceEntry {
    EvidenceEntry {
        id: "leader/LeaseFresh".to_owned(),
        kind: EvidenceKind::LeaseFresh,
        origin: Origin::Lease,
        confidence: Confidence::High,
        time: MicroTime(Timestamp::UNIX_EPOCH),
        message: String::new(),
        cause: None,
        boot_id: None,
        suspect: None,
    }
}

/// What becomes of a step that stands as intended, and whether it was given up.
fn abandoned(kind: StepKind, back: bool, node_is_there: bool) -> Option<StepState> {
    let world = World::new();
    let time = MicroTime(Timestamp::UNIX_EPOCH);
    world.put(&StepEntry { kind, state: StepState::Intended, time, ended: None, message: String::new() });
    if back {
        world.incident.borrow_mut().status.get_or_insert_default().evidence.push(fresh());
    }
    let incident = world.incident.borrow().clone();
    let at = Circumstances { incident: &incident, act: true, leads: &|| true, now: &|| Timestamp::UNIX_EPOCH };
    let course = abandon(&at, node_is_there, &world).now_or_never().expect("nothing waits");
    assert!(world.effects.borrow().is_empty());
    course.and_then(|_| world.state())
}

#[test]
fn what_was_begun_on_a_node_that_is_back_is_given_up_and_what_takes_back_is_not() {
    for kind in [StepKind::Cordon, StepKind::Annotate, StepKind::DeletePods, StepKind::DeleteNode] {
        assert_eq!(abandoned(kind, true, true), Some(StepState::Failed), "{kind:?}");
        assert_eq!(abandoned(kind, false, true), None, "{kind:?}");
    }
    assert_eq!(abandoned(StepKind::Uncordon, true, true), None);
}

#[test]
fn of_a_node_that_is_gone_only_the_reason_is_still_written() {
    assert_eq!(abandoned(StepKind::DeleteNode, false, false), Some(StepState::Done));
    for kind in [StepKind::Cordon, StepKind::ForceDeletePods, StepKind::Untaint] {
        assert_eq!(abandoned(kind, false, false), Some(StepState::Failed), "{kind:?}");
    }
    for kind in [StepKind::Annotate, StepKind::Retract] {
        assert_eq!(abandoned(kind, false, false), None, "{kind:?}");
    }
}

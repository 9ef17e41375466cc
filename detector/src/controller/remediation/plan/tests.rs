//! Plans of single situations.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use rstest::rstest;

use super::*;
use crate::{
    contract::incident::{Confidence, EvidenceEntry, EvidenceKind, KernelIncident, KernelIncidentSpec, StepEntry},
    controller::{incident::fixture::entry, remediation::Budget},
};

pub(super) const BOOT: &str = "0f3c7a52-11aa-4b5c-9c7e-000000000000";

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

pub(super) fn everything() -> Policy {
    Policy {
        act: true,
        cordon: true,
        annotate: true,
        delete_pods: true,
        fail_pods: true,
        release: Release::OutOfService,
        delete_node: true,
        pod_reason_keys: Vec::new(),
        node_reason_keys: Vec::new(),
        trust_address: false,
        control_plane_nodes: Vec::new(),
        reboot_window: Duration::from_secs(600),
        close_after: Duration::from_secs(300),
        budget: Budget { nodes_at_once: 3, nodes_per_zone: 2, nodes_per_hour: 6, not_ready_percent: 30 },
    }
}

pub(super) fn evidence(kind: EvidenceKind, confidence: Confidence, second: i64) -> EvidenceEntry {
    EvidenceEntry { confidence, ..entry(kind, second) }
}

fn step(kind: StepKind, state: StepState) -> StepEntry {
    StepEntry { kind, state, time: MicroTime(at(1)), ended: None, message: String::new() }
}

fn incident(evidence: Vec<EvidenceEntry>, steps: Vec<StepEntry>) -> KernelIncident {
    let spec = KernelIncidentSpec {
        node: "node-a".to_owned(),
        node_uid: Some("u-1".to_owned()),
        boot_id: Some(BOOT.to_owned()),
        time: MicroTime(at(0)),
    };
    let status = KernelIncidentStatus { phase: Some(Phase::Suspected), evidence, steps, ..Default::default() };
    KernelIncident { status: Some(status), ..KernelIncident::new("node-a-0f3c7a5211aa", spec) }
}

pub(super) fn node(ready: Ready) -> NodeFacts {
    NodeFacts {
        name: "node-a".to_owned(),
        uid: "u-1".to_owned(),
        boot_id: Some(BOOT.to_owned()),
        ready,
        ready_since: Some(at(50)),
        ..NodeFacts::default()
    }
}

pub(super) fn lease(unchanged: u64) -> LeaseView {
    LeaseView::Seen { renewed: at(0), unchanged: Duration::from_secs(unchanged), interval: Duration::from_secs(10) }
}

/// A panic that was told with identity, and then silence.
pub(super) fn told(stale: bool, given_up: bool) -> Vec<EvidenceEntry> {
    let mut all = vec![evidence(EvidenceKind::Panic, Confidence::Medium, 1)];
    if stale {
        all.push(evidence(EvidenceKind::LeaseStale, Confidence::High, 25));
    }
    if given_up {
        all.push(evidence(EvidenceKind::ReadyUnknown, Confidence::High, 50));
    }
    all
}

fn silent() -> Vec<EvidenceEntry> {
    let entry = |kind, second| evidence(kind, Confidence::High, second);
    vec![entry(EvidenceKind::LeaseStale, 25), entry(EvidenceKind::ReadyUnknown, 50)]
}

pub(super) struct Case {
    pub(super) incident: KernelIncident,
    pub(super) node: Option<NodeFacts>,
    pub(super) lease: LeaseView,
    pub(super) usage: Usage,
    pub(super) braked: bool,
    pub(super) policy: Policy,
    pub(super) now: Timestamp,
}

impl Case {
    pub(super) fn new(evidence: Vec<EvidenceEntry>, steps: Vec<StepEntry>) -> Self {
        Self {
            incident: incident(evidence, steps),
            node: Some(node(Ready::True)),
            lease: lease(1),
            usage: Usage { cluster: 10, not_ready: 1, ..Usage::default() },
            braked: false,
            policy: everything(),
            now: at(60),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&Situation {
            incident: &self.incident,
            node: self.node.as_ref(),
            lease: self.lease,
            usage: &self.usage,
            braked: self.braked,
            policy: &self.policy,
            now: self.now,
        })
    }

    /// Writes a step down as the journal does.
    pub(super) fn write(&mut self, kind: StepKind, state: StepState) {
        let status = self.incident.status.as_mut().expect("a status");
        let time = MicroTime(Standing::of(status, self.policy.act).next(self.now));
        status.steps.retain(|entry| entry.kind != kind);
        status.steps.push(StepEntry { time, ..step(kind, state) });
    }

    /// Takes a step: what it changes is so, and it is written down.
    pub(super) fn take(&mut self, kind: StepKind) {
        self.write(kind, if self.policy.act { DONE } else { StepState::Told });
        match (kind, &mut self.node) {
            (StepKind::Cordon, Some(node)) if self.policy.act => node.cordoned = true,
            (StepKind::Uncordon, Some(node)) => node.cordoned = false,
            (StepKind::DeleteNode, node) if self.policy.act => *node = None,
            _ => {}
        }
    }

    pub(super) fn held(&self) -> Option<(StepKind, HoldReason)> {
        match self.plan() {
            Plan::Hold { step, reason, .. } => Some((step, reason)),
            Plan::Take(_) | Plan::Nothing { .. } => None,
        }
    }
}

pub(super) const DONE: StepState = StepState::Done;

/// Takes every step as it comes and returns all of them.
pub(super) fn run(case: &mut Case) -> Vec<StepKind> {
    let mut taken = Vec::new();
    while let Plan::Take(kind) = case.plan() {
        taken.push(kind);
        case.take(kind);
    }
    taken
}

#[test]
fn a_told_panic_is_written_down_at_once_and_nothing_is_deleted() {
    let mut case = Case::new(told(false, false), Vec::new());
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate]);
    assert_eq!(case.held(), Some((StepKind::DeletePods, HoldReason::NoCorroboration)));
}

#[test]
fn two_missed_renewals_let_deployments_move() {
    let mut case = Case::new(told(true, false), Vec::new());
    case.lease = lease(25);
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate, StepKind::DeletePods]);
    assert_eq!(case.held(), Some((StepKind::FailPods, HoldReason::NoCorroboration)));
}

#[test]
fn proof_of_death_frees_the_rest_and_the_node_goes_last() {
    let mut case = Case::new(told(true, true), Vec::new());
    case.lease = lease(60);
    case.node = Some(node(Ready::Unknown));
    assert_eq!(run(&mut case), FORTH[..5]);
    assert_eq!(case.held(), Some((StepKind::DeleteNode, HoldReason::NoCorroboration)));
    case.now = at(650);
    assert_eq!(
        case.held(),
        Some((StepKind::DeleteNode, HoldReason::NoCorroboration)),
        "we have not looked for so long"
    );
    case.lease = lease(600);
    assert_eq!(case.plan(), Plan::Take(StepKind::DeleteNode));
}

#[rstest]
#[case::fresh_lease(1, None)]
#[case::stale_lease(25, Some(StepKind::Cordon))]
fn a_word_without_an_author_counts_only_with_silence(#[case] unchanged: u64, #[case] next: Option<StepKind>) {
    let mut all = vec![evidence(EvidenceKind::Panic, Confidence::Low, 1)];
    if next.is_some() {
        all.push(evidence(EvidenceKind::LeaseStale, Confidence::High, 25));
    }
    let mut case = Case::new(all, Vec::new());
    case.lease = lease(unchanged);
    match next {
        Some(step) => assert_eq!(case.plan(), Plan::Take(step)),
        None => assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::NoCorroboration))),
    }
}

#[rstest]
#[case::not_trusted(false, &[StepKind::Cordon, StepKind::Annotate])]
#[case::trusted(true, &FORTH[..5])]
fn a_word_that_only_an_address_vouches_for_deletes_nothing_unless_addresses_are_trusted(
    #[case] trust_address: bool,
    #[case] steps: &[StepKind],
) {
    let mut all = told(true, true);
    all[0].confidence = Confidence::Low;
    let mut case = Case::new(all, Vec::new());
    case.lease = lease(60);
    case.node = Some(node(Ready::Unknown));
    case.policy.trust_address = trust_address;
    assert_eq!(run(&mut case), steps);
}

/// Between a reboot and the first renewals that are seen of it, the pods may run already.
#[rstest]
#[case::ready_is_still_unknown(Ready::Unknown)]
#[case::kubelet_is_there(Ready::True)]
fn nothing_is_deleted_of_a_node_whose_next_boot_is_up(#[case] ready: Ready) {
    let mut all = told(true, true);
    all.push(evidence(EvidenceKind::OtherBoot, Confidence::High, 70));
    let mut case = Case::new(all, Vec::new());
    case.lease = lease(60);
    case.node = Some(NodeFacts { boot_id: Some("another".to_owned()), ..node(ready) });
    assert_eq!(run(&mut case), [], "nor does it get a cordon, nor its pods a reason");
    assert_eq!(case.held(), Some((StepKind::DeletePods, HoldReason::NodeReturned)));
}

#[test]
fn of_a_silent_node_nothing_is_deleted() {
    let mut case = Case::new(silent(), Vec::new());
    case.lease = lease(600);
    case.node = Some(node(Ready::Unknown));
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate]);
}

#[test]
fn a_node_that_is_back_is_held_and_not_finished_off() {
    let mut all = told(true, true);
    all.push(evidence(EvidenceKind::OtherBoot, Confidence::High, 70));
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    let done = vec![step(StepKind::Cordon, DONE), step(StepKind::Annotate, DONE), step(StepKind::DeletePods, DONE)];
    let mut case = Case::new(all, done);
    case.node = Some(NodeFacts { boot_id: Some("another".to_owned()), ..node(Ready::True) });
    assert_eq!(run(&mut case), [StepKind::Retract, StepKind::Uncordon]);
    assert_eq!(case.held(), Some((StepKind::FailPods, HoldReason::NodeReturned)));
}

#[test]
fn the_taint_goes_before_the_cordon_and_only_when_the_node_is_well() {
    let mut all = told(true, true);
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    all.push(evidence(EvidenceKind::SameBoot, Confidence::High, 86));
    let done =
        [StepKind::Cordon, StepKind::Annotate, StepKind::DeletePods, StepKind::FailPods, StepKind::TaintOutOfService];
    let mut case = Case::new(all, done.map(|kind| step(kind, DONE)).to_vec());
    case.node = Some(node(Ready::Unknown));
    assert_eq!(run(&mut case), [StepKind::Retract]);
    assert_eq!(case.held(), Some((StepKind::Untaint, HoldReason::NoCorroboration)));
    case.node = Some(node(Ready::True));
    assert_eq!(run(&mut case), [StepKind::Untaint, StepKind::Uncordon]);
}

#[test]
fn a_storm_is_held_by_the_budget_but_every_node_gets_its_reason() {
    let mut case = Case::new(told(false, false), Vec::new());
    case.usage.nodes = 3;
    assert_eq!(run(&mut case), [StepKind::Annotate]);
    assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::Budget)));
}

#[test]
fn pods_of_nodes_that_are_only_silent_get_their_reason_within_the_limits() {
    let mut case = Case::new(silent(), Vec::new());
    case.usage.not_ready = 4;
    assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::ClusterUnwell)));
    assert_eq!(run(&mut case), []);
}

/// Between its first renewal and its first status nobody knows whether the node lived on.
#[test]
fn nothing_is_taken_back_before_it_is_known_which_boot_is_back() {
    let mut all = told(true, false);
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    let mut case = Case::new(all, vec![step(StepKind::Cordon, DONE), step(StepKind::Annotate, DONE)]);
    assert_eq!(case.held(), Some((StepKind::Retract, HoldReason::NoCorroboration)));
    let status = case.incident.status.as_mut().expect("a status");
    status.evidence.push(evidence(EvidenceKind::SameBoot, Confidence::High, 86));
    assert_eq!(run(&mut case), [StepKind::Retract, StepKind::Uncordon]);
}

#[test]
fn what_a_leader_began_to_take_back_the_next_one_takes_back() {
    let mut all = told(true, false);
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    all.push(evidence(EvidenceKind::OtherBoot, Confidence::High, 72));
    let mut case = Case::new(all, vec![step(StepKind::Annotate, DONE)]);
    case.write(StepKind::Retract, StepState::Intended);
    assert_eq!(case.plan(), Plan::Take(StepKind::Retract));
}

#[test]
fn what_was_only_told_is_done_once_steps_are_taken() {
    let mut case = Case::new(told(true, false), Vec::new());
    (case.policy.act, case.lease) = (false, lease(25));
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate, StepKind::DeletePods]);
    (case.policy.act, case.usage.nodes) = (true, 3);
    assert_eq!(run(&mut case), [StepKind::Annotate]);
    assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::Budget)), "which is asked anew");
    case.usage.nodes = 0;
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::DeletePods]);
}

#[test]
fn what_was_done_is_taken_back_whatever_was_chosen_since() {
    let mut all = told(true, true);
    all.push(evidence(EvidenceKind::OtherBoot, Confidence::High, 70));
    all.push(evidence(EvidenceKind::LeaseFresh, Confidence::High, 71));
    let mut case = Case::new(all, vec![step(StepKind::Cordon, DONE), step(StepKind::TaintOutOfService, DONE)]);
    case.policy.act = false;
    let status = case.incident.status.clone().expect("a status");
    assert!(unfinished(&status), "it is not closed before");
    assert_eq!(case.plan(), Plan::Take(StepKind::Untaint));
}

#[test]
fn a_node_that_is_lost_again_is_cordoned_again_within_the_budget() {
    let mut case = Case::new(silent(), Vec::new());
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate]);
    let tell = |case: &mut Case, kind, second| {
        let status = case.incident.status.as_mut().expect("a status");
        status.evidence.retain(|entry| entry.kind != kind);
        status.evidence.push(evidence(kind, Confidence::High, second));
        case.now = at(second);
    };
    tell(&mut case, EvidenceKind::LeaseFresh, 100);
    tell(&mut case, EvidenceKind::SameBoot, 115);
    assert_eq!(run(&mut case), [StepKind::Retract, StepKind::Uncordon]);
    tell(&mut case, EvidenceKind::LeaseStale, 200);
    case.usage.nodes = 3;
    assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::Budget)));
    case.usage.nodes = 0;
    assert_eq!(run(&mut case), [StepKind::Cordon, StepKind::Annotate]);
    tell(&mut case, EvidenceKind::LeaseFresh, 300);
    assert_eq!(run(&mut case), [], "which boot is back this time is not known yet");
    tell(&mut case, EvidenceKind::SameBoot, 315);
    assert_eq!(run(&mut case), [StepKind::Retract, StepKind::Uncordon]);
}

#[test]
fn the_reason_of_a_panic_is_still_written_on_pods_whose_node_was_deleted() {
    let mut all = told(false, false);
    all.push(evidence(EvidenceKind::NodeDeleted, Confidence::High, 5));
    let mut case = Case::new(all, Vec::new());
    case.node = None;
    let phase_at =
        |case: &Case, second| phase(case.incident.status.as_ref().expect("a status"), &case.policy, at(second));
    assert_eq!(phase_at(&case, 10), (Phase::Suspected, Some(at(65))));
    assert_eq!(phase_at(&case, 65).0, Phase::Closed, "the pods are gone by then");
    assert_eq!(run(&mut case), [StepKind::Annotate]);
    assert_eq!(phase_at(&case, 10).0, Phase::Closed);
}

#[rstest]
#[case::zone(Usage { nodes_in_zone: 2, cluster: 10, ..Usage::default() }, HoldReason::Budget)]
#[case::unwell(Usage { cluster: 10, not_ready: 4, ..Usage::default() }, HoldReason::ClusterUnwell)]
#[case::hour(Usage { nodes_in_hour: 6, cluster: 10, ..Usage::default() }, HoldReason::Brake)]
fn each_limit_holds(#[case] usage: Usage, #[case] reason: HoldReason) {
    let mut case = Case::new(told(false, false), vec![step(StepKind::Annotate, DONE)]);
    case.usage = usage;
    assert_eq!(case.held(), Some((StepKind::Cordon, reason)));
}

#[test]
fn the_budget_of_an_hour_pulls_the_brake_once_and_only_in_earnest() {
    let mut case = Case::new(told(false, false), vec![step(StepKind::Annotate, DONE)]);
    case.usage.nodes_in_hour = 6;
    assert!(matches!(case.plan(), Plan::Hold { brake: true, .. }));
    case.braked = true;
    assert!(matches!(case.plan(), Plan::Hold { brake: false, .. }));
    case.braked = false;
    case.policy.act = false;
    assert!(matches!(case.plan(), Plan::Hold { brake: false, .. }));
}

#[test]
fn one_lost_node_of_two_is_no_reason_to_hold() {
    let mut case = Case::new(told(false, false), Vec::new());
    case.usage = Usage { cluster: 2, not_ready: 1, ..Usage::default() };
    assert_eq!(case.plan(), Plan::Take(StepKind::Cordon));
}

#[rstest]
#[case::opted_out(|node: &mut NodeFacts| node.opted_out = true)]
#[case::control_plane(|node: &mut NodeFacts| node.control_plane = true)]
fn an_excluded_node_is_left_alone(#[case] exclude: fn(&mut NodeFacts)) {
    let mut case = Case::new(told(true, true), Vec::new());
    case.node.as_mut().map(exclude);
    assert_eq!(case.held(), Some((StepKind::Cordon, HoldReason::Excluded)));
}

#[test]
fn a_named_node_of_the_control_plane_is_not_excluded() {
    let mut case = Case::new(told(true, true), Vec::new());
    case.node = Some(NodeFacts { control_plane: true, ..node(Ready::True) });
    case.policy.control_plane_nodes = vec!["node-a".to_owned()];
    assert_eq!(case.plan(), Plan::Take(StepKind::Cordon));
}

#[test]
fn of_a_node_that_was_deleted_only_the_pods_get_their_reason() {
    let mut case = Case::new(told(true, true), Vec::new());
    case.node = None;
    assert_eq!(run(&mut case), [StepKind::Annotate]);
}

#[test]
fn a_step_that_was_written_down_is_taken_again_whatever_the_budget_says() {
    let mut case = Case::new(told(true, false), vec![step(StepKind::Cordon, StepState::Intended)]);
    case.usage.nodes = 9;
    assert_eq!(case.plan(), Plan::Take(StepKind::Cordon));
}

#[test]
fn nothing_is_deleted_when_the_reason_could_not_be_written() {
    let steps = vec![step(StepKind::Cordon, DONE), step(StepKind::Annotate, StepState::Failed)];
    let mut case = Case::new(told(true, true), steps);
    case.lease = lease(600);
    case.node = Some(node(Ready::Unknown));
    assert_eq!(case.held(), Some((StepKind::DeletePods, HoldReason::NoCorroboration)));
}

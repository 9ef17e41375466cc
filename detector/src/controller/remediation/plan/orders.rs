//! What holds for every plan in any order of inputs.

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};

use super::{tests::*, *};
use crate::contract::incident::{Confidence, EvidenceEntry};

/// Plans one after another of which each is looked at; no run of steps is as long.
const PLANS: usize = 12;

/// Something happens to the world or to the incident.
#[derive(Clone, Debug)]
enum Happening {
    Evidence(EvidenceKind, Confidence),
    Ready(Ready),
    Unchanged(u64),
    Usage { nodes: u32, nodes_in_zone: u32, nodes_in_hour: u32, not_ready: u32 },
    OptedOut(bool),
    Brake(bool),
    OtherBoot,
    Deleted,
    Later(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let kinds = [
        EvidenceKind::Panic,
        EvidenceKind::LeaseStale,
        EvidenceKind::LeaseFresh,
        EvidenceKind::ReadyUnknown,
        EvidenceKind::OtherBoot,
        EvidenceKind::SameBoot,
        EvidenceKind::FoundPanic,
        EvidenceKind::NodeDeleted,
    ];
    let authors = [Confidence::Low, Confidence::Medium];
    prop_oneof![
        12 => (prop::sample::select(kinds.to_vec()), prop::sample::select(authors.to_vec())).prop_map(|(k, c)| Happening::Evidence(k, c)),
        5 => prop::sample::select(&[Ready::True, Ready::False, Ready::Unknown][..]).prop_map(Happening::Ready),
        5 => prop_oneof![0_u64..120, 500_u64..900].prop_map(Happening::Unchanged),
        2 => (0_u32..5, 0_u32..3, 0_u32..8, 0_u32..6).prop_map(|(nodes, nodes_in_zone, nodes_in_hour, not_ready)| {
            Happening::Usage { nodes, nodes_in_zone, nodes_in_hour, not_ready }
        }),
        1 => any::<bool>().prop_map(Happening::OptedOut),
        1 => any::<bool>().prop_map(Happening::Brake),
        1 => Just(Happening::OtherBoot),
        1 => Just(Happening::Deleted),
        4 => (1_i64..900).prop_map(Happening::Later),
    ]
}

/// How it begins: with nothing, with a panic that was told, or with a node that is dead by all that can be known.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    Nothing,
    Told,
    Dead,
}

impl Case {
    fn begin(beginning: Beginning, release: Release) -> Self {
        let mut case = match beginning {
            Beginning::Nothing => Self::new(Vec::new(), Vec::new()),
            Beginning::Told => Self::new(told(false, false), Vec::new()),
            Beginning::Dead => Self::new(told(true, true), Vec::new()),
        };
        if matches!(beginning, Beginning::Dead) {
            (case.lease, case.node) = (lease(60), Some(node(Ready::Unknown)));
        }
        case.policy.release = release;
        case
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Evidence(kind, confidence) => {
                let now = self.now.as_second();
                let status = self.incident.status.as_mut().expect("a status");
                status.evidence.retain(|entry| entry.kind != kind);
                status.evidence.push(evidence(kind, confidence, now));
            }
            Happening::Ready(ready) => {
                if let Some(node) = &mut self.node {
                    let since = node.ready_since.filter(|_| node.ready == ready);
                    (node.ready, node.ready_since) = (ready, since.or(Some(self.now)));
                }
            }
            Happening::Unchanged(seconds) => self.lease = lease(seconds),
            Happening::Usage { nodes, nodes_in_zone, nodes_in_hour, not_ready } => {
                self.usage = Usage { nodes, nodes_in_zone, nodes_in_hour, not_ready, ..self.usage };
            }
            Happening::OptedOut(opted_out) => {
                if let Some(node) = &mut self.node {
                    node.opted_out = opted_out;
                }
            }
            Happening::Brake(pulled) => self.braked = pulled,
            Happening::OtherBoot => {
                if let Some(node) = &mut self.node {
                    node.boot_id = Some("another".to_owned());
                }
            }
            Happening::Deleted => self.node = None,
            Happening::Later(seconds) => self.now = at(self.now.as_second() + seconds),
        }
    }

    /// A panic told with identity, by a node that is silent still, and in which no other boot runs.
    fn may_delete(&self) -> bool {
        let status = self.incident.status.as_ref().expect("a status");
        let known = |entry: &EvidenceEntry| entry.kind == EvidenceKind::Panic && entry.confidence >= Confidence::Medium;
        let same_boot = self.node.as_ref().is_some_and(|node| node.boot_id.as_deref() == Some(BOOT));
        status.evidence.iter().any(known)
            && self.has(EvidenceKind::LeaseStale)
            && self.lease.missed() >= MISSED_RENEWALS
            && same_boot
            && !self.has(EvidenceKind::OtherBoot)
    }

    fn has(&self, kind: EvidenceKind) -> bool {
        self.incident.status.as_ref().is_some_and(|status| status.evidence.iter().any(|entry| entry.kind == kind))
    }

    /// Lost for the whole reboot window, by the control plane and by the Lease.
    fn is_lost_for_good(&self) -> bool {
        let window = self.policy.reboot_window;
        let since = self.node.as_ref().and_then(|node| node.ready_since);
        let given_up = since.is_some_and(|since| since.checked_add(window).expect("a time") <= self.now);
        given_up && matches!(self.lease, LeaseView::Seen { unchanged, .. } if unchanged >= window)
    }

    /// What each step wants, however it came to be planned.
    fn check(&self, kind: StepKind) -> Result<(), TestCaseError> {
        let opted_out = self.node.as_ref().is_some_and(|node| node.opted_out);
        prop_assert!(!(opted_out && FORTH.contains(&kind)), "it opted out");
        match kind {
            StepKind::Cordon | StepKind::Annotate => {
                prop_assert!(
                    self.has(EvidenceKind::Panic) || self.has(EvidenceKind::LeaseStale) || self.node.is_none()
                );
            }
            StepKind::DeletePods => prop_assert!(self.may_delete()),
            StepKind::FailPods | StepKind::TaintOutOfService | StepKind::ForceDeletePods | StepKind::DeleteNode => {
                prop_assert!(self.may_delete() && self.has(EvidenceKind::ReadyUnknown));
                prop_assert_eq!(self.node.as_ref().map(|node| node.ready), Some(Ready::Unknown));
                prop_assert!(kind != StepKind::DeleteNode || self.is_lost_for_good());
            }
            StepKind::Retract | StepKind::Untaint | StepKind::Uncordon => {
                prop_assert!(self.has(EvidenceKind::LeaseFresh));
            }
        }
        if FORTH.contains(&kind) && kind != StepKind::Annotate {
            self.check_limits()?;
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), TestCaseError> {
        let (usage, budget) = (&self.usage, self.policy.budget);
        prop_assert!(!self.braked, "the brake is pulled");
        let share = usage.not_ready * 100 / usage.cluster;
        prop_assert!(usage.not_ready <= 1 || share <= budget.not_ready_percent, "an unwell cluster");
        let status = self.incident.status.as_ref().expect("a status");
        if !Standing::of(status, true).is_begun(&Weight::of(&status.evidence)) {
            prop_assert!(usage.nodes < budget.nodes_at_once, "over the budget at once");
            prop_assert!(usage.nodes_in_zone < budget.nodes_per_zone, "over the budget of the zone");
            prop_assert!(usage.nodes_in_hour < budget.nodes_per_hour, "over the budget of the hour");
        }
        Ok(())
    }
}

#[test]
fn no_destructive_step_comes_without_corroboration_or_over_budget_in_any_order() {
    let taken = RefCell::new(BTreeMap::<StepKind, u32>::new());
    let beginnings = prop::sample::select(&[Beginning::Nothing, Beginning::Told, Beginning::Dead][..]);
    let releases = prop::sample::select(&[Release::OutOfService, Release::ForceDelete][..]);
    let inputs = (beginnings, releases, prop::collection::vec(happening(), 1..60));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2000));
    let outcome = runner.run(&inputs, |(beginning, release, happenings)| {
        let mut case = Case::begin(beginning, release);
        for happening in &happenings {
            case.happen(happening);
            for _ in 0..PLANS {
                let Plan::Take(kind) = case.plan() else { break };
                case.check(kind)?;
                *taken.borrow_mut().entry(kind).or_default() += 1;
                case.take(kind);
            }
        }
        Ok(())
    });
    outcome.expect("each step wants what it wants");
    let taken = taken.into_inner();
    let all = FORTH.into_iter().chain(BACK);
    let never: Vec<_> = all.filter(|kind| !taken.contains_key(kind)).collect();
    assert!(never.is_empty(), "nothing was asked of {never:?}: {taken:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whoever_plans_comes_to_an_end(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut case = Case::new(Vec::new(), Vec::new());
        for happening in &happenings {
            case.happen(happening);
        }
        prop_assert!(run(&mut case).len() <= 10);
    }
}

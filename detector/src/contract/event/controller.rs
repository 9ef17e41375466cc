//! Kubernetes events that the controller writes: one for each step and hold, on the incident, the Node and the pods.

use std::fmt::Write as _;

use crate::contract::incident::{HoldReason, StepKind, StepState};

/// Why an event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ControllerReason {
    /// [`StepKind::Cordon`] was done.
    NodeCordoned,
    /// [`StepKind::Annotate`] was done.
    KernelCrash,
    /// [`StepKind::DeletePods`] was done.
    PodDeleted,
    /// [`StepKind::FailPods`] was done.
    PodFailed,
    /// [`StepKind::TaintOutOfService`] was done.
    NodeOutOfService,
    /// [`StepKind::ForceDeletePods`] was done.
    PodForceDeleted,
    /// [`StepKind::DeleteNode`] was done.
    NodeDeleted,
    /// [`StepKind::Untaint`] was done.
    NodeUntainted,
    /// [`StepKind::Uncordon`] was done.
    NodeUncordoned,
    /// [`StepKind::Retract`] was done.
    KernelCrashOver,
    /// Any step failed.
    StepFailed,
    /// Any step was only told.
    StepNotTaken,
    /// Any step waits.
    StepHeld,
}

/// A row of the reference.
struct Row {
    reason: ControllerReason,
    warns: bool,
    pods: bool,
    meaning: &'static str,
}

const ROWS: [Row; 13] = [
    row(ControllerReason::NodeCordoned, true, false, "The node was cordoned, or somebody else had done so."),
    row(ControllerReason::KernelCrash, true, true, "The reason was written on the Node and on its pods."),
    row(ControllerReason::PodDeleted, true, true, "Pods were deleted with their own grace: Deployments replace them."),
    row(ControllerReason::PodFailed, true, true, "Pods were set to `Failed`: Jobs go on and are not charged."),
    row(ControllerReason::NodeOutOfService, true, false, "The node was tainted as out of service."),
    row(ControllerReason::PodForceDeleted, true, true, "Pods were deleted without grace: StatefulSets move."),
    row(ControllerReason::NodeDeleted, true, false, "The Node was deleted."),
    row(ControllerReason::NodeUntainted, false, false, "The taint was taken off: the node is back."),
    row(
        ControllerReason::NodeUncordoned,
        false,
        false,
        "Our cordon was taken back: the node is back, or never was dead.",
    ),
    row(
        ControllerReason::KernelCrashOver,
        false,
        true,
        "The condition was taken back; after a false alarm the reason, too.",
    ),
    row(ControllerReason::StepFailed, true, true, "The API server refused a step for good; the note says why."),
    row(ControllerReason::StepNotTaken, false, true, "Dry run: what would have been done."),
    row(
        ControllerReason::StepHeld,
        true,
        true,
        "A step waits; the note says for what. One event for each reason to wait.",
    ),
];

const fn row(reason: ControllerReason, warns: bool, pods: bool, meaning: &'static str) -> Row {
    Row { reason, warns, pods, meaning }
}

impl ControllerReason {
    /// All of them, in the order of the reference: a closed list, which the admission policy holds the controller to.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.reason)
    }

    /// That of a step which ended so; `None`: it has not ended.
    #[must_use]
    pub const fn of_step(kind: StepKind, state: StepState) -> Option<Self> {
        Some(match (state, kind) {
            (StepState::Intended, _) => return None,
            (StepState::Failed, _) => Self::StepFailed,
            (StepState::Told, _) => Self::StepNotTaken,
            (StepState::Done, StepKind::Cordon) => Self::NodeCordoned,
            (StepState::Done, StepKind::Annotate) => Self::KernelCrash,
            (StepState::Done, StepKind::DeletePods) => Self::PodDeleted,
            (StepState::Done, StepKind::FailPods) => Self::PodFailed,
            (StepState::Done, StepKind::TaintOutOfService) => Self::NodeOutOfService,
            (StepState::Done, StepKind::ForceDeletePods) => Self::PodForceDeleted,
            (StepState::Done, StepKind::DeleteNode) => Self::NodeDeleted,
            (StepState::Done, StepKind::Untaint) => Self::NodeUntainted,
            (StepState::Done, StepKind::Uncordon) => Self::NodeUncordoned,
            (StepState::Done, StepKind::Retract) => Self::KernelCrashOver,
        })
    }

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeCordoned => "NodeCordoned",
            Self::KernelCrash => "KernelCrash",
            Self::PodDeleted => "PodDeleted",
            Self::PodFailed => "PodFailed",
            Self::NodeOutOfService => "NodeOutOfService",
            Self::PodForceDeleted => "PodForceDeleted",
            Self::NodeDeleted => "NodeDeleted",
            Self::NodeUntainted => "NodeUntainted",
            Self::NodeUncordoned => "NodeUncordoned",
            Self::KernelCrashOver => "KernelCrashOver",
            Self::StepFailed => "StepFailed",
            Self::StepNotTaken => "StepNotTaken",
            Self::StepHeld => "StepHeld",
        }
    }

    /// `type` of its events.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        if ROWS.iter().any(|row| row.reason == self && row.warns) { "Warning" } else { "Normal" }
    }
}

/// Whether pods are told that a step waits for this. What passes by itself within seconds, or means an attempt that is made
/// again at once, is told on incident and Node alone: else each pod of each dead node had events that say nothing.
#[must_use]
pub const fn pods_are_told(reason: HoldReason) -> bool {
    !matches!(reason, HoldReason::NoCorroboration | HoldReason::Unverified)
}

/// The reference of these events in Markdown, as `docs/` shows it.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    for row in &ROWS {
        let about = if row.pods { "incident, Node, pods concerned" } else { "incident, Node" };
        // Writing to a `String` cannot fail.
        writeln!(page, "| `{}` | {} | {about} | {} |", row.reason.name(), row.reason.event_type(), row.meaning).ok();
    }
    page.push_str(CLOSING);
    page
}

const PREFACE: &str = "\
# Kubernetes events of the controller

The leader writes an `events.k8s.io/v1` event for each step that ended and for each reason why one waits.
`kubectl describe` shows them with the incident (`kubectl describe ki NAME`), the Node and the pods; those of incident and Node
lie in the namespace `default`.

| reason | type | about | meaning |
|---|---|---|---|
";

const CLOSING: &str = "
- `action` is the step: `Cordon`, `Annotate`, `DeletePods`, `FailPods`, `TaintOutOfService`, `ForceDeletePods`, `DeleteNode`,
  `Untaint`, `Uncordon`, `Retract`.
- `note` is what was done or why not, for people; at most 1,024 bytes. `related` is the incident.
- `reportingController` is `detector.dev/controller`, `reportingInstance` the replica.
- The name is made of incident, step, state and subject, so that the same thing told by another leader is the same event.
- Pods are told of a hold only if it lasts: not while evidence is missing or a node is being read again.
- At most 256 pods are told of one step. 4,096 events wait at most while the API server does not answer; what goes beyond is
  counted.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_once_in_the_reference() {
        let page = reference();
        for row in &ROWS {
            assert_eq!(page.matches(&format!("| `{}` |", row.reason.name())).count(), 1, "{page}");
        }
    }

    #[test]
    fn what_has_not_ended_is_not_told() {
        assert_eq!(ControllerReason::of_step(StepKind::Cordon, StepState::Intended), None);
        assert_eq!(
            ControllerReason::of_step(StepKind::DeleteNode, StepState::Told),
            Some(ControllerReason::StepNotTaken)
        );
    }
}

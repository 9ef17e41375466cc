//! What can be lost, by stage and kind: the closed set of pairs that `detector_events_lost_total` has.

use super::LossStage;

/// Something that can be lost. There are no others than those in [`LOSSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    stage: LossStage,
    kind: &'static str,
    meaning: &'static str,
}

impl Loss {
    const fn new(stage: LossStage, kind: &'static str, meaning: &'static str) -> Self {
        Self { stage, kind, meaning }
    }

    /// The one of that stage and kind.
    #[must_use]
    pub fn of(stage: LossStage, kind: &str) -> Option<Self> {
        LOSSES.iter().copied().find(|loss| loss.stage == stage && loss.kind == kind)
    }

    /// The stage that lost it.
    #[must_use]
    pub const fn stage(&self) -> LossStage {
        self.stage
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// What one of them is, in a sentence without its end.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        self.meaning
    }
}

/// Lines of the kernel's log.
pub const KERNEL_LOG: Loss = Loss::new(
    LossStage::Source,
    "kernel_log",
    "a line of the kernel's log that was overwritten before it was read, where a detector lives by the log",
);

/// Kubernetes events.
pub const EVENT: Loss =
    Loss::new(LossStage::Sink, "event", "a happening whose Kubernetes event the API server refused for good");

/// Node conditions.
pub const CONDITION: Loss =
    Loss::new(LossStage::Sink, "condition", "a write of the Node conditions that the API server refused for good");

/// Tasks of which a condition does not tell.
pub const HUNG_TASK: Loss =
    Loss::new(LossStage::Sink, "hung_task", "an account of a hung task for which its condition had no room");

/// All of them, by stage.
pub const LOSSES: &[Loss] = &[
    Loss::new(LossStage::Source, "oom_mark", "a record of an OOM victim that found its ring full"),
    Loss::new(LossStage::Source, "hung_task", "a record of a hung task that found its ring full"),
    Loss::new(LossStage::Source, "cgroup_made", "a record of a new cgroup that found its ring full"),
    Loss::new(LossStage::Source, "cgroup_removed", "a record of a removed cgroup that found its ring full"),
    KERNEL_LOG,
    Loss::new(
        LossStage::Source,
        "uncounted_kills",
        "a kill that the kernel side could not count by its cgroup: were its record lost, nobody would know",
    ),
    Loss::new(
        LossStage::Source,
        "spool_other_boot",
        "a record in the spool that was taken before the machine booted, and of which nothing was saved",
    ),
    Loss::new(LossStage::Source, "spool_damaged", "a spool whose end is no whole record"),
    Loss::new(LossStage::Decode, "short", "a record with fewer bytes than its kind has"),
    Loss::new(LossStage::Decode, "long", "a record with more bytes than its kind has"),
    Loss::new(LossStage::Decode, "abi", "a record of another version, in a ring, in pins or in the spool"),
    Loss::new(LossStage::Decode, "kind", "a record of an unknown kind"),
    Loss::new(LossStage::Decode, "length", "a record that is not as long as it says"),
    Loss::new(LossStage::Decode, "range", "a record with a number out of its range"),
    Loss::new(LossStage::Decode, "log_prefix", "a line of the kernel's log without its prefix"),
    Loss::new(LossStage::Decode, "log_number", "a line of the kernel's log with a number that is none"),
    Loss::new(
        LossStage::Locate,
        "containers_untold",
        "news of a container or pod for which there was no room: its metrics begin or end late",
    ),
    Loss::new(LossStage::Problem, "hangs_beyond_limit", "a record of a hung task while too many others hang"),
    Loss::new(LossStage::Problem, "hangs_nameless", "a record that does not tell which task hangs"),
    EVENT,
    CONDITION,
    HUNG_TASK,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_pair_stands_once_and_is_found_and_each_stage_has_one() {
        let pairs: BTreeSet<_> = LOSSES.iter().map(|loss| (loss.stage, loss.kind)).collect();
        assert_eq!(pairs.len(), LOSSES.len());
        assert!(LOSSES.iter().all(|loss| Loss::of(loss.stage, loss.kind) == Some(*loss)));
        assert_eq!(Loss::of(LossStage::Sink, "the moon"), None);
        let stages: BTreeSet<_> = LOSSES.iter().map(Loss::stage).collect();
        assert_eq!(stages.into_iter().collect::<Vec<_>>(), LossStage::ALL);
    }
}

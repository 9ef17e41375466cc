//! Kubernetes events that the agent writes: reasons, actions, and what their fields hold.

#[cfg(feature = "controller")]
pub mod controller;

use std::fmt::Write as _;

/// `reportingController` of every event of the agent.
pub const REPORTING_CONTROLLER: &str = "detector.dev/agent";

/// Longest `note` that the API server takes, in bytes (`pkg/apis/core/validation/events.go`: `NoteLengthLimit`).
pub const NOTE_BYTES: usize = 1024;

/// Longest `reportingInstance` that the API server takes, in bytes (the same file: `ReportingInstanceLengthLimit`).
pub const INSTANCE_BYTES: usize = 128;

/// Why an event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Reason {
    /// A process was killed, and its container lives on.
    ProcessOOMKilled,
    /// A container was killed.
    ContainerOOMKilled,
    /// A task hangs.
    TaskHung,
    /// A record of a panic was found after the machine booted.
    KernelPanicFound,
    /// The machine booted, and was not shut down before.
    UncleanShutdownFound,
    /// More happened than could be told one by one.
    FurtherProblems,
}

/// A row of the reference.
struct Row {
    reason: Reason,
    action: &'static str,
    about: &'static str,
    meaning: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        reason: Reason::ProcessOOMKilled,
        action: "KilledByKernel",
        about: "the Pod; the Node for what runs outside of pods",
        meaning: "The kernel's OOM killer killed a process that is not the main process of its container (or it is not \
                  known whether it is), so that the container lives on without it. Kubernetes itself does not see this.",
    },
    Row {
        reason: Reason::ContainerOOMKilled,
        action: "KilledByKernel",
        about: "the Pod; the Node for containers outside of pods",
        meaning: "The OOM killer killed the main process of a container, or all its processes at once (a group kill, which \
                  is one happening however many processes died).",
    },
    Row {
        reason: Reason::TaskHung,
        action: "HungInKernel",
        about: "the Pod; the Node for what runs outside of pods",
        meaning: "A task has waited inside of the kernel, not to be interrupted, for longer than \
                  `kernel.hung_task_timeout_secs`.",
    },
    Row {
        reason: Reason::KernelPanicFound,
        action: "Panicked",
        about: "the Node",
        meaning: "After a boot a record of a panic was found that was not there before. `eventTime` is the time of the panic \
                  (that of the boot where the record has none), the note its decisive lines. Written once for each panic.",
    },
    Row {
        reason: Reason::UncleanShutdownFound,
        action: "EndedWithoutShutdown",
        about: "the Node",
        meaning: "The boot before ended while the agent ran, and nothing tells of a panic or a shutdown. `eventTime` is the \
                  time of this boot. Written once for each such end.",
    },
    Row {
        reason: Reason::FurtherProblems,
        action: "ToldTogether",
        about: "the Node",
        meaning: "More containers were hit, while events could not be written, than the agent remembers one by one. The \
                  note counts the kills, the hung tasks and the pods.",
    },
];

impl Reason {
    /// All of them, in the order of the reference: a closed list, which the admission policy holds the agent to.
    pub const ALL: [Self; 6] = [
        Self::ProcessOOMKilled,
        Self::ContainerOOMKilled,
        Self::TaskHung,
        Self::KernelPanicFound,
        Self::UncleanShutdownFound,
        Self::FurtherProblems,
    ];

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProcessOOMKilled => "ProcessOOMKilled",
            Self::ContainerOOMKilled => "ContainerOOMKilled",
            Self::TaskHung => "TaskHung",
            Self::KernelPanicFound => "KernelPanicFound",
            Self::UncleanShutdownFound => "UncleanShutdownFound",
            Self::FurtherProblems => "FurtherProblems",
        }
    }

    /// The action that the event names: what was done, and by whom.
    #[must_use]
    pub fn action(self) -> &'static str {
        ROWS.iter().find(|row| row.reason == self).map_or("", |row| row.action)
    }
}

/// Fields and what they hold.
const FIELDS: [(&str, &str); 11] = [
    (
        "metadata.name",
        "Name of the pod or node, and a number made of boot id, CPU and number of the kernel's record (after a boot: of the \
         record that was found): the same happening told twice is one event.",
    ),
    (
        "metadata.namespace",
        "The pod's; for events about the Node the setting `events.nodeNamespace`, as it was when the series began.",
    ),
    (
        "eventTime",
        "When the kernel did it, with microseconds, also if the event is written much later. With a series: the first \
         time.",
    ),
    ("type", "`Warning`."),
    ("reason, action", "See above."),
    (
        "regarding",
        "The Pod with its uid (of a static pod the hash of its configuration, as in kubelet's own events, by which \
         `kubectl describe pod` finds them), or the Node with its uid (its name where the agent does not know the uid). A \
         pod whose names the agent could not find out becomes an event about the Node that names the pod's uid and the \
         container's id.",
    ),
    ("regarding.fieldPath", "`spec.containers{NAME}`; missing if the container's name is not known."),
    (
        "note",
        "What happened, for people, at most 1,024 bytes. Not meant for programs: its words may change. The limit is the \
         container's also where kubelet gave it that of its pod (it is the only one of the pod, or the pod has a limit of \
         its own and the container none) and the kernel named the pod's.",
    ),
    ("reportingController", "`detector.dev/agent`."),
    ("reportingInstance", "Name of the node."),
    (
        "series",
        "From the second happening of the same reason to the same container within the setting `events.series`: `count` is \
         the number of happenings, the first among them, `lastObservedTime` the last one's time. The note stays that of \
         the first.",
    ),
];

/// The reference of all events in Markdown, as `docs/` shows it.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    page.push_str("## Reasons\n\n| reason | action | about | meaning |\n|---|---|---|---|\n");
    for row in &ROWS {
        // Writing to a `String` cannot fail.
        writeln!(page, "| `{}` | `{}` | {} | {} |", row.reason.name(), row.action, row.about, row.meaning).ok();
    }
    page.push_str("\n## Fields\n\n| field | holds |\n|---|---|\n");
    for (field, holds) in FIELDS {
        writeln!(page, "| `{field}` | {holds} |").ok();
    }
    page.push_str(CLOSING);
    page
}

const PREFACE: &str = "\
# Kubernetes events of the agent

The agent writes `events.k8s.io/v1` events of type `Warning`. `kubectl describe pod` shows those about a pod,
`kubectl describe node` those about the node; `kubectl events` and `kubectl get events -o wide` show the count of a series.

";

const CLOSING: &str = "
## How many, and when

- The first event of a container is written at once. What follows in the same series waits a second, so that a storm
  becomes one number, and then for the budgets.
- Two budgets bound the writes: `events.podBudget` for each pod (or unit, or cgroup outside of pods) and
  `events.nodeBudget` for the node. Half of each burst is kept for first events, and pods take turns: a storm in one pod
  does not delay the first event of another, nor that of another reason or container of the same pod. What waits is counted
  on, not lost.
- An API server that is down or busy (no answer, 401, 408, 429, 502 to 504) is asked again, later and later up to once a
  minute, or some time after its `Retry-After`; then everything arrives with its true time. An event that it answers with
  another error that may pass (500, a lost race, 403) is tried again in the same manner, and others do not wait for it.
- A server that comes back may forbid (403) for a while what it allows later, so that this is asked again, too: forty times
  in a row, which takes about half an hour. Then, and when it refuses for good (an invalid object), that is told in the
  agent's log, counted in `detector_events_lost_total`, and not asked again.
- Events of a namespace that is gone or being terminated are not written: nobody is left to read them. That is no loss.
  `detector_api_writes_total` has it as `gone`.
- The rights needed are `create` and `patch` on `events.k8s.io` events.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_in_the_reference_with_its_own_action() {
        let page = reference();
        for row in &ROWS {
            assert!(page.contains(&format!("| `{}` | `{}` |", row.reason.name(), row.reason.action())), "{page}");
        }
    }

    #[test]
    fn the_list_of_reasons_is_that_of_the_reference() {
        assert_eq!(ROWS.each_ref().map(|row| row.reason), Reason::ALL);
    }

    #[test]
    fn reasons_and_actions_are_short_enough_for_the_api() {
        for row in &ROWS {
            assert!(row.reason.name().len() <= 128 && row.action.len() <= 128 && !row.action.is_empty());
        }
    }
}

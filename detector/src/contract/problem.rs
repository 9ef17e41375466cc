//! The catalogue: every problem that the agent knows, what it is about, how it is told, and how it ends.
//!
//! The pages `docs/problems.md` and `docs/conditions.md` and the admission policies of the Helm chart are made from these
//! tables ([`page`] words them).

pub mod page;
pub mod previous_boot;

use self::previous_boot::End;

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A container of a pod.
    Container,
    /// The node itself.
    Node,
}

impl Subject {
    /// Its name on the pages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Node => "node",
        }
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look at it in the next days.
    Warning,
    /// The node may be of no use any more.
    Critical,
}

impl Severity {
    /// Its name on the pages and in alerts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A condition that we keep in `status.conditions` of the Node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `type` of the condition.
    pub kind: &'static str,
    /// What it says while it is True.
    pub meaning: &'static str,
    /// Reason while it is False.
    pub clear_reason: &'static str,
    /// Message while it is False.
    pub clear_message: &'static str,
    /// Further reasons while it is False, each with its meaning.
    pub other_clear_reasons: &'static [(&'static str, &'static str)],
    /// Reasons while it is True, each with its meaning. The first is the general one.
    pub raised_reasons: &'static [(&'static str, &'static str)],
    /// Whether a node may be drained because of it, and why.
    pub drain: &'static str,
}

impl Condition {
    /// The general reason while it is True.
    #[must_use]
    pub fn raised_reason(&self) -> &'static str {
        self.raised_reasons.first().map_or(self.kind, |(reason, _)| *reason)
    }

    /// `reason` as this table holds it, if it is one that we give while the condition is True.
    #[must_use]
    pub fn known_reason(&self, reason: &str) -> Option<&'static str> {
        self.raised_reasons.iter().map(|(name, _)| *name).find(|name| *name == reason)
    }

    /// `reason` as this table holds it, if it is one that we give while the condition is False.
    #[must_use]
    pub fn known_clear_reason(&self, reason: &str) -> Option<&'static str> {
        let others = self.other_clear_reasons.iter().map(|(name, _)| *name);
        others.chain([self.clear_reason]).find(|name| *name == reason)
    }
}

/// A process of the node's runtime hangs. Type and the reasons `KernelHasNoDeadlock` and `DockerHung` are those of
/// node-problem-detector.
pub const KERNEL_DEADLOCK: Condition = Condition {
    kind: "KernelDeadlock",
    meaning: "A task of a process that the node needs to run containers (kubelet, container runtime, shim, init) hangs in \
              the kernel.",
    clear_reason: "KernelHasNoDeadlock",
    clear_message: "kernel has no deadlock",
    other_clear_reasons: &[],
    raised_reasons: &[
        (RUNTIME_TASK_HUNG, "a task of kubelet, of a container runtime, of a shim or of init hangs"),
        (DOCKER_HUNG, "a task of `docker` or `dockerd` hangs"),
    ],
    drain: "Yes: containers can neither be started nor stopped on this node as long as it holds. A node that hangs so may not \
            be able to end its pods.",
};

/// A task of a workload hangs.
pub const TASK_HUNG: Condition = Condition {
    kind: "TaskHung",
    meaning: "A task hangs in the kernel, which is not one of the node's runtime.",
    clear_reason: "NoTaskHung",
    clear_message: "no task hangs",
    other_clear_reasons: &[],
    raised_reasons: &[("TaskHung", "a task of a pod, of a service or of the kernel itself hangs")],
    drain: "No: a task that hangs is most often waiting for its own disk, its network file system or a lock of its own, and \
            would take that wait along to the next node. It is there to be looked at.",
};

/// The boot before ended in a crash. Reasons are those of [`End`]; the message is a
/// [`PreviousBoot`](previous_boot::PreviousBoot).
pub const PREVIOUS_BOOT_CRASH: Condition = Condition {
    kind: "PreviousBootCrash",
    meaning: "The boot before this one ended in a panic of the kernel, or without a shutdown. It says so for the time that \
              the setting `previousBoot.keep` names, counted from this boot on.",
    clear_reason: "NoPreviousBootCrash",
    clear_message: "of the boot before no crash is known",
    other_clear_reasons: &[(
        End::Clean.reason(),
        "it is proven that the boot before was shut down or restarted in order",
    )],
    raised_reasons: &[
        (End::Panic.reason(), "a record of the panic was found; the message has its time and its decisive lines"),
        (
            End::Unclean.reason(),
            "the agent ran until the end, and nothing tells of a shutdown: a loss of power, a reset, a hang",
        ),
    ],
    drain: "No: it tells of the past. The node runs again, and its pods were started anew.",
};

/// Reason of those conditions of ours that become Unknown: the node is dead or cannot be heard, and the controller says so.
pub const NODE_LOST: &str = "NodeLost";
/// Reason of `KernelDeadlock` in general.
pub const RUNTIME_TASK_HUNG: &str = "RuntimeTaskHung";
/// Reason of `KernelDeadlock` if the task is one of [`DOCKER_PROCESSES`].
pub const DOCKER_HUNG: &str = "DockerHung";
/// Processes whose hang has the reason [`DOCKER_HUNG`].
pub const DOCKER_PROCESSES: [&str; 2] = ["docker", "dockerd"];

/// Every condition of ours: a closed list. The agent writes no other, and the admission policy lets it write no other.
pub const CONDITIONS: [&Condition; 3] = [&KERNEL_DEADLOCK, &TASK_HUNG, &PREVIOUS_BOOT_CRASH];

/// Types that an earlier version wrote and this one does not. The admission policy goes on to let the agent touch them:
/// its first write removes what is left of them (server-side apply), which would else be refused as a whole, for ever.
pub const RETIRED: [&str; 0] = [];

/// The types of all conditions of ours, in the order of [`CONDITIONS`].
#[must_use]
pub fn condition_types() -> Vec<&'static str> {
    CONDITIONS.iter().map(|condition| condition.kind).collect()
}

/// The condition of this type, if it is one of ours.
#[must_use]
pub fn condition(kind: &str) -> Option<&'static Condition> {
    CONDITIONS.into_iter().find(|condition| condition.kind == kind)
}

/// A reason of an event, and on which object the event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventReason {
    /// `Pod` or `Node`.
    pub on: &'static str,
    /// `reason` of the event.
    pub reason: &'static str,
}

/// One problem.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// Its name on the pages, such as `oom_kill`.
    pub name: &'static str,
    /// What happened, in a sentence.
    pub meaning: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// The condition that it raises, with the reason; `None`: it is over when it is seen.
    pub condition: Option<(&'static Condition, &'static str)>,
    /// Events that tell it.
    pub events: &'static [EventReason],
    /// Metrics that count it.
    pub metrics: &'static [&'static str],
    /// When it is over.
    pub clears: &'static str,
    /// What whoever is told may do.
    pub what_to_do: &'static str,
}

const TASK_ENDS: &str = "When the task runs again or is gone, looked at once a second; when several hang, with the last \
                         of them. A restart of the machine ends it, too.";

const KEPT: &str = "After the time in `previousBoot.keep`, counted from the boot on, or with the next boot.";

/// Every problem that the agent knows.
pub const PROBLEMS: &[Problem] = &[
    Problem {
        name: "process_oom_killed",
        meaning: "The kernel killed a process of a container for want of memory, and the container lives on: the process \
                  was not its first.",
        subject: Subject::Container,
        severity: Severity::Warning,
        condition: None,
        events: &[EventReason { on: "Pod", reason: "ProcessOOMKilled" }],
        metrics: &["detector_container_oom_kills_total", "detector_container_oom_kills_by_total"],
        clears: "It is over when it is told.",
        what_to_do: "Look which limit was hit (`limit`). `container`: raise the container's limit, or have it run fewer or \
                     smaller processes. `pod` or `ancestor`: the containers of the pod together, or its class, used more \
                     than is allowed. `node`: the node ran out of memory; see requests of all its pods.",
    },
    Problem {
        name: "container_oom_killed",
        meaning: "The kernel killed the first process of a container, or all its processes, for want of memory: the \
                  container ends.",
        subject: Subject::Container,
        severity: Severity::Warning,
        condition: None,
        events: &[EventReason { on: "Pod", reason: "ContainerOOMKilled" }],
        metrics: &["detector_container_oom_kills_total", "detector_container_oom_kills_by_total"],
        clears: "It is over when it is told.",
        what_to_do: "As for `process_oom_killed`. kubelet restarts the container by its restart policy.",
    },
    Problem {
        name: "node_oom_kill",
        meaning: "The kernel killed a process that is in no pod for want of memory, such as a service of the node.",
        subject: Subject::Node,
        severity: Severity::Warning,
        condition: None,
        events: &[
            EventReason { on: "Node", reason: "ProcessOOMKilled" },
            EventReason { on: "Node", reason: "ContainerOOMKilled" },
        ],
        metrics: &["detector_node_oom_kills_total"],
        clears: "It is over when it is told.",
        what_to_do: "Look at the limit of the service, and at what kubelet reserves for the system (`systemReserved`, \
                     `kubeReserved`).",
    },
    Problem {
        name: "task_hung",
        meaning: "A task of a pod, of a service or of the kernel has been in uninterruptible sleep for longer than \
                  `kernel.hung_task_timeout_secs`.",
        subject: Subject::Container,
        severity: Severity::Warning,
        condition: Some((&TASK_HUNG, "TaskHung")),
        events: &[EventReason { on: "Pod", reason: "TaskHung" }, EventReason { on: "Node", reason: "TaskHung" }],
        metrics: &["detector_hung_tasks"],
        clears: TASK_ENDS,
        what_to_do: "Look where it waits (the stack, in the agent's log) and who holds the lock. `io_schedule` and names of \
                     file systems: the disk or file server does not answer. Do not drain: the pod could not be ended.",
    },
    Problem {
        name: "runtime_task_hung",
        meaning: "A task of a process that the node needs to run containers (setting `conditions.runtimeProcesses`), \
                  outside of pods and of users' sessions, has been in uninterruptible sleep for longer than \
                  `kernel.hung_task_timeout_secs`.",
        subject: Subject::Node,
        severity: Severity::Critical,
        condition: Some((&KERNEL_DEADLOCK, RUNTIME_TASK_HUNG)),
        events: &[EventReason { on: "Node", reason: "TaskHung" }],
        metrics: &["detector_hung_tasks"],
        clears: TASK_ENDS,
        what_to_do: "Cordon the node and look as for `task_hung`. If it stays, restart the machine: a process in \
                     uninterruptible sleep cannot be killed.",
    },
    Problem {
        name: "docker_hung",
        meaning: "The same, and the process is `docker` or `dockerd` (if it is in `conditions.runtimeProcesses`).",
        subject: Subject::Node,
        severity: Severity::Critical,
        condition: Some((&KERNEL_DEADLOCK, DOCKER_HUNG)),
        events: &[EventReason { on: "Node", reason: "TaskHung" }],
        metrics: &["detector_hung_tasks"],
        clears: TASK_ENDS,
        what_to_do: "As for `runtime_task_hung`.",
    },
    Problem {
        name: "kernel_panic_found",
        meaning: "The boot before ended in a panic: pstore, systemd's archive of it or kdump has a record that was not there \
                  before.",
        subject: Subject::Node,
        severity: Severity::Critical,
        condition: Some((&PREVIOUS_BOOT_CRASH, End::Panic.reason())),
        events: &[EventReason { on: "Node", reason: "KernelPanicFound" }],
        metrics: &["detector_previous_boot_crashes_total"],
        clears: KEPT,
        what_to_do: "Read the record whole, in the place that the message names. Our own line (`detector: last words`) names \
                     who is suspected. Records are never deleted by the agent; where pstore is full the next panic is lost.",
    },
    Problem {
        name: "unclean_shutdown_found",
        meaning: "The boot before ended while the agent ran, and nothing tells of a panic or of a shutdown.",
        subject: Subject::Node,
        severity: Severity::Critical,
        condition: Some((&PREVIOUS_BOOT_CRASH, End::Unclean.reason())),
        events: &[EventReason { on: "Node", reason: "UncleanShutdownFound" }],
        metrics: &["detector_previous_boot_crashes_total"],
        clears: KEPT,
        what_to_do: "Look at the machine's event log (BMC, cloud console) for a loss of power, a reset or a watchdog. `detector \
                     doctor` tells whether a panic could have left a record.",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `metav1.Condition` wants this of a reason; the API server does not check it on Nodes.
    fn is_camel_case(reason: &str) -> bool {
        reason.starts_with(|first: char| first.is_ascii_uppercase())
            && reason.chars().all(|c| c.is_ascii_alphanumeric())
    }

    #[test]
    fn names_and_types_are_unique() {
        let names: BTreeSet<_> = PROBLEMS.iter().map(|problem| problem.name).collect();
        let kinds: BTreeSet<_> = condition_types().into_iter().collect();
        assert_eq!((names.len(), kinds.len()), (PROBLEMS.len(), CONDITIONS.len()));
    }

    #[test]
    fn a_type_is_not_in_use_and_retired_at_once() {
        assert!(RETIRED.iter().all(|kind| condition(kind).is_none()));
    }

    #[test]
    fn every_reason_is_camel_case() {
        for condition in CONDITIONS {
            let raised = condition.raised_reasons.iter().map(|(reason, _)| *reason);
            for reason in raised.chain([condition.kind, condition.clear_reason]) {
                assert!(is_camel_case(reason), "{reason}");
            }
        }
        for event in PROBLEMS.iter().flat_map(|problem| problem.events) {
            assert!(is_camel_case(event.reason), "{}", event.reason);
        }
    }

    #[test]
    fn a_reason_tells_true_from_false() {
        for condition in CONDITIONS {
            let others = condition.other_clear_reasons.iter().map(|(reason, _)| *reason);
            for reason in others.chain([condition.clear_reason]) {
                assert_eq!(condition.known_reason(reason), None, "{}", condition.kind);
                assert_eq!(condition.known_clear_reason(reason), Some(reason));
            }
        }
    }

    #[test]
    fn every_reason_of_a_condition_belongs_to_a_problem_and_back() {
        let of_problems: BTreeSet<_> =
            PROBLEMS.iter().filter_map(|problem| problem.condition).map(|(c, reason)| (c.kind, reason)).collect();
        let of_conditions: BTreeSet<_> =
            CONDITIONS.iter().flat_map(|c| c.raised_reasons.iter().map(|(reason, _)| (c.kind, *reason))).collect();
        assert_eq!(of_problems, of_conditions);
    }

    #[test]
    fn names_that_node_problem_detector_uses_are_kept() {
        assert_eq!((KERNEL_DEADLOCK.kind, KERNEL_DEADLOCK.clear_reason), ("KernelDeadlock", "KernelHasNoDeadlock"));
        assert_eq!(KERNEL_DEADLOCK.known_reason("DockerHung"), Some("DockerHung"));
    }
}

//! One hung task as the cause of a condition: what is kept of it, and which condition it belongs to.

use serde::{Deserialize, Serialize};

use super::super::report::{HangReport, Subject};
use crate::{
    clock::USER_TICK_NS,
    contract::problem::{Condition, DOCKER_HUNG, DOCKER_PROCESSES, KERNEL_DEADLOCK, TASK_HUNG},
};

/// Starts of one task as record and `/proc` tell them differ by less: `/proc` rounds down.
const START_TOLERANCE_NS: u64 = USER_TICK_NS;
/// Where systemd keeps the sessions of users (systemd.special(7)).
const USER_SESSIONS: &str = "/user.slice";

/// Names one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Its thread id.
    pub tid: u32,
    /// When it started, nanoseconds since boot; `None`: not known.
    pub start_ns: Option<u64>,
}

impl Task {
    /// Whether both may be one task: the same thread id, and no two different starts.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let starts = self.start_ns.zip(other.start_ns);
        self.tid == other.tid && starts.is_none_or(|(a, b)| a.abs_diff(b) <= START_TOLERANCE_NS)
    }
}

/// What is known of a hung task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Where it lives.
    pub subject: Subject,
    /// Its pid.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Name of its process's leading thread.
    pub leader_comm: Option<String>,
    /// Times that it was switched away from: another number means that it ran since.
    #[serde(default)]
    pub switches: Option<u64>,
    /// Since when it hangs at least, nanoseconds since boot.
    pub since_ns: u64,
    /// The same, microseconds since 1970 UTC.
    pub since_us: i64,
    /// Kind of lock that it waits for; `None`: not known or none.
    pub lock: Option<String>,
    /// Name and pid of the lock's holder.
    pub holder: Option<(Option<String>, Option<u32>)>,
}

impl Cause {
    /// What `report` tells.
    #[must_use]
    pub fn of(report: &HangReport) -> Self {
        // A foreign number must not overflow.
        let seconds = report.hung_seconds.min(report.boot_ns / 1_000_000_000);
        Self {
            subject: report.subject.clone(),
            pid: report.pid,
            comm: report.comm.clone(),
            leader_comm: report.leader_comm.clone(),
            switches: report.switches,
            since_ns: report.boot_ns - seconds * 1_000_000_000,
            since_us: report.time_us.saturating_sub_unsigned(seconds.saturating_mul(1_000_000)),
            lock: report.lock.clone(),
            holder: report.holder.clone(),
        }
    }

    /// Takes over what this account lacks and an account of the same hang told before. The begin stays as it was told
    /// first: later ones differ by what the clocks were set.
    pub(super) fn fill(&mut self, before: &Self) {
        (self.since_ns, self.since_us) = (before.since_ns, before.since_us);
        if self.subject == Subject::default() || (self.subject.lacks_names() && !before.subject.lacks_names()) {
            self.subject = before.subject.clone();
        }
        self.pid = self.pid.or(before.pid);
        self.comm = self.comm.take().or_else(|| before.comm.clone());
        self.leader_comm = self.leader_comm.take().or_else(|| before.leader_comm.clone());
        self.switches = self.switches.or(before.switches);
        // It waits where it waited: one hang has one lock.
        if self.lock.is_none() {
            (self.lock, self.holder) = (before.lock.clone(), before.holder.clone());
        }
    }

    /// The condition that it raises. `runtime`: names of the node's runtime processes.
    ///
    /// Nodes are drained because of `KernelDeadlock`: what is not known to be of the runtime does not raise it.
    #[must_use]
    pub fn condition(&self, runtime: &[String]) -> &'static Condition {
        let listed = |name: &str| runtime.iter().any(|listed| listed == name);
        if self.names().any(listed) && self.lives_where_runtimes_live() { &KERNEL_DEADLOCK } else { &TASK_HUNG }
    }

    /// The reason that it gives `condition`.
    #[must_use]
    pub fn reason(&self, condition: &'static Condition) -> &'static str {
        let docker = self.names().any(|name| DOCKER_PROCESSES.contains(&name));
        condition.known_reason(DOCKER_HUNG).filter(|_| docker).unwrap_or_else(|| condition.raised_reason())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [&self.comm, &self.leader_comm].into_iter().filter_map(Option::as_deref)
    }

    fn lives_where_runtimes_live(&self) -> bool {
        let Subject { pod_uid: None, container_id: None, cgroup: Some(cgroup), .. } = &self.subject else {
            return false;
        };
        let in_session =
            cgroup.strip_prefix(USER_SESSIONS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !in_session
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn cause(comm: &str, leader: &str, subject: Subject) -> Cause {
        Cause {
            subject,
            pid: Some(7),
            comm: Some(comm.into()),
            leader_comm: Some(leader.into()),
            switches: None,
            since_ns: 0,
            since_us: 0,
            lock: None,
            holder: None,
        }
    }

    fn at(cgroup: &str) -> Subject {
        Subject { cgroup: Some(cgroup.into()), ..Subject::default() }
    }

    fn in_pod() -> Subject {
        Subject { pod_uid: Some("uid".into()), container_id: Some("id".into()), ..at("/kubepods/poduid/id") }
    }

    fn in_container() -> Subject {
        Subject { container_id: Some("id".into()), ..at("/docker/id") }
    }

    #[rstest]
    #[case::kubelet("kubelet", "kubelet", at("/system.slice/kubelet.service"), "KernelDeadlock", "RuntimeTaskHung")]
    #[case::a_thread_of_it("worker", "kubelet", at("/podruntime"), "KernelDeadlock", "RuntimeTaskHung")]
    #[case::init("systemd", "systemd", at("/init.scope"), "KernelDeadlock", "RuntimeTaskHung")]
    #[case::in_the_root_cgroup("containerd", "containerd", at("/"), "KernelDeadlock", "RuntimeTaskHung")]
    #[case::docker("dockerd", "dockerd", at("/system.slice/docker.service"), "KernelDeadlock", "DockerHung")]
    #[case::another_service("cron", "cron", at("/system.slice/cron.service"), "TaskHung", "TaskHung")]
    #[case::a_pod_that_calls_it_so("kubelet", "kubelet", in_pod(), "TaskHung", "TaskHung")]
    #[case::a_pod_named_docker("dockerd", "dockerd", in_pod(), "TaskHung", "TaskHung")]
    #[case::a_container_without_a_pod("kubelet", "kubelet", in_container(), "TaskHung", "TaskHung")]
    #[case::a_place_not_known("kubelet", "kubelet", Subject::default(), "TaskHung", "TaskHung")]
    #[case::of_a_user(
        "systemd",
        "systemd",
        at("/user.slice/user-1000.slice/user@1000.service"),
        "TaskHung",
        "TaskHung"
    )]
    #[case::like_a_session("runc", "runc", at("/user.slices"), "KernelDeadlock", "RuntimeTaskHung")]
    fn a_hang_belongs_to_one_condition(
        #[case] comm: &str,
        #[case] leader: &str,
        #[case] subject: Subject,
        #[case] kind: &str,
        #[case] reason: &str,
    ) {
        let runtime = crate::config::Conditions::default().runtime_processes;
        let cause = cause(comm, leader, subject);
        let condition = cause.condition(&runtime);
        assert_eq!((condition.kind, cause.reason(condition)), (kind, reason));
    }

    #[rstest]
    #[case(Some(100_000_000), Some(109_000_000), true)]
    #[case(Some(100_000_000), Some(111_000_000), false)]
    #[case(Some(100_000_000), None, true)]
    fn starts_agree_within_a_tick_of_user_space(#[case] a: Option<u64>, #[case] b: Option<u64>, #[case] same: bool) {
        let (a, b) = (Task { tid: 1, start_ns: a }, Task { tid: 1, start_ns: b });
        assert_eq!((a.may_be(&b), b.may_be(&a)), (same, same));
        assert!(!a.may_be(&Task { tid: 2, ..a }));
    }
}

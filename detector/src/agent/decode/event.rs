//! What a decoded record says. What the kernel side could not read is `None`, never a zero.

use std::fmt;

use arrayvec::ArrayVec;
use detector_common::{
    hung_task::FRAMES,
    oom::{COMM_LENGTH, LEVELS},
};

/// A decoded record.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "events are handled one at a time and never stored")]
pub enum KernelEvent {
    /// The OOM killer marked a task.
    OomMark(OomMark),
    /// A cgroup was made, renamed or removed.
    CgroupLife(CgroupLife),
    /// The kernel's own watch found a task hung.
    HungTask(Box<HungTask>),
}

/// Identity of a record within its ring, and the time of the happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Nanoseconds since boot, suspended time included.
    pub boot_ns: u64,
    /// CPU that wrote the record.
    pub cpu: u32,
    /// Number of the record on that CPU and ring, from 1.
    pub sequence: u64,
}

/// A cgroup as the kernel names it. Ids are unique within one hierarchy only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    /// Number of the hierarchy as in `/proc/PID/cgroup`; 0 is cgroup v2.
    pub hierarchy: u32,
    /// kernfs id: the inode number of the cgroup's directory.
    pub id: u64,
}

/// A task's name: at most 15 bytes, not always UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; COMM_LENGTH]);

impl Comm {
    /// The name, with bytes that are not UTF-8 or would disturb a terminal replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(COMM_LENGTH);
        String::from_utf8_lossy(&self.0[..end])
            .chars()
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect()
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

/// One task marked by the OOM killer.
#[derive(Clone, Debug, PartialEq)]
pub struct OomMark {
    /// Identity and time.
    pub stamp: Stamp,
    /// `Some(false)`: the task was already dying and is no kill.
    pub real_kill: Option<bool>,
    /// The marked task.
    pub victim: Victim,
    /// The task that asked for memory.
    pub trigger: Option<Trigger>,
    /// What the kernel decided on, where a probe of the decision is attached.
    pub decision: Option<Decision>,
    /// The trigger's last attempt to free memory, where its probes are attached.
    pub reclaim: Option<Reclaim>,
    /// Memory cgroups from the victim's own to the root.
    pub levels: ArrayVec<Level, LEVELS>,
    /// The topmost levels are missing, because the tree is deeper than a record can tell.
    pub levels_cut: bool,
}

/// The marked task.
#[derive(Clone, Debug, PartialEq)]
pub struct Victim {
    /// Thread group: what user space calls the pid.
    pub tgid: Option<u32>,
    /// The task itself: the thread id.
    pub pid: Option<u32>,
    /// Start of the thread group's leader, nanoseconds since boot.
    pub leader_start_ns: Option<u64>,
    /// Name of the task.
    pub comm: Option<Comm>,
    /// Name of the thread group's leader.
    pub leader_comm: Option<Comm>,
    /// Real user id.
    pub uid: Option<u32>,
    /// -1,000 to 1,000.
    pub oom_score_adj: Option<i32>,
    /// Memory in pages.
    pub memory: Option<Rss>,
    /// Bytes of page tables.
    pub page_table_bytes: Option<u64>,
    /// Number in the innermost pid namespace, and the depth of that namespace.
    pub namespace: Option<NamespacePid>,
    /// Memory cgroup.
    pub cgroup: Option<CgroupKey>,
    /// Depth of that cgroup below the root.
    pub cgroup_level: Option<u32>,
}

/// Resident pages of a process, and its pages swapped out. Never below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rss {
    /// Pages of files.
    pub file: u64,
    /// Anonymous pages.
    pub anon: u64,
    /// Pages swapped out; not told by every method.
    pub swap: Option<u64>,
    /// Pages of shared memory.
    pub shmem: u64,
}

/// A process as its innermost pid namespace numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespacePid {
    /// Number; 1 is the namespace's init.
    pub pid: u32,
    /// Depth of the namespace; 0 is the machine's own.
    pub level: u32,
}

/// The task on whose allocation memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Thread group.
    pub tgid: u32,
    /// The task itself.
    pub pid: u32,
    /// Name of the task.
    pub comm: Comm,
    /// Memory cgroup.
    pub cgroup: Option<CgroupKey>,
}

/// What the OOM killer decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Time of the decision, the same for all victims of one group kill.
    pub boot_ns: u64,
    /// Cgroup whose limit was hit with its depth; `None` is the whole machine.
    pub domain: Option<(CgroupKey, u32)>,
    /// Pages that the domain may use, swap included.
    pub total_pages: u64,
    /// `enum oom_constraint`: 0 none, 1 cpuset, 2 memory policy, 3 memory cgroup.
    pub constraint: u32,
    /// Order of the failed allocation; -1 is sysrq.
    pub order: i32,
    /// Flags of the failed allocation.
    pub gfp: u32,
}

/// An attempt to free memory. The kernel makes one before it goes to the OOM killer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// When it began, the same for all victims of one decision.
    pub boot_ns: u64,
    /// For whom.
    pub scope: ReclaimScope,
}

/// For whom memory was to be freed: who had run out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReclaimScope {
    /// The whole machine.
    Machine,
    /// A memory cgroup.
    Cgroup,
}

/// One memory cgroup between the victim's own and the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// kernfs id, in the hierarchy of the victim's memory cgroup.
    pub id: u64,
    /// Depth below the root.
    pub level: u32,
    /// How often its own limit led to the OOM killer. Not a count of kills.
    pub oom_events: Option<u64>,
    /// Limit in pages: `None` is unknown, `Some(None)` is no limit.
    pub limit_pages: Option<Option<u64>>,
    /// Usage in pages.
    pub usage_pages: Option<u64>,
    /// Whether `memory.oom.group` is set.
    pub oom_group: Option<bool>,
}

/// A cgroup was made, renamed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLife {
    /// Identity and time.
    pub stamp: Stamp,
    /// Which cgroup.
    pub key: CgroupKey,
    /// Its absolute path in the hierarchy, such as `/kubepods.slice/…`; `None` where the kernel could not tell.
    pub path: Option<String>,
    /// What happened to it.
    pub change: CgroupChange,
}

/// What happened to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupChange {
    /// It exists under this path from now on.
    Made,
    /// It is gone.
    Removed,
}

/// A task that the kernel's own watch found hung; told anew at each of its scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HungTask {
    /// Identity and time.
    pub stamp: Stamp,
    /// The task.
    pub task: Task,
    /// Times that it was switched away from. It has not run as long as this stands still.
    pub switches: Option<u64>,
    /// Jiffies that it has hung at least.
    pub hung_jiffies: Option<u64>,
    /// The lock it waits for: `None` is unknown, `Some(None)` none that the kernel keeps account of.
    pub lock: Option<Option<Lock>>,
    /// Return addresses in the kernel, innermost first; empty if unknown.
    pub stack: ArrayVec<u64, FRAMES>,
}

/// A task with what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Thread group: what user space calls the pid.
    pub tgid: Option<u32>,
    /// The task itself: the thread id.
    pub pid: Option<u32>,
    /// Start of the task, nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Start of its thread group's leader, nanoseconds since boot.
    pub leader_start_ns: Option<u64>,
    /// Name of the task.
    pub comm: Option<Comm>,
    /// Name of its thread group's leader.
    pub leader_comm: Option<Comm>,
    /// Memory cgroup.
    pub cgroup: Option<CgroupKey>,
}

/// A lock that a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Kind of lock.
    pub kind: LockKind,
    /// Who holds it, where the kernel can tell.
    pub holder: Option<Holder>,
}

/// Kinds of lock that the kernel keeps account of (`include/linux/hung_task.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// `struct mutex`.
    Mutex,
    /// `struct semaphore`.
    Semaphore,
    /// `struct rw_semaphore`, to be read.
    RwsemReader,
    /// `struct rw_semaphore`, to be written.
    RwsemWriter,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The task.
    pub task: Task,
    /// The last known holder only: it may have let go since.
    pub likely: bool,
}

//! The record of one task marked by the OOM killer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Header, cgroup::CgroupRef};

/// Length of a task's name in the kernel (`TASK_COMM_LEN`, `include/linux/sched.h`), NUL included.
pub const COMM_LENGTH: usize = 16;

/// Levels of the cgroup tree that one record can carry. Deeper trees are cut at the top and say so
/// ([`flags::LEVELS_CUT`]).
pub const LEVELS: usize = 16;

/// `limit_pages` of a level without a limit. The kernel's `PAGE_COUNTER_MAX` is `LONG_MAX` / page size; anything at or
/// above this is no limit (`include/linux/page_counter.h`).
pub const NO_LIMIT_PAGES: u64 = 1 << 50;

/// One task marked as victim: 912 bytes. Read fields only if their bit in `known` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OomMark {
    /// Common header.
    pub header: Header,
    /// Which fields could be read: bits of [`known`].
    pub known: u64,
    /// What was seen: bits of [`flags`].
    pub flags: u32,
    /// Valid entries of `levels`.
    pub level_count: u32,
    /// The marked task.
    pub victim: Victim,
    /// The task that asked for memory.
    pub trigger: Trigger,
    /// What the kernel decided on.
    pub decision: Decision,
    /// What the trigger tried before.
    pub reclaim: Reclaim,
    /// The victim's memory cgroup and its ancestors, from the leaf upwards, root included.
    pub levels: [Level; LEVELS],
}

/// The marked task. It may be a thread whose leader has already exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Victim {
    /// Thread group: what user space calls the pid.
    pub tgid: u32,
    /// The task itself: what user space calls the thread id.
    pub pid: u32,
    /// When the leader of the thread group started, nanoseconds since boot. With `tgid` it names one process.
    pub leader_start_ns: u64,
    /// Name of the task, NUL padded.
    pub comm: [u8; COMM_LENGTH],
    /// Name of the leader of the thread group, NUL padded.
    pub leader_comm: [u8; COMM_LENGTH],
    /// Real user id, as the initial user namespace sees it.
    pub uid: u32,
    /// -1,000 to 1,000.
    pub oom_score_adj: i32,
    /// Resident pages: file, anonymous, swapped out, shared memory (`MM_FILEPAGES` and so on). Per-CPU parts that the
    /// kernel has not folded in yet are missing, so that it may lag and even be below zero (Linux 6.2 and later).
    pub rss_pages: [i64; 4],
    /// Bytes of page tables.
    pub page_table_bytes: u64,
    /// Number of the process in its innermost pid namespace; 1 is its init.
    pub namespace_pid: u32,
    /// Depth of that pid namespace; 0 is the machine's own.
    pub namespace_level: u32,
    /// Memory cgroup of the task.
    pub cgroup: CgroupRef,
}

/// The task on whose allocation the kernel ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Trigger {
    /// Thread group.
    pub tgid: u32,
    /// The task itself.
    pub pid: u32,
    /// Name of the task, NUL padded.
    pub comm: [u8; COMM_LENGTH],
    /// Memory cgroup of the task.
    pub cgroup: CgroupRef,
}

/// `struct oom_control` at the time of the decision (`include/linux/oom.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Decision {
    /// When `oom_kill_process` was entered, nanoseconds since boot. All victims of one group kill share it.
    pub boot_ns: u64,
    /// Cgroup whose limit was hit; id 0 is the whole machine.
    pub domain: CgroupRef,
    /// Pages that the domain may use, swap included (`oc->totalpages`).
    pub total_pages: u64,
    /// `enum oom_constraint`: 0 none, 1 cpuset, 2 memory policy, 3 memory cgroup.
    pub constraint: u32,
    /// Order of the failed allocation; -1 is sysrq.
    pub order: i32,
    /// Flags of the failed allocation (`gfp_t`).
    pub gfp: u32,
    /// Always zero.
    pub padding: u32,
}

/// The last attempt of the trigger to free memory: the kernel goes to the OOM killer only after reclaim failed. Most often
/// to reclaim again before the next kill, but not where somebody lowers a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reclaim {
    /// When it began, nanoseconds since boot. All victims of one decision share it.
    pub boot_ns: u64,
    /// For whom: [`reclaim_scope`].
    pub scope: u32,
    /// Always zero.
    pub padding: u32,
}

/// Values of [`Reclaim::scope`].
pub mod reclaim_scope {
    /// For the whole machine: its memory ran out (`mm_vmscan_direct_reclaim_begin`).
    pub const MACHINE: u32 = 1;
    /// For a memory cgroup: its limit was hit (`mm_vmscan_memcg_reclaim_begin`).
    pub const CGROUP: u32 = 2;
}

/// One memory cgroup on the way from the victim's to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Level {
    /// kernfs id.
    pub id: u64,
    /// How often this cgroup's own limit led to the OOM killer (`memory_events_local[MEMCG_OOM]`). It rises before the
    /// victim is chosen, in the domain alone: not a count of kills.
    pub oom_events: u64,
    /// Limit in pages; [`NO_LIMIT_PAGES`] or more is none.
    pub limit_pages: u64,
    /// Usage in pages.
    pub usage_pages: u64,
    /// 1 if `memory.oom.group` is set here.
    pub oom_group: u32,
    /// Depth below the root.
    pub level: u32,
}

/// Bits of [`OomMark::known`].
pub mod known {
    /// `victim.tgid`.
    pub const TGID: u64 = 1 << 0;
    /// `victim.pid`.
    pub const PID: u64 = 1 << 1;
    /// `victim.leader_start_ns`.
    pub const LEADER_START: u64 = 1 << 2;
    /// `victim.comm`.
    pub const COMM: u64 = 1 << 3;
    /// `victim.leader_comm`.
    pub const LEADER_COMM: u64 = 1 << 4;
    /// `victim.uid`.
    pub const UID: u64 = 1 << 5;
    /// `victim.oom_score_adj`.
    pub const OOM_SCORE_ADJ: u64 = 1 << 6;
    /// `victim.rss_pages`; see [`super::flags::NO_SWAP`].
    pub const RSS: u64 = 1 << 7;
    /// `victim.page_table_bytes`.
    pub const PAGE_TABLES: u64 = 1 << 8;
    /// `victim.namespace_pid` and `namespace_level`.
    pub const NAMESPACE_PID: u64 = 1 << 9;
    /// `victim.cgroup`.
    pub const CGROUP: u64 = 1 << 10;
    /// `trigger`, but for its cgroup.
    pub const TRIGGER: u64 = 1 << 11;
    /// `trigger.cgroup`.
    pub const TRIGGER_CGROUP: u64 = 1 << 12;
    /// `decision`.
    pub const DECISION: u64 = 1 << 13;
    /// Whether [`super::flags::REAL_KILL`] can be trusted.
    pub const KILL: u64 = 1 << 14;
    /// `levels`: id and level.
    pub const LEVELS: u64 = 1 << 15;
    /// `levels[..].oom_events`.
    pub const LEVEL_OOM_EVENTS: u64 = 1 << 16;
    /// `levels[..].limit_pages` and `usage_pages`.
    pub const LEVEL_LIMITS: u64 = 1 << 17;
    /// `levels[..].oom_group`.
    pub const LEVEL_OOM_GROUP: u64 = 1 << 18;
    /// `reclaim`.
    pub const RECLAIM: u64 = 1 << 19;
}

/// Bits of [`OomMark::flags`].
pub mod flags {
    /// The OOM killer sent SIGKILL to the task right before it was marked. Without it the task was already dying and was
    /// merely given memory to finish: no kill, and not counted by the kernel.
    pub const REAL_KILL: u32 = 1 << 0;
    /// The cgroup tree is deeper than [`super::LEVELS`]: the topmost levels are missing.
    pub const LEVELS_CUT: u32 = 1 << 1;
    /// `victim.rss_pages` lacks what is swapped out: the classic tracepoint does not tell it.
    pub const NO_SWAP: u32 = 1 << 2;
}

const _: () = assert!(size_of::<Victim>() == 120);
const _: () = assert!(size_of::<Trigger>() == 40);
const _: () = assert!(size_of::<Decision>() == 48);
const _: () = assert!(size_of::<Reclaim>() == 16);
const _: () = assert!(size_of::<Level>() == 40);
const _: () = assert!(size_of::<OomMark>() == 32 + 16 + 120 + 40 + 48 + 16 + 40 * LEVELS);

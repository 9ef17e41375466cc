//! The record of one task that the kernel's own watch (khungtaskd) found hung: one per task and scan.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Header, cgroup::CgroupRef, oom::COMM_LENGTH};

/// Frames of a kernel stack that one record can carry, innermost first. A deeper stack is cut at its outer end.
pub const FRAMES: usize = 48;

/// A task in uninterruptible sleep that was not scheduled for at least `kernel.hung_task_timeout_secs`: 608 bytes. Read
/// fields only if their bit in `known` is set.
///
/// Source: `check_hung_task`, `kernel/hung_task.c`. The kernel tells it anew at each scan while the task stays hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HungTask {
    /// Common header.
    pub header: Header,
    /// Which fields could be read: bits of [`known`].
    pub known: u64,
    /// What was seen: bits of [`flags`].
    pub flags: u32,
    /// Valid entries of `stack`.
    pub frame_count: u32,
    /// The task that hangs.
    pub task: Task,
    /// How often it was switched away from, by its own will or not (`nvcsw` + `nivcsw`). As long as it stands still the
    /// task has not run.
    pub switches: u64,
    /// Jiffies since the kernel's watch first saw that count: a lower bound of how long the task has hung, too low by
    /// up to one scan (`task_struct.last_switch_time`). One jiffy is the resolution of `CLOCK_MONOTONIC_COARSE`.
    pub hung_jiffies: u64,
    /// Address of the lock that it waits for; never leaves this machine's memory but in this record.
    pub lock_address: u64,
    /// Kind of that lock: [`lock_kind`].
    pub lock_kind: u32,
    /// Always zero.
    pub padding: u32,
    /// Who holds that lock. See [`flags::HOLDER_LIKELY`].
    pub holder: Task,
    /// Return addresses in the kernel, innermost first.
    pub stack: [u64; FRAMES],
}

/// A task with what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Task {
    /// Thread group: what user space calls the pid.
    pub tgid: u32,
    /// The task itself: what user space calls the thread id.
    pub pid: u32,
    /// When the task itself started, nanoseconds since boot. With `pid` it names one task.
    pub start_ns: u64,
    /// When the leader of its thread group started, nanoseconds since boot. With `tgid` it names one process.
    pub leader_start_ns: u64,
    /// Name of the task, NUL padded.
    pub comm: [u8; COMM_LENGTH],
    /// Name of the leader of its thread group, NUL padded.
    pub leader_comm: [u8; COMM_LENGTH],
    /// Its memory cgroup.
    pub cgroup: CgroupRef,
}

/// Values of [`HungTask::lock_kind`].
pub mod lock_kind {
    /// `struct mutex`.
    pub const MUTEX: u32 = 1;
    /// `struct semaphore`.
    pub const SEMAPHORE: u32 = 2;
    /// `struct rw_semaphore`, which the task wants to read.
    pub const RWSEM_READER: u32 = 3;
    /// `struct rw_semaphore`, which the task wants to write.
    pub const RWSEM_WRITER: u32 = 4;
}

/// Bits of [`HungTask::known`].
pub mod known {
    /// `task.tgid`.
    pub const TGID: u64 = 1 << 0;
    /// `task.pid`.
    pub const PID: u64 = 1 << 1;
    /// `task.start_ns`.
    pub const START: u64 = 1 << 2;
    /// `task.leader_start_ns`.
    pub const LEADER_START: u64 = 1 << 3;
    /// `task.comm`.
    pub const COMM: u64 = 1 << 4;
    /// `task.leader_comm`.
    pub const LEADER_COMM: u64 = 1 << 5;
    /// `task.cgroup`.
    pub const CGROUP: u64 = 1 << 6;
    /// `switches`.
    pub const SWITCHES: u64 = 1 << 7;
    /// `hung_jiffies`.
    pub const HUNG: u64 = 1 << 8;
    /// `lock_address` and `lock_kind`: the task waits for a lock whose kind the kernel tells
    /// (`CONFIG_DETECT_HUNG_TASK_BLOCKER`, Linux 6.16). The kernel having the field, but the task waiting for no such
    /// lock: [`super::flags::NO_LOCK`].
    pub const LOCK: u64 = 1 << 9;
    /// `holder`, all of it but its cgroup.
    pub const HOLDER: u64 = 1 << 10;
    /// `holder.cgroup`.
    pub const HOLDER_CGROUP: u64 = 1 << 11;
    /// `stack` and `frame_count`.
    pub const STACK: u64 = 1 << 12;
}

/// Bits of [`HungTask::flags`].
pub mod flags {
    /// The holder is the last known one (semaphore, or lock held by readers): it may have let go since, and its memory
    /// may be another task's by now.
    pub const HOLDER_LIKELY: u32 = 1 << 0;
    /// The task waits for none of the locks that the kernel keeps account of.
    pub const NO_LOCK: u32 = 1 << 1;
}

const _: () = assert!(size_of::<Task>() == 72 && align_of::<Task>() == 8);
const _: () = assert!(size_of::<HungTask>() == 32 + 16 + 72 + 16 + 16 + 72 + 8 * FRAMES);

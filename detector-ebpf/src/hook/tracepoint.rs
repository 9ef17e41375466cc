//! The same happenings from the records of classic tracepoints, for kernels that tell nothing of their structures.
//!
//! A program on such a tracepoint is given the record that tracefs would show. Where its fields lie is injected; a field
//! that this kernel does not have is absent. What a record does not carry, such as the cgroup of another task, user space
//! must find elsewhere.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_cgroup_id},
    macros::map,
    maps::LruHashMap,
};
use detector_common::{
    Kind,
    cgroup::{CgroupRef, UNKNOWN_LEVEL},
    gate::Writer,
    hung_task::{self, HungTask},
    oom::{COMM_LENGTH, OomMark, flags, known},
};

use super::{cgroup_life, kill_count, oom};
use crate::{
    emit, gate,
    offset::{
        EVENT_CGROUP_ID, EVENT_CGROUP_LEVEL, EVENT_CGROUP_PATH_LOC, EVENT_CGROUP_ROOT, EVENT_HANG_COMM,
        EVENT_HANG_COMM_LOC, EVENT_HANG_PID, EVENT_MARK_ANON, EVENT_MARK_COMM_LOC, EVENT_MARK_FILE,
        EVENT_MARK_PAGE_TABLES, EVENT_MARK_PID, EVENT_MARK_SCORE_ADJ, EVENT_MARK_SHMEM, EVENT_MARK_UID,
        EVENT_SIGNAL_CODE, EVENT_SIGNAL_COMM, EVENT_SIGNAL_NUMBER, EVENT_SIGNAL_PID, located, read, read_located,
    },
    task::bit,
};

/// `code` of a signal that the kernel itself sends (`SI_KERNEL`, `include/uapi/asm-generic/siginfo.h`).
const SI_KERNEL: u32 = 0x80;

/// Number of the hierarchy that cgroup v2 is.
const UNIFIED: u32 = 0;

/// A task that was sent the kernel's SIGKILL.
#[repr(C)]
#[derive(Clone, Copy)]
struct Signalled {
    /// Its thread id.
    pid: u32,
    /// Its name; all zero where the record does not tell it.
    comm: [u8; COMM_LENGTH],
}

/// Sender → the task that it last sent the kernel's SIGKILL to. As many as of tasks in `oom`.
#[map]
static SIGNALLED: LruHashMap<u64, Signalled> = LruHashMap::with_max_entries(oom::REMEMBERED_TASKS, 0);

/// log2 of the kilobytes of a page, set by user space: the tracepoint tells kilobytes, records tell pages.
#[unsafe(no_mangle)]
pub(crate) static PAGE_KILOBYTES_SHIFT: Global<u32> = Global::new(2);

/// Remembers whom the record of `signal:signal_generate` tells that the current task sent the kernel's SIGKILL to.
#[inline(always)]
pub(crate) fn remember_signal(event: u64) {
    let (mut number, mut code) = (0u32, 0u32);
    if !read(&mut number, event, &EVENT_SIGNAL_NUMBER) || number != oom::SIGKILL {
        return;
    }
    let mut task = Signalled { pid: 0, comm: [0; COMM_LENGTH] };
    if read(&mut code, event, &EVENT_SIGNAL_CODE) && code == SI_KERNEL && read(&mut task.pid, event, &EVENT_SIGNAL_PID)
    {
        read(&mut task.comm, event, &EVENT_SIGNAL_COMM);
        // A failure leaves the slot without this task: see `oom::remember_signal`.
        SIGNALLED.insert(bpf_get_current_pid_tgid(), task, 0).ok();
    }
}

/// Writes what the record of `oom:mark_victim` tells.
#[inline(always)]
pub(crate) fn mark(event: u64) {
    let mut pid = 0u32;
    if !gate::is_open(Writer::Oom) || !read(&mut pid, event, &EVENT_MARK_PID) {
        return;
    }
    let mut signalled = Signalled { pid: 0, comm: [0; COMM_LENGTH] };
    take_signal(&mut signalled);
    let real_kill = signalled.pid == pid;
    if real_kill {
        count(pid);
    }
    emit::precious::<OomMark>(Kind::OOM_MARK, |record| {
        record.victim.pid = pid;
        record.known |= known::PID | known::KILL;
        record.flags |= flags::NO_SWAP;
        if real_kill {
            record.flags |= flags::REAL_KILL;
        }
        record.known |= describe(record, event);
        if real_kill && record.known & known::COMM == 0 && signalled.comm[0] != 0 {
            record.victim.comm = signalled.comm;
            record.known |= known::COMM;
        }
        oom::trigger(record);
        oom::last_reclaim(record);
        current(record, pid);
    });
}

/// Counts the kill of thread `pid`, in its cgroup if it is the current one's.
#[inline(always)]
fn count(pid: u32) {
    let mut cgroup = CgroupRef { id: 0, hierarchy: 0, level: 0 };
    let known = bpf_get_current_pid_tgid() as u32 == pid && identify_current(&mut cgroup);
    kill_count::of_cgroup(&cgroup, known);
}

/// Copies the task that the current one has just sent SIGKILL to, if there is one, and forgets it.
#[inline(always)]
fn take_signal(target: &mut Signalled) {
    let current = bpf_get_current_pid_tgid();
    if let Some(task) = SIGNALLED.get_ptr(current) {
        // SAFETY: only the current task writes under its own key, and the value is copied at once.
        *target = unsafe { *task };
    }
    SIGNALLED.remove(current).ok();
}

/// What newer kernels tell of the victim beside its thread id.
#[inline(always)]
fn describe(record: &mut OomMark, event: u64) -> u64 {
    let victim = &mut record.victim;
    let (mut score_adj, mut page_table_kilobytes) = (0i16, 0u64);
    let [file, anon, _, shmem] = &mut victim.rss_pages;
    let rss = read(file, event, &EVENT_MARK_FILE)
        && read(anon, event, &EVENT_MARK_ANON)
        && read(shmem, event, &EVENT_MARK_SHMEM);
    let shift = PAGE_KILOBYTES_SHIFT.load() & 63;
    (*file, *anon, *shmem) = (*file >> shift, *anon >> shift, *shmem >> shift);
    let seen = bit(known::COMM, read_located(&mut victim.comm, event, &EVENT_MARK_COMM_LOC))
        | bit(known::UID, read(&mut victim.uid, event, &EVENT_MARK_UID))
        | bit(known::OOM_SCORE_ADJ, read(&mut score_adj, event, &EVENT_MARK_SCORE_ADJ))
        | bit(known::PAGE_TABLES, read(&mut page_table_kilobytes, event, &EVENT_MARK_PAGE_TABLES));
    victim.oom_score_adj = i32::from(score_adj);
    victim.page_table_bytes = page_table_kilobytes << 10;
    seen | bit(known::RSS, rss)
}

/// What the kernel tells of the current task: its cgroup, and all of it that is the victim's too if that is the same.
#[inline(always)]
fn current(record: &mut OomMark, pid: u32) {
    let is_victim = record.known & known::TRIGGER != 0 && record.trigger.pid == pid;
    if is_victim {
        record.victim.tgid = record.trigger.tgid;
        record.known |= known::TGID;
        if record.known & known::COMM == 0 {
            record.victim.comm = record.trigger.comm;
            record.known |= known::COMM;
        }
    }
    if record.known & known::TRIGGER_CGROUP == 0 && identify_current(&mut record.trigger.cgroup) {
        record.known |= known::TRIGGER_CGROUP;
    }
    if is_victim && record.known & known::TRIGGER_CGROUP != 0 {
        record.victim.cgroup = record.trigger.cgroup;
        record.known |= known::CGROUP;
    }
}

/// The cgroup of the current task, where memory is accounted in the one hierarchy that the helper knows: cgroup v2. It may
/// lie below the task's memory cgroup, if the memory controller is not enabled down to it. Its depth remains unknown: the
/// helper that tells it is not there for tracing programs in Linux 5.10.
#[inline(always)]
fn identify_current(target: &mut CgroupRef) -> bool {
    if cgroup_life::MEMORY_HIERARCHY.load() != UNIFIED {
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let id = unsafe { bpf_get_current_cgroup_id() };
    *target = CgroupRef { id, hierarchy: UNIFIED, level: UNKNOWN_LEVEL };
    id != 0
}

/// Writes what the record of `sched:sched_process_hang` tells.
#[inline(always)]
pub(crate) fn hang(event: u64) {
    let mut pid = 0u32;
    if !gate::is_open(Writer::HungTask) || !read(&mut pid, event, &EVENT_HANG_PID) {
        return;
    }
    emit::precious::<HungTask>(Kind::HUNG_TASK, |record| {
        record.task.pid = pid;
        record.known |= hung_task::known::PID;
        if read(&mut record.task.comm, event, &EVENT_HANG_COMM)
            || read_located(&mut record.task.comm, event, &EVENT_HANG_COMM_LOC)
        {
            record.known |= hung_task::known::COMM;
        }
    });
}

/// Writes what the record of a tracepoint of `cgroup:` tells.
#[inline(always)]
pub(crate) fn cgroup(kind: Kind, event: u64) {
    let mut identity = CgroupRef { id: 0, hierarchy: 0, level: 0 };
    if read(&mut identity.id, event, &EVENT_CGROUP_ID)
        && read(&mut identity.hierarchy, event, &EVENT_CGROUP_ROOT)
        && read(&mut identity.level, event, &EVENT_CGROUP_LEVEL)
    {
        cgroup_life::tell_path(kind, identity, located(event, &EVENT_CGROUP_PATH_LOC));
    }
}

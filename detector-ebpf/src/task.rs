//! What a record tells of a task.

use detector_common::{
    hung_task::{Task, known as task_known},
    oom::{Victim, known},
};

use crate::{
    cgroup,
    offset::{
        CRED_UID, CSS_SET_MEMORY, MM_PAGE_TABLES, MM_RSS, MM_RSS_STRIDE, PID_LEVEL, PID_NUMBERS, SIGNAL_OOM_SCORE_ADJ,
        SIGNAL_PID_TGID, TASK_CGROUPS, TASK_COMM, TASK_CRED, TASK_LEADER, TASK_MM, TASK_PID, TASK_SIGNAL, TASK_START,
        TASK_TGID, UPID_NR, UPID_SIZE, field, pointer, read, read_at,
    },
};

/// Deepest nesting of pid namespaces (`MAX_PID_NS_LEVEL`, `include/linux/pid_namespace.h`).
const MAX_PID_NAMESPACE_LEVEL: u32 = 32;

/// Memory cgroup (`struct cgroup_subsys_state`) of a task; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn memory_css(task: u64) -> u64 {
    pointer(pointer(task, &TASK_CGROUPS), &CSS_SET_MEMORY)
}

/// Fills `victim` from a `struct task_struct` and returns the bits of what is known.
#[inline(always)]
pub(crate) fn describe(victim: &mut Victim, task: u64) -> u64 {
    let leader = pointer(task, &TASK_LEADER);
    let signal = pointer(task, &TASK_SIGNAL);
    let mm = pointer(task, &TASK_MM);
    let mut score_adj = 0i16;
    let mut seen = bit(known::TGID, read(&mut victim.tgid, task, &TASK_TGID))
        | bit(known::PID, read(&mut victim.pid, task, &TASK_PID))
        | bit(known::COMM, read(&mut victim.comm, task, &TASK_COMM))
        | bit(known::LEADER_COMM, read(&mut victim.leader_comm, leader, &TASK_COMM))
        | bit(known::LEADER_START, read(&mut victim.leader_start_ns, leader, &TASK_START))
        | bit(known::UID, read(&mut victim.uid, pointer(task, &TASK_CRED), &CRED_UID))
        | bit(known::OOM_SCORE_ADJ, read(&mut score_adj, signal, &SIGNAL_OOM_SCORE_ADJ))
        | bit(known::PAGE_TABLES, read(&mut victim.page_table_bytes, mm, &MM_PAGE_TABLES));
    victim.oom_score_adj = i32::from(score_adj);
    seen |= bit(known::NAMESPACE_PID, namespace_pid(victim, signal));
    seen |= bit(known::RSS, rss(&mut victim.rss_pages, mm));
    seen | bit(known::CGROUP, cgroup::identify_css(&mut victim.cgroup, memory_css(task)))
}

/// Fills `target` from a `struct task_struct` and returns which of its fields are known: bits of
/// [`detector_common::hung_task::known`].
#[inline(always)]
pub(crate) fn name(target: &mut Task, task: u64) -> u64 {
    let leader = pointer(task, &TASK_LEADER);
    bit(task_known::TGID, read(&mut target.tgid, task, &TASK_TGID))
        | bit(task_known::PID, read(&mut target.pid, task, &TASK_PID))
        | bit(task_known::START, read(&mut target.start_ns, task, &TASK_START))
        | bit(task_known::LEADER_START, read(&mut target.leader_start_ns, leader, &TASK_START))
        | bit(task_known::COMM, read(&mut target.comm, task, &TASK_COMM))
        | bit(task_known::LEADER_COMM, read(&mut target.leader_comm, leader, &TASK_COMM))
        | bit(task_known::CGROUP, cgroup::identify_css(&mut target.cgroup, memory_css(task)))
}

/// `bit` if `known`, else none.
#[inline(always)]
pub(crate) fn bit(bit: u64, known: bool) -> u64 {
    if known { bit } else { 0 }
}

/// Number of the process, not of the thread, in its innermost pid namespace, and the depth of that namespace.
#[inline(always)]
fn namespace_pid(victim: &mut Victim, signal: u64) -> bool {
    let pid = pointer(signal, &SIGNAL_PID_TGID);
    let mut level = 0u32;
    if !read(&mut level, pid, &PID_LEVEL) || level > MAX_PID_NAMESPACE_LEVEL {
        return false;
    }
    victim.namespace_level = level;
    let numbers = field(pid, &PID_NUMBERS);
    numbers != 0 && read(&mut victim.namespace_pid, numbers + u64::from(level) * u64::from(UPID_SIZE.load()), &UPID_NR)
}

/// `mm->rss_stat`: file, anonymous, swap, shmem (`include/linux/mm_types_task.h`).
#[inline(always)]
fn rss(pages: &mut [i64; 4], mm: u64) -> bool {
    let first = field(mm, &MM_RSS);
    let stride = u64::from(MM_RSS_STRIDE.load());
    let [file, anon, swap, shmem] = pages;
    first != 0
        && read_at(file, first)
        && read_at(anon, first + stride)
        && read_at(swap, first + 2 * stride)
        && read_at(shmem, first + 3 * stride)
}

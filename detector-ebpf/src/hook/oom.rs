//! The OOM killer: who was marked, whether it was killed, and what was decided.
//!
//! One kill passes these points, all in the context of the task that asked for memory and all under `oom_lock`
//! (`mm/oom_kill.c`):
//!
//! ```text
//! mm_vmscan_*_reclaim_begin   before most decisions   remember_reclaim
//! oom_kill_process(oc)        once per decision       remember_decision
//!   __oom_kill_process(p)     once per process
//!     signal_generate(p)      SIGKILL, SEND_SIG_PRIV  remember_signal
//!     mark_victim(p)          unless already marked   mark_task, mark_pid
//! ```
//!
//! `mark_victim` alone is no kill: a task that is already dying is marked, too, but gets no signal before. So the last
//! signal and the last decision of each task are kept, and joined when the mark comes. Where no probe of the decision can
//! be attached, the last reclaim stands in: it says whether the machine or a cgroup ran out, and names the decision of a
//! group kill. Only where somebody lowers a limit may several decisions follow one reclaim.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_boot_ns},
    macros::map,
    maps::LruHashMap,
};
use detector_common::{
    Kind,
    cgroup::CgroupRef,
    gate::Writer,
    offset::ABSENT,
    oom::{Decision, OomMark, Reclaim, flags, known},
};

use super::kill_count;
use crate::{
    cgroup, emit, gate,
    offset::{OC_CHOSEN, OC_CONSTRAINT, OC_GFP, OC_MEMCG, OC_ORDER, OC_TOTAL_PAGES, TASK_PID, pointer, read},
    task,
};

/// Number of the signal (`signal(7)`).
pub(crate) const SIGKILL: u32 = 9;
/// `info` of a signal that the kernel itself sends (`SEND_SIG_PRIV`, `include/linux/sched/signal.h`).
pub(crate) const SEND_SIG_PRIV: u64 = 1;
/// Tasks whose last signal or decision is kept. `oom_lock` lets one decide at a time; the rest is what zapped pid
/// namespaces and the like leave behind, and goes by age.
pub(crate) const REMEMBERED_TASKS: u32 = 1024;

/// A decision and the task it chose.
#[repr(C)]
#[derive(Clone, Copy)]
struct Chosen {
    task: u64,
    decision: Decision,
}

/// Sender → the task it last sent the kernel's SIGKILL to.
#[map]
static SIGNALS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(REMEMBERED_TASKS, 0);
/// Trigger → its last decision.
#[map]
static DECISIONS: LruHashMap<u64, Chosen> = LruHashMap::with_max_entries(REMEMBERED_TASKS, 0);

/// Tasks whose last attempt to free memory is kept. On a machine under pressure very many try at once, and the one that
/// kills must still be among them.
const REMEMBERED_RECLAIMS: u32 = 8192;

/// Task → its last attempt to free memory.
#[map]
static RECLAIMS: LruHashMap<u64, Reclaim> = LruHashMap::with_max_entries(REMEMBERED_RECLAIMS, 0);

/// Remembers that the current task begins to free memory.
#[inline(always)]
pub(crate) fn remember_reclaim(scope: u32) {
    // SAFETY: the helper has no preconditions.
    let reclaim = Reclaim { boot_ns: unsafe { bpf_ktime_get_boot_ns() }, scope, padding: 0 };
    let current = bpf_get_current_pid_tgid();
    match RECLAIMS.get_ptr_mut(current) {
        // In place, because a task tries many times before it kills.
        // SAFETY: only the current task writes under its own key.
        Some(last) => unsafe { *last = reclaim },
        // A failure leaves none: the domain is then judged by the counters alone.
        None => {
            RECLAIMS.insert(current, reclaim, 0).ok();
        }
    }
}

/// Remembers that the current task sent SIGKILL to `task`.
#[inline(always)]
pub(crate) fn remember_signal(task: u64) {
    // A failure leaves the slot without this task, so that the mark reads "not killed": it shows as a difference to the
    // kernel's count.
    SIGNALS.insert(bpf_get_current_pid_tgid(), task, 0).ok();
}

/// Remembers what `struct oom_control` says when `oom_kill_process` is entered.
#[inline(always)]
pub(crate) fn remember_decision(oom_control: u64) {
    let current = bpf_get_current_pid_tgid();
    let mut chosen = Chosen {
        task: pointer(oom_control, &OC_CHOSEN),
        decision: Decision {
            // SAFETY: the helper has no preconditions.
            boot_ns: unsafe { bpf_ktime_get_boot_ns() },
            domain: CgroupRef { id: 0, hierarchy: 0, level: 0 },
            total_pages: 0,
            constraint: 0,
            order: 0,
            gfp: 0,
            padding: 0,
        },
    };
    if fill_decision(&mut chosen.decision, oom_control) {
        // A failure shows as a kill without decision.
        DECISIONS.insert(current, chosen, 0).ok();
    } else {
        DECISIONS.remove(current).ok();
    }
}

#[inline(always)]
fn fill_decision(decision: &mut Decision, oom_control: u64) -> bool {
    let mut memcg = 0;
    read(&mut memcg, oom_control, &OC_MEMCG)
        && (memcg == 0 || cgroup::identify_memcg(&mut decision.domain, memcg))
        && read(&mut decision.total_pages, oom_control, &OC_TOTAL_PAGES)
        && read(&mut decision.constraint, oom_control, &OC_CONSTRAINT)
        && read(&mut decision.order, oom_control, &OC_ORDER)
        && read(&mut decision.gfp, oom_control, &OC_GFP)
}

/// `mark_victim` of kernels that tell the task. The uid of the tracepoint is the one that the record's comes from, too.
#[inline(always)]
pub(crate) fn mark_task(task: u64, uid: u32) {
    if !gate::is_open(Writer::Oom) {
        return;
    }
    let real_kill = take_signal() == task;
    if real_kill {
        kill_count::of_task(task);
    }
    emit::precious::<OomMark>(Kind::OOM_MARK, |record| {
        record.victim.uid = uid;
        record.known |= known::UID;
        record.known |= known::KILL;
        fill(record, task, real_kill);
    });
}

/// `mark_victim` of kernels that tell a thread id alone: the task is the one just sent SIGKILL, else the one chosen, else
/// the current one, if its thread id agrees.
#[inline(always)]
pub(crate) fn mark_pid(pid: u32) {
    if !gate::is_open(Writer::Oom) {
        return;
    }
    let signalled = take_signal();
    let real_kill = has_pid(signalled, pid);
    let task = if real_kill { signalled } else { unsignalled(pid) };
    if real_kill {
        kill_count::of_task(task);
    }
    emit::precious::<OomMark>(Kind::OOM_MARK, |record| {
        if TASK_PID.load() != ABSENT {
            record.known |= known::KILL;
        }
        fill(record, task, real_kill);
        record.victim.pid = pid;
        record.known |= known::PID;
    });
}

/// The marked task, if it was not sent SIGKILL; 0 if it cannot be told.
#[inline(always)]
fn unsignalled(pid: u32) -> u64 {
    let chosen = match last_decision() {
        // SAFETY: as in `take_signal`.
        Some(chosen) => unsafe { (*chosen).task },
        None => 0,
    };
    if has_pid(chosen, pid) {
        return chosen;
    }
    // SAFETY: the helper has no preconditions.
    let current = unsafe { bpf_get_current_task() };
    if has_pid(current, pid) { current } else { 0 }
}

#[inline(always)]
fn has_pid(task: u64, pid: u32) -> bool {
    let mut own = 0u32;
    read(&mut own, task, &TASK_PID) && own == pid
}

/// The task that the current one has just sent SIGKILL to; forgets it. 0 if there is none.
#[inline(always)]
fn take_signal() -> u64 {
    let current = bpf_get_current_pid_tgid();
    let task = match SIGNALS.get_ptr(current) {
        // SAFETY: only the current task writes under its own key, and the value is copied at once.
        Some(task) => unsafe { *task },
        None => 0,
    };
    SIGNALS.remove(current).ok();
    task
}

/// A pointer, not a copy: see `offset`.
#[inline(always)]
fn last_decision() -> Option<*const Chosen> {
    DECISIONS.get_ptr(bpf_get_current_pid_tgid())
}

#[inline(always)]
fn fill(record: &mut OomMark, task: u64, real_kill: bool) {
    if real_kill {
        record.flags |= flags::REAL_KILL;
    }
    trigger(record);
    if task != 0 {
        record.known |= task::describe(&mut record.victim, task);
        cgroup::walk(record, task::memory_css(task));
    }
    // A decision of the current task may be an old one: when it is dying itself it is marked without a decision. So it
    // counts only for a real kill, which always has one, and for the very task it chose.
    if let Some(chosen) = last_decision() {
        // SAFETY: as in `take_signal`.
        let chosen = unsafe { &*chosen };
        if real_kill || chosen.task == task {
            record.decision = chosen.decision;
            record.known |= known::DECISION;
        }
    }
    last_reclaim(record);
}

/// What the current task, which is the trigger, last tried to free memory for.
#[inline(always)]
pub(crate) fn last_reclaim(record: &mut OomMark) {
    if let Some(reclaim) = RECLAIMS.get_ptr(bpf_get_current_pid_tgid()) {
        // SAFETY: as in `take_signal`.
        record.reclaim = unsafe { *reclaim };
        record.known |= known::RECLAIM;
    }
}

/// Who the trigger is: the current task.
#[inline(always)]
pub(crate) fn trigger(record: &mut OomMark) {
    let current = bpf_get_current_pid_tgid();
    record.trigger.tgid = (current >> 32) as u32;
    record.trigger.pid = current as u32;
    if let Ok(comm) = bpf_get_current_comm() {
        record.trigger.comm = comm;
        record.known |= known::TRIGGER;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    if cgroup::identify_css(&mut record.trigger.cgroup, task::memory_css(task)) {
        record.known |= known::TRIGGER_CGROUP;
    }
}

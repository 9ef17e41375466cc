//! Kernel side of detector: the maps, and one thin entry point per hook.
//!
//! Each entry point takes the arguments of its hook apart and hands them to `hook/`, which fills one payload. What is
//! written leaves through `emit`, which counts what did not fit.

#![no_std]
#![no_main]
#![allow(clippy::needless_pass_by_value, reason = "aya's macros hand the context over")]
#![allow(missing_docs, unreachable_pub, reason = "aya's macros write public wrappers without documentation")]

mod cgroup;
mod emit;
mod gate;
mod hook;
mod offset;
mod task;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext, TracePointContext},
};
use detector_common::{Kind, oom::reclaim_scope};

/// `mark_victim(struct task_struct *task, uid_t uid)`: Linux 6.9, and stable kernels that took it over.
///
/// Reading the second argument is what makes the kernel refuse this program (EINVAL) where the tracepoint has only one.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim_task(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let uid: u64 = ctx.arg(1);
    hook::oom::mark_task(task, uid as u32);
    0
}

/// `mark_victim(int pid)`: older kernels.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim_pid(ctx: RawTracePointContext) -> i32 {
    let pid: u64 = ctx.arg(0);
    hook::oom::mark_pid(pid as u32);
    0
}

/// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    let signal: u64 = ctx.arg(0);
    let info: u64 = ctx.arg(1);
    if signal as u32 == hook::oom::SIGKILL && info == hook::oom::SEND_SIG_PRIV {
        hook::oom::remember_signal(ctx.arg(2));
    }
    0
}

/// `oom_kill_process(struct oom_control *oc, const char *message)` by trampoline.
#[fentry(function = "oom_kill_process")]
pub fn oom_decision_fentry(ctx: FEntryContext) -> i32 {
    hook::oom::remember_decision(ctx.arg(0));
    0
}

/// The same by kprobe.
#[kprobe]
pub fn oom_decision_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(oom_control) = ctx.arg::<u64>(0) {
        hook::oom::remember_decision(oom_control);
    }
    0
}

/// Begin of an attempt to free memory of the whole machine.
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_machine(_ctx: RawTracePointContext) -> i32 {
    hook::oom::remember_reclaim(reclaim_scope::MACHINE);
    0
}

/// Begin of an attempt to free memory of a cgroup.
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
pub fn reclaim_cgroup(_ctx: RawTracePointContext) -> i32 {
    hook::oom::remember_reclaim(reclaim_scope::CGROUP);
    0
}

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    hook::cgroup_life::tell(Kind::CGROUP_MADE, ctx.arg(0), ctx.arg(1));
    0
}

/// `cgroup_rename(struct cgroup *cgrp, const char *path)`: cgroup v1 only; the path is the new one.
#[raw_tracepoint(tracepoint = "cgroup_rename")]
pub fn cgroup_rename(ctx: RawTracePointContext) -> i32 {
    hook::cgroup_life::tell(Kind::CGROUP_MADE, ctx.arg(0), ctx.arg(1));
    0
}

/// `cgroup_rmdir(struct cgroup *cgrp, const char *path)`.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    hook::cgroup_life::tell(Kind::CGROUP_REMOVED, ctx.arg(0), ctx.arg(1));
    0
}

/// `sched_process_hang(struct task_struct *tsk)`, with an argument that the verifier knows as a task.
#[btf_tracepoint(function = "sched_process_hang")]
pub fn hung_task_btf(ctx: BtfTracePointContext) -> i32 {
    hook::hung_task::tell_with_stack(ctx.arg::<*const c_void>(0));
    0
}

/// The same with an argument of no type.
#[raw_tracepoint(tracepoint = "sched_process_hang")]
pub fn hung_task_raw(ctx: RawTracePointContext) -> i32 {
    hook::hung_task::tell(ctx.arg(0));
    0
}

/// `panic(const char *fmt, ...)`. No trampoline takes it, because it is variadic.
#[kprobe]
pub fn panic_entry(ctx: ProbeContext) -> u32 {
    let (format, first) = (ctx.arg::<u64>(0).unwrap_or(0), ctx.arg::<u64>(1).unwrap_or(0));
    hook::panic::dies(format, first);
    0
}

/// `oops_enter(void)`.
#[kprobe]
pub fn panic_oops(_ctx: ProbeContext) -> u32 {
    hook::panic::oops();
    0
}

/// `out_of_memory(struct oom_control *oc)`.
#[kprobe]
pub fn panic_out_of_memory(ctx: ProbeContext) -> u32 {
    hook::panic::remember_domain(ctx.arg(0).unwrap_or(0));
    0
}

/// `sched_process_hang(struct task_struct *tsk)`.
#[raw_tracepoint(tracepoint = "sched_process_hang")]
pub fn panic_hung_task(ctx: RawTracePointContext) -> i32 {
    hook::panic::remember_hang(ctx.arg(0));
    0
}

/// `oom:mark_victim`.
#[tracepoint]
pub fn event_mark_victim(ctx: TracePointContext) -> u32 {
    hook::tracepoint::mark(ctx.as_ptr() as u64);
    0
}

/// `signal:signal_generate`.
#[tracepoint]
pub fn event_signal_generate(ctx: TracePointContext) -> u32 {
    hook::tracepoint::remember_signal(ctx.as_ptr() as u64);
    0
}

/// `vmscan:mm_vmscan_direct_reclaim_begin`.
#[tracepoint]
pub fn event_reclaim_machine(_ctx: TracePointContext) -> u32 {
    hook::oom::remember_reclaim(reclaim_scope::MACHINE);
    0
}

/// `vmscan:mm_vmscan_memcg_reclaim_begin`.
#[tracepoint]
pub fn event_reclaim_cgroup(_ctx: TracePointContext) -> u32 {
    hook::oom::remember_reclaim(reclaim_scope::CGROUP);
    0
}

/// `sched:sched_process_hang`.
#[tracepoint]
pub fn event_hung_task(ctx: TracePointContext) -> u32 {
    hook::tracepoint::hang(ctx.as_ptr() as u64);
    0
}

/// `cgroup:cgroup_mkdir` and `cgroup:cgroup_rename`.
#[tracepoint]
pub fn event_cgroup_made(ctx: TracePointContext) -> u32 {
    hook::tracepoint::cgroup(Kind::CGROUP_MADE, ctx.as_ptr() as u64);
    0
}

/// `cgroup:cgroup_rmdir`.
#[tracepoint]
pub fn event_cgroup_removed(ctx: TracePointContext) -> u32 {
    hook::tracepoint::cgroup(Kind::CGROUP_REMOVED, ctx.as_ptr() as u64);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here; the loop is for the compiler alone.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

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
mod hook;
mod offset;
mod task;

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
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

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here; the loop is for the compiler alone.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

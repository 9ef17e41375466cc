//! The kernel's last words: one line about the suspect, put into the trace buffer when the kernel begins to die.
//!
//! ```text
//! sched_process_hang(task)   remember_hang ────┐
//! out_of_memory(oc)          remember_domain ──┤
//! oops_enter()               oops ─────────────┼▶ line ─▶ trace buffer ─▶ ftrace_dump ─▶ console, netconsole, pstore
//! panic(format, …)           dies ─────────────┘
//! ```
//!
//! The kernel prints the buffer by itself where `kernel.ftrace_dump_on_oops` is set: with an oops from the chain of
//! `notify_die`, with any other panic from that of `panic` (`kernel/trace/trace.c`). An oops stops tracing in `oops_enter`,
//! so that its line must be written there. Which class leads to which suspect is told in `docs/last-words.md`, and each
//! function below that chooses one has its row; [`domain`] finds it where memory ran out, [`line`] writes.

mod domain;
mod line;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_smp_processor_id},
    macros::map,
    maps::Array,
};
use detector_common::last_words::Address;

pub(crate) use self::domain::remember_domain;
use self::{
    domain::out_of_memory,
    line::{Suspect, Work, append_text, begin, end},
};
use crate::offset::{TASK_MM, TASK_PREEMPT_COUNT, TASK_START, pointer, read, read_at};

/// Bits of the preempt count that say that an interrupt of any kind is served (`include/linux/preempt.h`): a soft one
/// (8), a hard one (16-19), or an NMI (20-23).
const IN_INTERRUPT: u32 = 0x00ff_0100;

/// The task last reported hung.
#[repr(C)]
#[derive(Clone, Copy)]
struct Hang {
    task: u64,
    start_ns: u64,
}

#[map]
static PANIC_HANG: Array<Hang> = Array::with_max_entries(1, 0);
/// By [`Address`].
#[map]
static PANIC_ADDRESSES: Array<u64> = Array::with_max_entries(Address::ALL.len() as u32, 0);

/// Remembers a task that was found hung.
#[inline(always)]
pub(crate) fn remember_hang(task: u64) {
    let mut hang = Hang { task, start_ns: 0 };
    read(&mut hang.start_ns, task, &TASK_START);
    // One thread of the kernel finds all of them.
    PANIC_HANG.set(0, hang, 0).ok();
}

/// The kernel begins an oops. Most oopses kill a task: then there is nothing to say.
#[inline(always)]
pub(crate) fn oops() {
    let Some(work) = begin() else { return };
    let interrupt = interrupt();
    let mut panics = 0u32;
    read_at(&mut panics, address(Address::PanicOnOops));
    let pid = bpf_get_current_pid_tgid() as u32;
    // `make_task_dead`, `kernel/exit.c`: what would be killed is an interrupt, the idle task, or init.
    if panics == 0 && interrupt != YES && pid > 1 {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    if pid == 1 && panics == 0 && interrupt != YES {
        append_text(work, b"role=init confidence=high ");
    } else {
        context(work, task, true);
    }
    end(work, Suspect { task, css: 0 });
}

/// `panic` was called with `format`, whose first argument is `first`.
#[inline(always)]
pub(crate) fn dies(format: u64, first: u64) {
    let Some(work) = begin() else { return };
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    // `nmi_panic` and others hand their text over as an argument.
    read_at(&mut work.format[0], format);
    let source = if work.format[0] as u32 & 0x00ff_ffff == u32::from_le_bytes(*b"%s\0\0") { first } else { format };
    work.format = [0; 3];
    read_at(&mut work.format, source);
    let mut suspect = Suspect { task, css: 0 };
    match work.format[0] {
        HUNG_TASK => suspect.task = hung_task(work),
        OUT_OF_MEMORY | DEADLOCKED => suspect = out_of_memory(work, task),
        SYSRQ => match interrupt() {
            YES => append_text(work, b"role=sysrq confidence=unknown "),
            _ => append_text(work, b"role=sysrq confidence=high "),
        },
        KILLED if work.format[2] == KILLED_INIT => append_text(work, b"role=init confidence=high "),
        _ => context(work, task, false),
    }
    end(work, suspect);
}

/// How the texts of `panic` begin, by `kernel/hung_task.c`, `mm/oom_kill.c`, `drivers/tty/sysrq.c` and `kernel/exit.c`.
const HUNG_TASK: u64 = u64::from_le_bytes(*b"hung_tas");
const OUT_OF_MEMORY: u64 = u64::from_le_bytes(*b"Out of m");
const DEADLOCKED: u64 = u64::from_le_bytes(*b"System i");
const SYSRQ: u64 = u64::from_le_bytes(*b"sysrq tr");
/// `Attempted to kill init!`; the third word tells it from `Attempted to kill the idle task!`.
const KILLED: u64 = u64::from_le_bytes(*b"Attempte");
const KILLED_INIT: u64 = u64::from_le_bytes(*b"l init! ");

/// Address of a symbol, 0 if it is not known.
#[inline(always)]
fn address(of: Address) -> u64 {
    match PANIC_ADDRESSES.get_ptr(of as u32) {
        // SAFETY: a number, valid at any time; user space replaces it whole.
        Some(address) => unsafe { address.read_volatile() },
        None => 0,
    }
}

/// What is known of the context.
const NO: u32 = 0;
const YES: u32 = 1;
const UNKNOWN: u32 = 2;

/// Whether an interrupt or an NMI is served on this CPU. The probe itself adds nothing to those bits, because it is called
/// by ftrace.
#[inline(always)]
fn interrupt() -> u32 {
    let mut count = 0u32;
    let (offsets, variable) = (address(Address::PerCpuOffsets), address(Address::PreemptCount));
    let known = if offsets != 0 && variable != 0 {
        // SAFETY: the helper has no preconditions.
        let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
        let mut base = 0u64;
        read_at(&mut base, offsets + 8 * cpu) && read_at(&mut count, base.wrapping_add(variable))
    } else {
        // SAFETY: as above.
        read(&mut count, unsafe { bpf_get_current_task() }, &TASK_PREEMPT_COUNT)
    };
    match (known, count & IN_INTERRUPT) {
        (false, _) => UNKNOWN,
        (true, 0) => NO,
        (true, _) => YES,
    }
}

/// The current task, if this is its own context. A thread of the kernel works for others. Whoever called `panic` by itself
/// found something wrong that need not be the task's doing; in an oops the task's own way led to it.
#[inline(always)]
fn context(work: &mut Work, task: u64, oops: bool) {
    let interrupt = interrupt();
    if interrupt == YES {
        append_text(work, b"role=interrupt confidence=unknown ");
    } else if interrupt == UNKNOWN || pointer(task, &TASK_MM) == 0 {
        append_text(work, b"role=current confidence=low ");
    } else if oops {
        append_text(work, b"role=current confidence=high ");
    } else {
        append_text(work, b"role=current confidence=medium ");
    }
}

/// The task last reported hung, if it is the same still; else 0.
#[inline(always)]
fn hung_task(work: &mut Work) -> u64 {
    let (mut task, mut start, mut now) = (0u64, 0u64, 0u64);
    if let Some(hang) = PANIC_HANG.get_ptr(0) {
        // SAFETY: numbers in memory of the map, valid at any time.
        unsafe { (task, start) = ((*hang).task, (*hang).start_ns) };
    }
    if task != 0 && read(&mut now, task, &TASK_START) && now == start {
        append_text(work, b"role=hung-task confidence=medium ");
        return task;
    }
    append_text(work, b"role=hung-task confidence=unknown ");
    0
}

//! What a kernel's lines speak for: the one table of panic texts and of the lines that go before a panic.
//!
//! A mark stands at the begin of the line, for a program can choose words that stand further behind (the name of a file or of
//! a cgroup). Lines that begin with a program's name have no row, whatever that name is
//! ([`kernel_line::begins_with_a_name`]). What a kernel's own prefixes put before a line (`watchdog: `, `CPU3: `) is taken off
//! first ([`kernel_line::bare`]). The texts are those of Linux 4.19 to 7.x, on x86-64 and arm64; the files in which they stand are
//! named with them.

use crate::{contract::incident::Cause, kernel_line};

/// Which line a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The text after `Kernel panic - not syncing: `.
    Panic,
    /// A line that goes before a panic, if there is one at all.
    Before,
}

/// How much a row's word counts against another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weight {
    /// A line that machines live on with: it names the cause only if the panic's text says so too.
    Weak,
    /// A line that names the cause unless the panic's text does; a panic's text that leaves the cause to the line before it.
    Strong,
    /// A panic's text that names its cause.
    Firm,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which line.
    pub place: Place,
    /// What it begins with.
    pub begins: &'static str,
    /// What it holds besides, after that. Empty: nothing.
    pub holds: &'static str,
    /// What it speaks for.
    pub cause: Cause,
    /// How much it counts.
    pub weight: Weight,
    /// Where the kernel says it, and what that means.
    pub meaning: &'static str,
}

const fn panic(begins: &'static str, holds: &'static str, cause: Cause, weight: Weight, meaning: &'static str) -> Row {
    Row { place: Place::Panic, begins, holds, cause, weight, meaning }
}

const fn before(begins: &'static str, holds: &'static str, cause: Cause, weight: Weight, meaning: &'static str) -> Row {
    Row { place: Place::Before, begins, holds, cause, weight, meaning }
}

use Weight::{Firm, Strong, Weak};

/// All rows; the first that fits counts.
pub const TABLE: &[Row] = &[
    panic("sysrq triggered crash", "", Cause::SysRq, Firm, "drivers/tty/sysrq.c: somebody asked for it"),
    panic("Attempted to kill init!", "", Cause::InitKilled, Firm, "kernel/exit.c: process 1 ended"),
    panic("Out of memory", "", Cause::OutOfMemory, Firm, "mm/oom_kill.c: panic_on_oom"),
    panic("System is deadlocked on memory", "", Cause::OutOfMemory, Firm, "mm/oom_kill.c: nothing is left to kill"),
    panic("hung_task: blocked tasks", "", Cause::HungTask, Firm, "kernel/hung_task.c: hung_task_panic"),
    panic("softlockup: hung tasks", "", Cause::SoftLockup, Firm, "kernel/watchdog.c: softlockup_panic"),
    panic("Hard LOCKUP", "", Cause::HardLockup, Firm, "kernel/watchdog.c: nmi_watchdog panics"),
    panic("Watchdog detected hard LOCKUP", "", Cause::HardLockup, Firm, "kernel/watchdog_hld.c, older"),
    panic("RCU Stall", "", Cause::RcuStall, Firm, "kernel/rcu/tree_stall.h: panic_on_rcu_stall"),
    panic("Fatal hardware error", "", Cause::MachineCheck, Firm, "drivers/acpi/apei/ghes.c: told by the firmware"),
    panic("Fatal machine check", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c"),
    panic("Fatal Machine check", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c"),
    panic("Fatal local machine check", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c"),
    panic("Machine check", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c: from unknown source"),
    panic("Processor context corrupt", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/severity.c"),
    panic(
        "Timeout",
        "broadcast exception",
        Cause::MachineCheck,
        Firm,
        "arch/x86/kernel/cpu/mce/core.c: other CPUs hang",
    ),
    panic("Timeout", "machine check", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c: other CPUs hang"),
    panic("Asynchronous SError", "", Cause::MachineCheck, Firm, "arch/arm64/kernel/traps.c"),
    panic("Memory error not recovered", "", Cause::MachineCheck, Firm, "arch/x86/kernel/cpu/mce/core.c"),
    panic("NMI", "Not continuing", Cause::UnknownNmi, Firm, "arch/x86/kernel/nmi.c: of unknown origin, of PCI or I/O"),
    panic("An NMI occurred", "", Cause::UnknownNmi, Firm, "drivers/watchdog/hpwdt.c: the server's management says why"),
    panic("", "panic_on_warn set", Cause::Warning, Firm, "kernel/panic.c: panic_on_warn"),
    panic("", "warned too often", Cause::Warning, Firm, "kernel/panic.c: kernel.warn_limit"),
    panic("corrupted stack end", "", Cause::StackCorruption, Firm, "kernel/sched/core.c: the stack ran over"),
    panic(
        "stack-protector:",
        "",
        Cause::StackCorruption,
        Firm,
        "kernel/panic.c: a function found its frame overwritten",
    ),
    panic("kernel stack overflow", "", Cause::StackCorruption, Firm, "arch/arm64/kernel/traps.c, arch/x86/mm/fault.c"),
    panic("Oopsed too often", "", Cause::Oops, Firm, "kernel/exit.c: kernel.oops_limit"),
    panic("Fatal exception", "", Cause::Oops, Strong, "arch/*/kernel/: panic_on_oops, or a fault in an interrupt"),
    panic("Aiee, killing interrupt handler", "", Cause::Oops, Strong, "kernel/exit.c: a fault in an interrupt"),
    panic("Attempted to kill the idle task", "", Cause::Oops, Strong, "kernel/exit.c: a fault in the idle task"),
    panic("BUG!", "", Cause::Oops, Strong, "include/asm-generic/bug.h: kernels without a report of BUG"),
    panic("bad mode", "", Cause::Oops, Strong, "arch/arm64/kernel/traps.c"),
    panic("", "", Cause::KernelPanic, Strong, "any other"),
    before("sysrq: Trigger a crash", "", Cause::SysRq, Strong, "drivers/tty/sysrq.c"),
    before("SysRq : Trigger a crash", "", Cause::SysRq, Strong, "drivers/tty/sysrq.c, older"),
    before("BUG: soft lockup", "", Cause::SoftLockup, Strong, "kernel/watchdog.c: a CPU ran in the kernel for 20 s"),
    before("Watchdog detected hard LOCKUP", "", Cause::HardLockup, Strong, "kernel/watchdog.c: no interrupt for 10 s"),
    before("INFO: rcu_", "stall", Cause::RcuStall, Strong, "kernel/rcu/tree_stall.h: a grace period does not end"),
    before(
        "[Hardware Error]: ",
        "Machine Check: ",
        Cause::MachineCheck,
        Weak,
        "arch/x86/kernel/cpu/mce/core.c: one bank",
    ),
    before("[Hardware Error]: ", "Machine check: ", Cause::MachineCheck, Weak, "arch/x86/kernel/cpu/mce/core.c: why"),
    before("SError Interrupt on CPU", "", Cause::MachineCheck, Strong, "arch/arm64/kernel/traps.c"),
    before("Uhhuh. NMI received", "", Cause::UnknownNmi, Strong, "arch/x86/kernel/nmi.c: of unknown reason"),
    before("NMI: PCI system error", "", Cause::UnknownNmi, Strong, "arch/x86/kernel/nmi.c"),
    before("NMI: IOCK error", "", Cause::UnknownNmi, Strong, "arch/x86/kernel/nmi.c"),
    before("BUG: stack guard page was hit", "", Cause::StackCorruption, Strong, "arch/x86: the stack ran over"),
    before("BUG: TASK stack guard page was hit", "", Cause::StackCorruption, Strong, "arch/x86: the stack ran over"),
    before("BUG: IRQ stack guard page was hit", "", Cause::StackCorruption, Strong, "arch/x86: the stack ran over"),
    before(
        "Insufficient stack space to handle exception",
        "",
        Cause::StackCorruption,
        Strong,
        "arch/arm64/kernel/traps.c",
    ),
    before("BUG: kernel NULL pointer dereference", "", Cause::Oops, Strong, "arch/x86/mm/fault.c"),
    before("BUG: unable to handle", "", Cause::Oops, Strong, "arch/x86/mm/fault.c: page fault, paging request"),
    before("BUG: KASAN:", "", Cause::Oops, Strong, "mm/kasan/report.c"),
    before("BUG: KFENCE:", "", Cause::Oops, Strong, "mm/kfence/report.c"),
    before("BUG: Bad page", "", Cause::Oops, Strong, "mm/page_alloc.c, mm/memory.c"),
    before("BUG: scheduling while atomic", "", Cause::Oops, Strong, "kernel/sched/core.c"),
    before("BUG: spinlock", "", Cause::Oops, Strong, "kernel/locking/spinlock_debug.c"),
    before("Unable to handle kernel", "", Cause::Oops, Strong, "arch/arm64/mm/fault.c"),
    before("Internal error: ", "", Cause::Oops, Strong, "arch/arm64/kernel/traps.c: Oops, Oops - BUG, abort"),
    before("general protection fault", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c"),
    before("kernel BUG at", "", Cause::Oops, Strong, "lib/bug.c: the kernel found itself wrong"),
    before("PANIC: double fault", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c, doublefault_32.c"),
    before("kernel tried to execute NX-protected page", "", Cause::Oops, Strong, "arch/x86/mm/fault.c"),
    before("invalid opcode:", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c"),
    before("divide error:", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c"),
    before("stack segment:", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c"),
    before("int3:", "", Cause::Oops, Strong, "arch/x86/kernel/traps.c"),
    before("Oops: ", "", Cause::Oops, Strong, "arch/*/kernel/: the head of each oops"),
    before("Oops[#", "", Cause::Oops, Strong, "arch/loongarch, arch/mips"),
    before("INFO: task ", "blocked for more than", Cause::HungTask, Weak, "kernel/hung_task.c"),
    before("WARNING: ", " at ", Cause::Warning, Weak, "kernel/panic.c: WARN()"),
];

/// The row for `text`: the panic's text, or a line that goes before one.
#[must_use]
pub fn row(place: Place, text: &str) -> Option<&'static Row> {
    let text = match place {
        Place::Panic => text,
        Place::Before if kernel_line::begins_with_a_name(text) => return None,
        Place::Before => kernel_line::bare(text),
    };
    TABLE
        .iter()
        .filter(|row| row.place == place)
        .find(|row| text.strip_prefix(row.begins).is_some_and(|rest| row.holds.is_empty() || rest.contains(row.holds)))
}

//! What panics of each kind say, and what only looks like one.

use proptest::prelude::*;
use rstest::rstest;

use super::{
    super::{Header, Userdata},
    *,
};
use crate::contract::last_words::{MARK, Role};

fn line(facility: u16, seconds: u64, text: &str) -> Line {
    let header = Header { facility, level: 4, sequence: seconds, uptime: Duration::from_secs(seconds) };
    Line { header: Some(header), release: None, text: text.to_owned(), userdata: Userdata::default(), torn: false }
}

/// What the kernel's lines of one second say.
fn read(texts: &[&str]) -> Findings {
    let mut reading = Reading::new();
    for text in texts {
        reading.push(&line(0, 10, text));
    }
    reading.findings
}

#[rstest]
#[case("sysrq triggered crash", Cause::SysRq)]
#[case("Attempted to kill init! exitcode=0x0000000b", Cause::InitKilled)]
#[case("Out of memory: compulsory panic_on_oom is enabled", Cause::OutOfMemory)]
#[case("Out of memory: system-wide panic_on_oom is enabled", Cause::OutOfMemory)]
#[case("System is deadlocked on memory", Cause::OutOfMemory)]
#[case("hung_task: blocked tasks", Cause::HungTask)]
#[case("softlockup: hung tasks", Cause::SoftLockup)]
#[case("Hard LOCKUP", Cause::HardLockup)]
#[case("Watchdog detected hard LOCKUP on cpu 3", Cause::HardLockup)]
#[case("RCU Stall", Cause::RcuStall)]
#[case("Fatal hardware error!", Cause::MachineCheck)]
#[case("Fatal machine check", Cause::MachineCheck)]
#[case("Timeout: Not all CPUs entered broadcast exception handler", Cause::MachineCheck)]
#[case("Timeout synchronizing machine check over CPUs", Cause::MachineCheck)]
#[case("Asynchronous SError Interrupt", Cause::MachineCheck)]
#[case("NMI: Not continuing", Cause::UnknownNmi)]
#[case("NMI IOCK error: Not continuing", Cause::UnknownNmi)]
#[case("panic_on_warn set ...", Cause::Warning)]
#[case("kernel: panic_on_warn set ...", Cause::Warning)]
#[case("kernel: system warned too often (kernel.warn_limit is 5)", Cause::Warning)]
#[case("corrupted stack end detected inside scheduler", Cause::StackCorruption)]
#[case("stack-protector: Kernel stack is corrupted in: schedule+0x1/0x2", Cause::StackCorruption)]
#[case("kernel stack overflow", Cause::StackCorruption)]
#[case("Oopsed too often (kernel.oops_limit is 10000)", Cause::Oops)]
#[case("Fatal exception", Cause::Oops)]
#[case("Fatal exception in interrupt", Cause::Oops)]
#[case("Aiee, killing interrupt handler!", Cause::Oops)]
#[case("VFS: Unable to mount root fs on unknown-block(0,0)", Cause::KernelPanic)]
#[case("", Cause::KernelPanic)]
fn a_panic_has_a_cause(#[case] panic: &str, #[case] cause: Cause) {
    let findings = read(&[&format!("{PANIC}{panic}")]);
    assert_eq!((findings.panic.as_deref(), findings.cause), (Some(panic), Some(cause)));
}

#[rstest]
#[case("BUG: kernel NULL pointer dereference, address: 0000000000000000", Cause::Oops)]
#[case("BUG: unable to handle page fault for address: ffffc90000000000", Cause::Oops)]
#[case("BUG: unable to handle kernel NULL pointer dereference at 0000000000000008", Cause::Oops)]
#[case("general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP", Cause::Oops)]
#[case("Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP", Cause::Oops)]
#[case("Oops: 0002 [#1] PREEMPT SMP NOPTI", Cause::Oops)]
#[case("Oops: Oops: 0002 [#1] SMP NOPTI", Cause::Oops)]
#[case("kernel BUG at mm/slub.c:448!", Cause::Oops)]
#[case("Internal error: Oops: 0000000096000046 [#1] SMP", Cause::Oops)]
#[case("Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000", Cause::Oops)]
#[case("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [php-fpm:4711]", Cause::SoftLockup)]
#[case("NMI watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [php-fpm:4711]", Cause::SoftLockup)]
#[case("watchdog: Watchdog detected hard LOCKUP on cpu 1", Cause::HardLockup)]
#[case("watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1", Cause::HardLockup)]
#[case("rcu: INFO: rcu_preempt self-detected stall on CPU", Cause::RcuStall)]
#[case("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", Cause::RcuStall)]
#[case("mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: be00000000800400", Cause::MachineCheck)]
#[case("mce: [Hardware Error]: Machine check: Processor context corrupt", Cause::MachineCheck)]
#[case("Uhhuh. NMI received for unknown reason 2c on CPU 0.", Cause::UnknownNmi)]
#[case("BUG: TASK stack guard page was hit at 0000000050ae2a0a (stack is 00000000..)", Cause::StackCorruption)]
#[case("sysrq: Trigger a crash", Cause::SysRq)]
#[case("INFO: task php-fpm:4711 blocked for more than 120 seconds.", Cause::HungTask)]
#[case("WARNING: CPU: 1 PID: 99 at fs/inode.c:12 iput+0x1/0x2", Cause::Warning)]
#[case("WARNING: fs/inode.c:12 at iput+0x1/0x2, CPU#1: php-fpm/4711", Cause::Warning)]
fn a_fault_that_may_go_before_a_panic_is_a_signature(#[case] text: &str, #[case] cause: Cause) {
    let mut reading = Reading::new();
    assert_eq!(reading.push(&line(0, 1, text)), Note::Signature);
    let findings = reading.findings();
    assert_eq!((findings.signature.as_deref(), findings.cause, &findings.panic), (Some(text), Some(cause), &None));
}

#[rstest]
#[case("php-fpm invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0")]
#[case("mce: [Hardware Error]: Machine check events logged")]
#[case("x[1]: segfault at 0 ip 0 sp 0 error 4 in Kernel panic - not syncing: x[1]")]
#[case("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/Kernel panic - not syncing: x,task=y")]
#[case("BUG: and nothing that we know")]
#[case("audit: Oops: 0002 [#1]")]
#[case("Oops: x[4711]: segfault at 0 ip 0 sp 0 error 4 in y")]
#[case("int3: invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0")]
fn other_lines_are_no_signature(#[case] text: &str) {
    assert_eq!(read(&[text]), Findings::default());
}

#[rstest]
#[case::nine("Fatal exception", "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]", Cause::SoftLockup)]
#[case::stack("Fatal exception in interrupt", "BUG: IRQ stack guard page was hit at 0", Cause::StackCorruption)]
#[case::firm("Out of memory: compulsory panic_on_oom is enabled", "kernel BUG at a.c:1!", Cause::OutOfMemory)]
#[case::weak("Fatal exception", "INFO: task a:1 blocked for more than 9 seconds.", Cause::Oops)]
#[case::unknown_text("xyz failed", "kernel BUG at a.c:1!", Cause::Oops)]
#[case::unknown_text_after_a_warning("xyz failed", "WARNING: a.c:1 at f+0x1/0x2, CPU#1: a/1", Cause::KernelPanic)]
fn text_and_signature_speak_together(#[case] panic: &str, #[case] before: &str, #[case] cause: Cause) {
    let findings = read(&[before, &format!("{PANIC}{panic}")]);
    assert_eq!((findings.cause, findings.signature.as_deref()), (Some(cause), Some(before)));
}

#[test]
fn a_crash_by_request_of_an_older_kernel_is_known_by_its_symbol() {
    let findings = read(&[
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000000",
        "RIP: 0010:sysrq_handle_crash+0x16/0x20",
        "Kernel panic - not syncing: Fatal exception",
    ]);
    assert_eq!(findings.cause, Some(Cause::SysRq));
}

#[test]
fn a_program_writes_no_panic() {
    let mut reading = Reading::new();
    for facility in [1, 3, 8191] {
        for text in
            ["Kernel panic - not syncing: x", "BUG: soft lockup", &format!("{MARK}role=current confidence=high")]
        {
            assert_eq!(reading.push(&line(facility, 1, text)), Note::Foreign);
        }
    }
    assert_eq!(reading.findings(), &Findings::default());
    assert_eq!(of_texts(["<12>[    1.000000] Kernel panic - not syncing: x"]), Findings::default());
}

#[test]
fn an_old_fault_has_nothing_to_do_with_a_panic() {
    let mut reading = Reading::new();
    for text in ["BUG: soft lockup - x", "CPU: 1 PID: 7 Comm: a Not tainted 6.1.0 #1", "RIP: 0010:f+0x1/0x2"] {
        reading.push(&line(0, 10, text));
    }
    assert_eq!(reading.findings().task, Some((7, "a".to_owned())));
    reading.push(&line(0, 100, "Kernel panic - not syncing: xyz"));
    let findings = reading.findings();
    assert_eq!((&findings.signature, &findings.task, &findings.symbol), (&None, &None, &None));
    assert_eq!(findings.cause, Some(Cause::KernelPanic));
}

#[test]
fn the_first_of_equal_faults_counts_and_a_stronger_one_more() {
    let bug = "kernel BUG at a.c:1!";
    let findings = read(&["WARNING: a.c:1 at f+0x1/0x2, CPU#1: a/1", bug, "BUG: soft lockup - x"]);
    assert_eq!((findings.signature.as_deref(), findings.cause), (Some(bug), Some(Cause::Oops)));
}

#[test]
fn the_first_panic_counts_and_its_end_tells_it_too() {
    let end = "---[ end Kernel panic - not syncing: one ]---";
    assert_eq!(read(&["Kernel panic - not syncing: one", "Kernel panic - not syncing: two"]).panic, read(&[end]).panic);
}

#[rstest]
#[case::new(
    "CPU: 1 UID: 0 PID: 4711 Comm: php-fpm Tainted: G        W  OE      6.12.0-1-amd64 #1 Debian 6.12.6-1",
    (4711, "php-fpm"), Some("GWOE"), Some("6.12.0-1-amd64"),
)]
#[case::clean("CPU: 0 PID: 30 Comm: khungtaskd Not tainted 6.1.0-50 #1", (30, "khungtaskd"), None, Some("6.1.0-50"))]
#[case::kdump("CPU: 0 PID: 1 Comm: a b Kdump: loaded Tainted: P           4.19.0 #1", (1, "a b"), Some("P"), Some("4.19.0"))]
#[case::a_name_that_lies("CPU: 0 PID: 9 Comm: x Not tainted 1 Not tainted 6.1.0 #1", (9, "x Not tainted 1"), None, Some("6.1.0"))]
#[case::cut("CPU: 0 PID: 9 Comm: ngi", (9, "ngi"), None, None)]
fn who_ran_is_read(
    #[case] text: &str,
    #[case] task: (u32, &str),
    #[case] taint: Option<&str>,
    #[case] release: Option<&str>,
) {
    let findings = read(&["Kernel panic - not syncing: x", text]);
    assert_eq!(findings.task, Some((task.0, task.1.to_owned())));
    assert_eq!((findings.taint.as_deref(), findings.release.as_deref()), (taint, release));
}

#[rstest]
#[case("RIP: 0010:nft_do_chain+0x10c/0x600 [nf_tables]", "nft_do_chain", &["nf_tables"])]
#[case("RIP: 0010:__x64_sys_read+0x1/0x20", "__x64_sys_read", &[])]
#[case("pc : do_panic+0x10/0x30 [crash_me]", "do_panic", &["crash_me"])]
fn the_symbol_and_its_module_are_read(#[case] text: &str, #[case] symbol: &str, #[case] modules: &[&str]) {
    let findings = read(&["kernel BUG at a.c:1!", text, "RIP: 0010:later+0x1/0x2"]);
    assert_eq!(findings.symbol.as_deref(), Some(symbol));
    assert_eq!(findings.modules, modules);
}

#[test]
fn an_address_of_a_program_is_no_symbol() {
    assert_eq!(read(&["kernel BUG at a.c:1!", "RIP: 0033:0x7f0000000001"]).symbol, None);
}

#[test]
fn modules_that_taint_are_named() {
    let text = "Modules linked in: nvidia(POE) xfs crash_me(OE) weak(E) [last unloaded: old(O)]";
    assert_eq!(read(&["kernel BUG at a.c:1!", text]).modules, ["nvidia", "crash_me"]);
}

#[test]
fn reports_without_a_fault_tell_nobody() {
    let findings =
        read(&["CPU: 1 PID: 7 Comm: a Not tainted 6.1.0 #1", "RIP: 0010:f+0x1/0x2", "Modules linked in: a(O)"]);
    assert_eq!(findings, Findings::default());
}

#[rstest]
#[case::bare("")]
#[case::of_the_trace_buffer("     php-4711      1d..1. 8123456us : bpf_trace_printk: ")]
#[case::with_a_name_of_two_words("   a b c-4711       1d..1. 8123456us+: bpf_trace_printk: ")]
#[case::as_tracefs_shows_it("             php-4711    [001] d..1.    12.500000: bpf_trace_printk: ")]
#[case::without_a_name("   <...>-4711    [001] d..1.    12.500000: bpf_trace_printk: ")]
fn our_line_is_read_where_the_kernel_puts_it(#[case] before: &str) {
    let text = format!("{before}{MARK}role=sysrq confidence=high pid=4711 comm=sh");
    let words = read(&[&text]).last_words.expect("our line");
    assert_eq!((words.role, words.pid), (Role::SysRq, Some(4711)));
}

#[test]
fn our_words_in_another_line_are_not_ours() {
    let planted = format!("a[7]: segfault at 0 ip 0 sp 0 error 4 in {MARK}role=sysrq confidence=high pid=4711 comm=sh");
    assert_eq!(read(&[&planted]).last_words, None);
    assert_eq!(of_texts([planted.as_str()]).last_words, None);
}

#[test]
fn without_heads_the_last_panic_counts() {
    let found = of_texts([
        "Kernel panic - not syncing: said by a program",
        "Kernel panic - not syncing: sysrq triggered crash",
    ]);
    assert_eq!((found.panic.as_deref(), found.cause), (Some("sysrq triggered crash"), Some(Cause::SysRq)));
}

#[test]
fn lines_without_heads_are_read_in_any_order() {
    let found = of_texts([
        "Kernel panic - not syncing: Fatal exception",
        "detector: last words v1 role=current confidence=medium pid=7 comm=a",
        "[   12.345678] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:7]",
    ]);
    assert_eq!(found.cause, Some(Cause::SoftLockup));
    assert!(found.last_words.is_some() && found.panic.is_some());
}

#[test]
fn each_row_of_the_table_is_reached_by_its_own_words() {
    for row in table::TABLE {
        let text = format!("{}{}", row.begins, row.holds);
        let found = table::row(row.place, &text).expect("a row");
        assert_eq!(found.cause, row.cause, "{text}");
    }
}

proptest! {
    #[test]
    fn any_lines_leave_bounded_findings(
        lines in prop::collection::vec(("\\PC{0,100}", 0_usize..12, 0_u16..2, any::<u32>()), 0..20),
    ) {
        let begins = [
            "", PANIC, "BUG: unable to handle", "CPU: 1 PID: 7 Comm: ", "RIP: 0010:", "pc : ", "Modules linked in: ",
            "INFO: task ", "mce: ", MARK, "     a-1  1d..1. 1us : bpf_trace_printk: ", END_OF_PANIC,
        ];
        let mut reading = Reading::new();
        for (text, begin, facility, seconds) in &lines {
            reading.push(&line(*facility, u64::from(*seconds), &format!("{}{text}", begins[*begin])));
            let mut basic = line(0, 0, text);
            basic.header = None;
            reading.push(&basic);
        }
        let found = reading.findings();
        prop_assert!(found.panic.as_ref().is_none_or(|text| text.len() <= MAX_TEXT_BYTES));
        prop_assert!(found.signature.as_ref().is_none_or(|text| text.len() <= MAX_TEXT_BYTES));
        prop_assert!(found.modules.len() <= MAX_MODULES);
        prop_assert!(found.task.as_ref().is_none_or(|(_, comm)| comm.len() <= 64));
        prop_assert_eq!(found.cause.is_some(), found.panic.is_some() || found.signature.is_some());
    }
}

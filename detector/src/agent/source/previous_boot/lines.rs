//! The lines of a dead kernel's log that say what happened, the decisive ones first. Pure.

use crate::{
    contract::last_words::{self, MARK},
    kernel_line::{PANIC, bare, begins_with_a_name, console, tells_of_oom},
    text::{harmless, start},
};

/// Lines that are told at most.
pub const MAX_LINES: usize = 8;

/// Bytes of a line that are told at most; our own may be longer.
const LINE_BYTES: usize = 200;

/// Bytes of our own line at most, with what the trace buffer puts before it.
const OUR_BYTES: usize = last_words::MAX_BEFORE + last_words::MAX_BYTES;

/// Lines of this kind that are told before what surrounds them.
const SIGNATURES_TOLD: usize = 3;

/// How lines begin that say why a kernel is about to die, and what they hold besides.
const SIGNATURES: [(&str, &str); 25] = [
    ("BUG: ", ""),
    ("kernel BUG at", ""),
    ("Oops: ", ""),
    ("Oops[#", ""),
    ("Internal error: ", ""),
    ("general protection fault", ""),
    ("Unable to handle kernel", ""),
    ("PANIC: double fault", ""),
    ("kernel tried to execute NX-protected page", ""),
    ("invalid opcode:", ""),
    ("divide error:", ""),
    ("stack segment:", ""),
    ("int3:", ""),
    ("Insufficient stack space", ""),
    ("Watchdog detected hard LOCKUP", ""),
    ("INFO: task ", "blocked for more than"),
    ("INFO: rcu_", "stall"),
    ("[Hardware Error]: ", ""),
    ("SError Interrupt on CPU", ""),
    ("Uhhuh. NMI received", ""),
    ("NMI: PCI system error", ""),
    ("NMI: IOCK error", ""),
    ("sysrq: Trigger a crash", ""),
    ("SysRq : Trigger a crash", ""),
    ("Memory failure: ", ""),
];

/// How lines begin that tell who was running, and where.
const SURROUNDINGS: [&str; 3] = ["CPU: ", "RIP: 0010:", "pc : "];

/// Those lines of `text` that say what happened: the panic, our own last words, what went before the panic, and who ran
/// where. Without level, time and caller.
#[must_use]
pub fn decisive(text: &str) -> Vec<String> {
    let lines: Vec<Said> = text.lines().filter_map(of_kernel).filter(|line| !line.text.is_empty()).collect();
    // None follows that of the kernel itself.
    let panic = lines.iter().rposition(Said::is_panic);
    let before = &lines[..panic.unwrap_or(lines.len())];
    let is_signature = |line: &&Said| is_signature(line.text);
    let mut signatures: Vec<Said> = before.iter().rev().filter(is_signature).take(SIGNATURES_TOLD).copied().collect();
    signatures.reverse();
    let first = signatures.first().and_then(|signature| lines.iter().rposition(|line| line == signature));
    let after = &lines[first.or(panic).unwrap_or(lines.len())..];
    let surroundings =
        SURROUNDINGS.iter().filter_map(|beginning| after.iter().find(|line| line.text.starts_with(beginning)));
    let ours = after.iter().rev().find(|line| line.is_ours());

    let mut told: Vec<String> = Vec::new();
    told.extend(panic.and_then(|at| lines.get(at)).map(|line| shown(line.text, LINE_BYTES)));
    told.extend(ours.map(|line| shown(line.text, OUR_BYTES)));
    told.extend(signatures.iter().chain(surroundings).map(|line| shown(line.text, LINE_BYTES)));
    told.truncate(MAX_LINES);
    told
}

fn is_signature(line: &str) -> bool {
    let text = bare(line);
    // Those of the firmware have a number (`drivers/acpi/apei/ghes.c`).
    let text = text.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(text, |(_, rest)| rest);
    let fits = |(begins, holds): &(&str, &str)| text.strip_prefix(begins).is_some_and(|rest| rest.contains(holds));
    tells_of_oom(line) || !begins_with_a_name(line) && SIGNATURES.iter().any(fits)
}

/// Whether a console ends with the kernel's death. A console does not tell who wrote a line: what somebody wrote into it
/// (`/dev/kmsg`) on a kernel that lived on is soon followed by many others.
#[must_use]
pub fn ends_in_panic(text: &str) -> bool {
    text.lines().rev().take(PANIC_LINES).filter_map(of_kernel).any(|line| line.is_panic())
}

/// Lines that a kernel says at most after the one of its panic: stacks of all processors, modules, memory.
const PANIC_LINES: usize = 1000;

/// Whether the log ends with a shutdown or restart in order (`kernel/reboot.c`).
#[must_use]
pub fn ends_in_order(text: &str) -> bool {
    let last = text.lines().rev().filter_map(of_kernel).filter(|line| !line.text.is_empty());
    let ends =
        ["reboot: Restarting system", "reboot: Power down", "reboot: System halted", "kexec_core: Starting new kernel"];
    last.take(LAST_LINES).any(|line| ends.iter().any(|end| line.text.starts_with(end)))
}

/// Lines among which the end must stand: devices may say a word after it.
const LAST_LINES: usize = 5;

/// A line, and how urgent it is, where that stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<'a> {
    level: Option<u16>,
    text: &'a str,
}

impl Said<'_> {
    fn is_panic(&self) -> bool {
        self.may_be_last() && self.text.starts_with(PANIC)
    }

    /// Whether it is the one about the suspect. Without a level nobody knows who wrote it: then it counts only with what the
    /// trace buffer puts before it.
    fn is_ours(&self) -> bool {
        let (line, traced) = (self.text, last_words::is_traced(self.text));
        self.may_be_last() && (traced || self.level.is_some() && line.starts_with(MARK))
    }

    /// What a kernel says when it panics, and its trace buffer, are of the highest urgency (`pr_emerg`, `KERN_TRACE`). Other
    /// lines can be a program's: the name of its file, with an end of line in it, is printed where it crashes.
    fn may_be_last(&self) -> bool {
        self.level.is_none_or(|level| level == 0)
    }
}

/// `line` without what the kernel puts before its text. `None`: it is none of the kernel's own.
fn of_kernel(line: &str) -> Option<Said<'_>> {
    let line = console::read(line.trim_end_matches(['\r', '\0', ' ']));
    (!line.is_foreign()).then(|| Said { level: line.priority, text: line.text.trim_start() })
}

fn shown(line: &str, bytes: usize) -> String {
    start(&harmless(line), bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const SYSRQ: &str = "\
<6>[   41.201177] sysrq: Trigger a crash
<0>[   41.202563] Kernel panic - not syncing: sysrq triggered crash
<4>[   41.203800] CPU: 1 UID: 0 PID: 4711 Comm: sh Not tainted 6.12.48-cloud-amd64 #1
<4>[   41.205100] Call Trace:
<4>[   41.206000]  <TASK>
<0>[   41.207000]       sh-4711       1d..1. 41207000us : bpf_trace_printk: detector: last words v1 role=sysrq confidence=high pid=4711 comm=sh
<0>[   41.999000] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---
";

    const OOPS: &str = "\
<1>[    9.000000][  T812] BUG: kernel NULL pointer dereference, address: 0000000000000008
<4>[    9.000001][  T812] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
<4>[    9.000002][  T812] CPU: 0 UID: 0 PID: 812 Comm: php-fpm Tainted: G           OE      6.12.48 #1
<4>[    9.000003][  T812] RIP: 0010:boom_write+0x14/0x20 [boom]
<4>[    9.000004][  T812] RIP: 0033:0x7f1
<0>[    9.000005][  T812] Kernel panic - not syncing: Fatal exception
<4>[    9.000006][  T812] Kernel Offset: 0x2000000
";

    #[test]
    fn the_panic_comes_first_then_our_own_words_then_what_went_before() {
        assert_eq!(
            decisive(SYSRQ),
            [
                "Kernel panic - not syncing: sysrq triggered crash",
                "sh-4711       1d..1. 41207000us : bpf_trace_printk: detector: last words v1 role=sysrq confidence=high \
                 pid=4711 comm=sh",
                "sysrq: Trigger a crash",
                "CPU: 1 UID: 0 PID: 4711 Comm: sh Not tainted 6.12.48-cloud-amd64 #1",
            ]
        );
    }

    #[test]
    fn of_an_oops_the_task_and_the_place_in_the_kernel_are_told() {
        assert_eq!(
            decisive(OOPS),
            [
                "Kernel panic - not syncing: Fatal exception",
                "BUG: kernel NULL pointer dereference, address: 0000000000000008",
                "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI",
                "CPU: 0 UID: 0 PID: 812 Comm: php-fpm Tainted: G           OE      6.12.48 #1",
                "RIP: 0010:boom_write+0x14/0x20 [boom]",
            ]
        );
    }

    #[test]
    fn a_log_without_the_panic_itself_still_tells_the_fault() {
        // With kdump the crash kernel takes over before the panic says its word.
        let cut = OOPS.split_once("<0>").expect("a panic").0;
        assert_eq!(
            decisive(cut).first().map(String::as_str),
            Some("BUG: kernel NULL pointer dereference, address: 0000000000000008")
        );
        assert!(!ends_in_panic(cut) && ends_in_panic(OOPS) && ends_in_panic(SYSRQ));
        assert_eq!(decisive("all is well\n"), Vec::<String>::new());
    }

    #[rstest]
    #[case("<6>[  100.000000] reboot: Restarting system\n", true)]
    #[case("[  100.000000] reboot: Power down\r\n\n", true)]
    #[case("[  100.000000] reboot: Power down\na\nb\nc\nd\ne\n", false)]
    #[case(SYSRQ, false)]
    #[case("", false)]
    fn the_last_lines_tell_an_end_in_order(#[case] text: &str, #[case] in_order: bool) {
        assert_eq!(ends_in_order(text), in_order);
    }

    #[test]
    fn what_somebody_wrote_into_the_kernels_log_is_no_word_of_the_kernel() {
        // Facility 1, levels 0 and 4; the kernel does not let others write with facility 0.
        let forged = "<8>[    1.000000] Kernel panic - not syncing: forged\n<12>[    1.000000] detector: last words v1 role=init\n";
        assert_eq!(decisive(forged), Vec::<String>::new());
        assert!(!ends_in_panic(forged) && !ends_in_order("<14>[    1.000000] reboot: Power down\n"));
        assert_eq!(decisive(&format!("{forged}{SYSRQ}")), decisive(SYSRQ));
    }

    #[rstest]
    #[case::name_of_a_cgroup("<6>[ 41.100000] oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/")]
    #[case::name_of_a_file("<6>[ 41.100000] x-1 a[4711]: segfault at 0 ip 0 sp 0 error 4 in ")]
    #[case::that_knows_more("<6>[ 41.100000] x-1 a[4711]: segfault at 0 ip 0 sp 0 error 4 in 1.0: bpf_trace_printk: ")]
    #[case::with_an_end_of_line(
        "<6>[ 41.100000] a[4711]: segfault at 0 in \n<6>[ 41.100000] x-1 [001] d..1. 1.0: bpf_trace_printk: "
    )]
    #[case::without_a_level("[ 41.100000] ")]
    fn our_words_in_another_line_are_not_ours(#[case] before: &str) {
        let planted = format!("{before}{MARK}role=current confidence=high pid=1 comm=a\n");
        let (begin, end) = SYSRQ.split_once("<0>").expect("a panic");
        for text in [format!("{planted}{SYSRQ}"), format!("{begin}{planted}<0>{end}"), format!("{SYSRQ}{planted}")] {
            assert_eq!(decisive(&text), decisive(SYSRQ));
        }
        assert!(decisive(&planted).is_empty());
    }

    #[rstest]
    #[case("Oops: x[4711]: segfault at 0 ip 0 sp 0 error 4 in y")]
    #[case("a[7]: segfault at 0 ip 0 sp 0 error 4 in BUG: Oops: 0002 [#1]")]
    #[case("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/ invoked oom-killer: gfp_mask=0x0")]
    fn names_that_programs_choose_are_no_fault(#[case] line: &str) {
        assert_eq!(decisive(&format!("<6>[    1.000000] {line}\n")), Vec::<String>::new());
    }

    #[rstest]
    #[case("php-fpm invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0")]
    #[case("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [php-fpm:4711]")]
    #[case("{1}[Hardware Error]: event severity: fatal")]
    #[case("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:")]
    fn what_the_kernel_says_of_a_fault_is_told(#[case] line: &str) {
        assert_eq!(decisive(&format!("<6>[    1.000000] {line}\n")), [line]);
    }

    #[test]
    fn a_console_that_goes_on_for_long_did_not_end_in_a_panic() {
        let goes_on = format!("[ 1.000000] {PANIC}x\n{}", "[ 2.000000] usb 1-1: new device\n".repeat(PANIC_LINES));
        assert!(!ends_in_panic(&goes_on));
        assert!(ends_in_panic(&format!("{goes_on}[ 3.000000] {PANIC}x\n")));
    }

    #[rstest]
    #[case("<4>[    1.500000][    T1] x", Some("x"))]
    #[case("<4>[    1.500000] [x] y", Some("[x] y"))]
    #[case("<b>x", Some("<b>x"))]
    #[case("[U] x", Some("[U] x"))]
    #[case("<>", Some("<>"))]
    #[case("<7>x", Some("x"))]
    #[case("<8>x", None)]
    #[case("<99999999999999999999>x", None)]
    fn what_the_kernel_puts_before_a_line_is_left_out(#[case] line: &str, #[case] text: Option<&str>) {
        assert_eq!(of_kernel(line).map(|said| said.text), text);
    }

    proptest! {
        #[test]
        fn any_text_gives_few_short_harmless_lines(text in "(?s).{0,400}") {
            let mixed = format!("{SYSRQ}{text}{OOPS}");
            for text in [text, mixed] {
                let told = decisive(&text);
                prop_assert!(told.len() <= MAX_LINES);
                prop_assert!(told.iter().all(|line| line.len() <= OUR_BYTES && !line.contains('\n')));
            }
        }
    }
}

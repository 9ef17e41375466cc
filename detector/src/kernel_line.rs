//! What of a line of the kernel's log is the kernel's own word, and what a program can have put there.
//!
//! A program chooses names, of itself, of files and of cgroups, and the kernel puts them into its lines. Most stand behind the
//! kernel's own words; so what a line is about counts at its begin only. Some lines begin with a name
//! ([`begins_with_a_name`]): they are about nothing that such a begin could say.

pub mod console;

/// How the line of a panic begins (`vpanic`, `kernel/panic.c`).
pub const PANIC: &str = "Kernel panic - not syncing: ";

/// What the kernel's own prefixes put before a line, depending on its version.
const PREFIXES: [&str; 4] = ["NMI watchdog: ", "watchdog: ", "rcu: ", "mce: "];

/// Bytes of the name of a program at most (`TASK_COMM_LEN` without the closing NUL).
const MAX_NAME_BYTES: usize = 15;

/// What follows the name in lines that begin with one, but for its process id.
const AFTER_A_NAME: [&str; 3] = [OOM_KILLER, ": page allocation ", " uses "];

/// What the kernel says after the name of a program that ran out of memory (`dump_header`, `mm/oom_kill.c`).
const OOM_KILLER: &str = " invoked oom-killer: ";

/// A line without the prefixes that differ between versions.
#[must_use]
pub fn bare(line: &str) -> &str {
    let line = PREFIXES.into_iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    let cpu = line.strip_prefix("CPU").and_then(|rest| rest.split_once(": "));
    cpu.filter(|(number, _)| is_number(number)).map_or(line, |(_, rest)| rest)
}

/// Whether the kernel begins `line` with a name that a program gave itself: `NAME[PID]: segfault at ...` (`show_signal_msg`,
/// `arch/x86/mm/fault.c`), `NAME (PID): ...`, `NAME invoked oom-killer: ...`.
#[must_use]
pub fn begins_with_a_name(line: &str) -> bool {
    let near = line.get(..line.floor_char_boundary(MAX_NAME_BYTES + 2)).unwrap_or_default();
    let mut brackets = near.match_indices(['[', '(']);
    let pid = |at: usize| line.get(at + 1..).and_then(|rest| rest.split_once([']', ')'])).map(|(pid, _)| pid);
    brackets.any(|(at, _)| at > 0 && pid(at).is_some_and(is_number))
        || AFTER_A_NAME.iter().any(|words| line.find(words).is_some_and(|at| at <= MAX_NAME_BYTES))
}

/// Whether `line` says that a program ran out of memory, and which.
#[must_use]
pub fn tells_of_oom(line: &str) -> bool {
    line.find(OOM_KILLER).is_some_and(|at| at <= MAX_NAME_BYTES)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Oops: x[4711]: segfault at 0 ip 0 sp 0 error 4 in y")]
    #[case("BUG: KASAN: abc[1]: segfault at 0")]
    #[case("kernel BUG at a[7] trap int3 ip:0")]
    #[case("INFO: rcu_stall (12): drop_caches: 3")]
    #[case("int3: invoked oom-killer: gfp_mask=0x0")]
    #[case("Oops: : page allocation failure: order:0")]
    fn a_name_at_the_begin_is_seen(#[case] line: &str) {
        assert!(begins_with_a_name(line));
    }

    #[rstest]
    #[case("Oops: 0002 [#1] PREEMPT SMP NOPTI")]
    #[case("Oops[#1]:")]
    #[case("[Hardware Error]: CPU 1: Machine Check: 0 Bank 5: be00000000800400")]
    #[case("INFO: task php-fpm:4711 blocked for more than 120 seconds.")]
    #[case("BUG: soft lockup - CPU#1 stuck for 22s! [php-fpm:4711]")]
    #[case("invalid opcode: 0000 [#1] SMP")]
    #[case("[1] x")]
    #[case("")]
    fn what_the_kernel_says_itself_is_no_name(#[case] line: &str) {
        assert!(!begins_with_a_name(line));
    }

    #[test]
    fn words_far_behind_are_no_mark_of_the_oom_killer() {
        assert!(tells_of_oom("php-fpm invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0"));
        assert!(!tells_of_oom("x[1]: segfault at 0 ip 0 in invoked oom-killer: gfp_mask=0x0"));
    }
}

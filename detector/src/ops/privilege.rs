//! The table of privileges: each capability that the program can use, what needs it, and what is lost without it.
//!
//! One table serves `detector doctor`, the notices of `detector watch` and the page `docs/privileges.md`.

use std::fmt::Write;

use super::capability::{Capability, Rights};

/// How much a capability is needed on the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// No BPF program can be loaded without it.
    Required,
    /// What most people want to know stays unknown without it.
    Recommended,
    /// Something that is rarely needed stays unknown without it.
    Optional,
    /// The running kernel does not know it, or has finer ones.
    Unused,
}

impl Need {
    /// Its name in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Recommended => "recommended",
            Self::Optional => "optional",
            Self::Unused => "unused",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    /// Which capability.
    pub capability: Capability,
    /// How much it is needed on a kernel that has all of them (Linux 5.8 and later).
    need: Need,
    /// What it is used for.
    pub used_for: &'static str,
    /// What is lost without it.
    pub lost_without: &'static str,
    /// Where the kernel asks for it.
    source: &'static str,
}

/// The line of one capability. A match, so that none can be forgotten.
#[must_use]
pub const fn of(capability: Capability) -> Privilege {
    let (need, used_for, lost_without, source) = match capability {
        Capability::Bpf => (
            Need::Required,
            "load programs and maps",
            "all methods but the kernel's log",
            "bpf(2), `BPF_MAP_CREATE` and `BPF_PROG_LOAD`",
        ),
        Capability::Perfmon => (
            Need::Required,
            "attach to tracepoints, kprobes and trampolines, and read kernel memory there",
            "all methods but the kernel's log",
            "bpf(2), `BPF_PROG_LOAD` of tracing programs; perf_event_open(2)",
        ),
        Capability::Syslog => (
            Need::Recommended,
            "read the kernel's log where `kernel.dmesg_restrict` is 1, and function names of stacks (/proc/kallsyms)",
            "method `kmsg`; names of functions in the stacks of hung tasks",
            "`check_syslog_permissions`, `kernel/printk/printk.c`; `kallsyms_show_value`, `kernel/ksyms_common.c`",
        ),
        Capability::DacReadSearch => (
            Need::Recommended,
            "read files of root as another user: container runtimes' files, tracefs; as root, /proc/TID/stack of other \
             users' tasks",
            "names of pods and containers; methods `tracepoint`; kernel stacks where the BPF programs cannot read them",
            "mode bits: 0711 and 0600 in the runtimes' directories, 0700 on tracefs, 0400 on /proc/TID/stack",
        ),
        Capability::SysAdmin => (
            Need::Optional,
            "attach kprobes and classic tracepoints where `kernel.perf_event_paranoid` is above 2; read /proc/TID/stack \
             by methods that have no stack of their own; count the run time of BPF programs for `doctor --live`",
            "methods `kprobe` and `tracepoint` where `kernel.perf_event_paranoid` is above 2; kernel stacks of hung tasks by methods other than \
             `btf_tracepoint`; run times in `doctor --live`",
            "perf_event_open(2) with a patch of Debian and Ubuntu; `proc_pid_stack`, `fs/proc/base.c`; bpf(2), \
             `BPF_ENABLE_STATS`",
        ),
        Capability::SysPtrace => (
            Need::Optional,
            "read /proc/TID/stack of tasks of other users or with more capabilities, together with CAP_SYS_ADMIN; see \
             processes at all where /proc is mounted with `hidepid`",
            "kernel stacks of hung tasks by methods other than `btf_tracepoint`",
            "`lock_trace`, `fs/proc/base.c`; proc(5), `hidepid`",
        ),
        Capability::SysResource => (
            Need::Optional,
            "before Linux 5.11, raise the limit of locked memory, which BPF maps count against there",
            "nothing since Linux 5.11; before it all methods but the kernel's log, unless the limit is 4 MiB already",
            "setrlimit(2), `RLIMIT_MEMLOCK`",
        ),
    };
    Privilege { capability, need, used_for, lost_without, source }
}

/// How much `capability` is needed on the running kernel.
#[must_use]
pub fn need(capability: Capability, rights: Rights) -> Need {
    if rights.needed_for_probes().contains(&capability) {
        Need::Required
    } else if !rights.knows(capability) {
        Need::Unused
    } else if capability == Capability::DacReadSearch && rights.is_root() {
        // The files belong to root.
        Need::Optional
    } else {
        of(capability).need
    }
}

/// What the probes need `capability` for, on a kernel that has the `fine` ones or has not.
pub(super) const fn reason_for_probes(capability: Capability, fine: bool) -> &'static str {
    match capability {
        Capability::SysAdmin if !fine => {
            "load programs and maps and attach to tracepoints, which this kernel has no finer right for"
        }
        Capability::Perfmon => "attach to tracepoints",
        _ => of(capability).used_for,
    }
}

/// What is lost with `rights`: capability and loss, for each that is required or recommended and missed.
pub fn losses(rights: Rights) -> impl Iterator<Item = (Capability, &'static str)> {
    Capability::ALL
        .into_iter()
        .filter(move |one| {
            need(*one, rights) != Need::Optional && need(*one, rights) != Need::Unused && !rights.has(*one)
        })
        .map(|one| (one, of(one).lost_without))
}

/// The page `docs/privileges.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    for capability in Capability::ALL {
        let Privilege { need, used_for, lost_without, source, .. } = of(capability);
        let name = capability.name();
        // Writing to a `String` cannot fail.
        writeln!(page, "| `{name}` | {} | {used_for} | {lost_without} | {source} |", need.name()).ok();
    }
    page.push_str(REST);
    page
}

const PREFACE: &str = "\
# Privileges

What `detector` asks of the kernel, and why. `detector doctor` tells which of it a process has and what it loses without
the rest; nothing is ever asked for by retrying as somebody else.

`detector watch` starts with `CAP_BPF` and `CAP_PERFMON` alone, as root or as any other user; before Linux 5.11 a limit of
locked memory of 4 MiB or more, or `CAP_SYS_RESOURCE`, must come with them. All other capabilities add something, and
their lack is told. Capabilities must hold in the machine's own user namespace: those of a rootless container or of
`unshare --user` do not count.

## Capabilities

| capability | need | used for | lost without | asked for by |
|---|---|---|---|---|
";

const REST: &str = "
Before Linux 5.8 there is neither `CAP_BPF` nor `CAP_PERFMON`: `CAP_SYS_ADMIN` is then required in their place. Later
kernels take it for both, too, so that a process with `CAP_SYS_ADMIN` has them. It does not stand for
`CAP_DAC_READ_SEARCH`, and for `CAP_SYSLOG` on old kernels only: 5.10 opens /dev/kmsg to it, 6.12 does not.

A level of `kernel.perf_event_paranoid` above 2 is not the kernel's own but Debian's and Ubuntu's; 3 is Debian's default.
It closes kprobes and classic tracepoints to `CAP_PERFMON`. Trampolines and raw tracepoints stay open, so that the first
method of each detector works all the same.

/proc/TID/stack wants three things at once: to be the task's user or have `CAP_DAC_READ_SEARCH`, `CAP_SYS_ADMIN`, and
`CAP_SYS_PTRACE` for a task of another user or with more capabilities. It is asked for only where the BPF program cannot
take the stack itself.

Function names of stacks are open to everybody where `kernel.kptr_restrict` is 0 and `kernel.perf_event_paranoid` at most
1, to `CAP_SYSLOG` where it is 0 or 1, and to nobody where it is 2.

Not used: `CAP_DAC_OVERRIDE`, `CAP_NET_ADMIN`, `CAP_SYS_MODULE`, and every other one. /proc/PID/cgroup, `stat` and
`status` are open to all, unless /proc is mounted with `hidepid`.

## Ways to give them

```sh
# For one run, as another user.
setpriv --reuid nobody --clear-groups --inh-caps=-all,+bpf,+perfmon,+syslog,+dac_read_search \\
    --ambient-caps=-all,+bpf,+perfmon,+syslog,+dac_read_search detector watch
# For a systemd unit.
#   AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYSLOG CAP_DAC_READ_SEARCH
#   CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_SYSLOG CAP_DAC_READ_SEARCH
```

## Files

| path | read for | without it |
|---|---|---|
| /sys/kernel/btf/vmlinux | where the fields of kernel structures are | methods `tracepoint` and `kmsg` only |
| /sys/fs/cgroup, the machine's own | paths of the cgroups that exist already | cgroups become known as they are made |
| tracefs at /sys/kernel/tracing | numbers and formats of classic tracepoints | no methods `tracepoint` |
| /dev/kmsg | the kernel's log | no methods `kmsg` |
| /proc of the machine's own pid namespace | cgroup and start of processes, the kernel's count of kills | places of kills whose cgroup is not known |
| directories of container runtimes, as `detector doctor` lists them | names of pods and containers | ids in place of names |

Nothing is written to any of them.
";

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE_MACHINE: &str = "0 0 4294967295";

    fn rights(held: &[Capability], last: u32) -> Rights {
        let effective: u64 = held.iter().map(|one| 1 << *one as u32).sum();
        of_user(1000, &format!("CapEff:\t{effective:016x}\n"), last)
    }

    fn of_user(uid: u32, capabilities: &str, last: u32) -> Rights {
        let status = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n{capabilities}");
        Rights::parse(&status, &last.to_string(), Some(WHOLE_MACHINE)).expect("a status")
    }

    #[test]
    fn every_capability_has_its_row_on_the_page() {
        let page = reference();
        for capability in Capability::ALL {
            assert!(page.contains(&format!("| `{}` | ", capability.name())), "{page}");
        }
    }

    #[test]
    fn the_two_fine_rights_alone_lose_names_and_the_log() {
        let lost: Vec<_> = losses(rights(&[Capability::Bpf, Capability::Perfmon], 40)).map(|(one, _)| one).collect();
        assert_eq!(lost, [Capability::Syslog, Capability::DacReadSearch]);
    }

    #[test]
    fn root_reads_its_own_files_without_a_capability() {
        let lost: Vec<_> = losses(of_user(0, "CapEff:\t000000c000000000\n", 40)).map(|(one, _)| one).collect();
        assert_eq!(lost, [Capability::Syslog]);
    }

    #[test]
    fn who_has_all_loses_nothing() {
        assert_eq!(losses(rights(&Capability::ALL, 40)).count(), 0);
    }

    #[test]
    fn an_old_kernel_requires_the_wide_right_and_knows_no_fine_ones() {
        let rights = rights(&[], 37);
        assert_eq!(need(Capability::SysAdmin, rights), Need::Required);
        assert_eq!(need(Capability::Bpf, rights), Need::Unused);
        assert_eq!(need(Capability::Syslog, rights), Need::Recommended);
    }

    #[test]
    fn a_right_held_by_a_wider_one_says_so() {
        let rights = rights(&[Capability::SysAdmin, Capability::Bpf], 40);
        assert_eq!(rights.held_by(Capability::Bpf), Some(Capability::Bpf));
        assert_eq!(rights.held_by(Capability::Perfmon), Some(Capability::SysAdmin));
        assert_eq!(rights.held_by(Capability::Syslog), None);
    }
}

//! Why a method was refused and what would change it: a refusal held against rights, settings and mounts. Pure.

use std::io;

use crate::{
    agent::{
        options::{Detector, FOREIGN_PIDS, Method},
        source::{
            bpf::attach::Refusal,
            surroundings::{Lockdown, Surroundings, mounts::TRACEFS_PLACES},
        },
    },
    ops::capability::{Capability, Rights},
};

/// Why, in one word of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// This binary has no BPF programs.
    NoKernelSide,
    /// This process lacks a capability.
    MissingCapability,
    /// Its capabilities do not hold for the machine.
    UserNamespace,
    /// The limit of locked memory is too low, and it may not raise it.
    MemoryLockLimit,
    /// The kernel's lockdown forbids it.
    Lockdown,
    /// The kernel refuses a trampoline to a process that has all rights.
    TrampolineRefused,
    /// The kernel does not tell its types.
    NoBtf,
    /// A setting keeps kprobes and classic tracepoints from all but `CAP_SYS_ADMIN`.
    PerfEventParanoid,
    /// The kernel lacks a field.
    MissingField,
    /// The kernel lacks the hook.
    NoHook,
    /// The kernel lacks kprobes.
    NoKprobes,
    /// tracefs is not where it is looked for.
    NoTracefs,
    /// The kernel's log is not there.
    NoKernelLog,
    /// There are no memory cgroups.
    NoCgroups,
    /// The kernel says EPERM to a process that has all rights.
    NotPermitted,
    /// The kernel's verifier refuses the program.
    Verifier,
    /// Anything else.
    Other,
}

impl Reason {
    /// Its name in every output.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoKernelSide => "no_kernel_side",
            Self::MissingCapability => "missing_capability",
            Self::UserNamespace => "user_namespace",
            Self::MemoryLockLimit => "memory_lock_limit",
            Self::Lockdown => "lockdown",
            Self::TrampolineRefused => "trampoline_refused",
            Self::NoBtf => "no_btf",
            Self::PerfEventParanoid => "perf_event_paranoid",
            Self::MissingField => "missing_field",
            Self::NoHook => "no_hook",
            Self::NoKprobes => "no_kprobes",
            Self::NoTracefs => "no_tracefs",
            Self::NoKernelLog => "no_kernel_log",
            Self::NoCgroups => "no_cgroups",
            Self::NotPermitted => "not_permitted",
            Self::Verifier => "verifier",
            Self::Other => "other",
        }
    }
}

/// Why, and what would change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) reason: Reason,
    /// `None`: nothing that is known.
    pub(super) remedy: Option<String>,
}

impl Verdict {
    pub(super) fn new(reason: Reason, remedy: impl Into<String>) -> Self {
        Self { reason, remedy: Some(remedy.into()) }
    }
}

/// What a refusal is held against.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// `None` if `/proc` does not tell.
    pub(super) rights: Option<Rights>,
    pub(super) surroundings: Surroundings,
}

impl Seen {
    fn lacks(&self, capability: Capability) -> bool {
        self.rights.is_some_and(|rights| !rights.has(capability))
    }

    /// Why a method of BPF was refused.
    pub(super) fn refused(&self, method: Method, refusal: Refusal) -> Verdict {
        let locked = self.surroundings.lockdown == Lockdown::Confidentiality;
        match refusal {
            Refusal::NoBtf => Verdict::new(
                Reason::NoBtf,
                "boot a kernel that was built with CONFIG_DEBUG_INFO_BTF, and give a container the machine's /sys",
            ),
            Refusal::NoField => Verdict::new(Reason::MissingField, "boot another kernel: this one lacks what is read"),
            Refusal::NoHook => Verdict::new(Reason::NoHook, "boot another kernel: this one has no such hook"),
            Refusal::NoKprobes => Verdict::new(
                Reason::NoKprobes,
                "boot a kernel that was built with CONFIG_KPROBE_EVENTS: this one was not",
            ),
            Refusal::NoTracefs => self.no_tracefs(),
            Refusal::NotPermitted => self.not_permitted(method),
            Refusal::Verifier if locked => lockdown(),
            Refusal::Verifier => Verdict::new(Reason::Verifier, "report it, with the message and the kernel's release"),
            Refusal::Other => Verdict { reason: Reason::Other, remedy: None },
        }
    }

    fn no_tracefs(&self) -> Verdict {
        let mounts = &self.surroundings.mounts;
        let usual = TRACEFS_PLACES[0];
        match &mounts.tracefs {
            Some(place) if !TRACEFS_PLACES.contains(&place.as_str()) => Verdict::new(
                Reason::NoTracefs,
                format!("mount tracefs where it is looked for, too: mount -t tracefs tracefs {usual}"),
            ),
            Some(_) if !mounts.tracefs_readable && self.lacks(Capability::DacReadSearch) => Verdict::new(
                Reason::MissingCapability,
                "give CAP_DAC_READ_SEARCH, or run it as root: tracefs is root's",
            ),
            Some(_) => Verdict::new(Reason::NoHook, "boot another kernel: this one has no such tracepoint"),
            None => Verdict::new(Reason::NoTracefs, format!("mount tracefs: mount -t tracefs tracefs {usual}")),
        }
    }

    /// EPERM tells neither a missing capability from a forbidden trampoline nor from a filter.
    fn not_permitted(&self, method: Method) -> Verdict {
        if let Some(verdict) = self.missing_rights() {
            return verdict;
        }
        let by_perf_event = matches!(method, Method::Kprobe | Method::Tracepoint);
        match method {
            _ if self.surroundings.lockdown == Lockdown::Confidentiality => lockdown(),
            Method::Tracepoint if self.tracefs_is_closed() => closed_tracefs(),
            _ if by_perf_event && self.is_paranoid() => Verdict::new(
                Reason::PerfEventParanoid,
                "set kernel.perf_event_paranoid to 2, or give CAP_SYS_ADMIN: kernels with a level above 2 take \
                 CAP_PERFMON for nothing here",
            ),
            Method::Fentry => Verdict::new(
                Reason::TrampolineRefused,
                "boot a kernel that allows trampolines: this one refuses them although the capabilities are there, as \
                 kernels do that were built without CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
            ),
            _ => Verdict::new(
                Reason::NotPermitted,
                "look for a seccomp filter or a security module: the capabilities are there",
            ),
        }
    }

    fn tracefs_is_closed(&self) -> bool {
        let mounts = &self.surroundings.mounts;
        mounts.tracefs.is_some() && !mounts.tracefs_readable && self.lacks(Capability::DacReadSearch)
    }

    /// Levels above 2 are not the kernel's own but distributions', Debian's among them; they open perf_event_open(2) to
    /// `CAP_SYS_ADMIN` alone.
    fn is_paranoid(&self) -> bool {
        let level = self.surroundings.setting("kernel.perf_event_paranoid").and_then(|level| level.parse().ok());
        level.is_some_and(|level: i32| level > 2) && self.lacks(Capability::SysAdmin)
    }

    fn missing_rights(&self) -> Option<Verdict> {
        let rights = self.rights?;
        let missing: Vec<&str> = rights.missing_for_probes()?.capabilities().map(Capability::name).collect();
        Some(if missing.is_empty() {
            user_namespace()
        } else {
            Verdict::new(Reason::MissingCapability, format!("give {}, or run it as root", missing.join(" and ")))
        })
    }

    /// Why the programs could not even be loaded: `permission` if the kernel said EPERM.
    pub(super) fn not_loaded(&self, permission: bool) -> Verdict {
        if !permission {
            return Verdict { reason: Reason::Other, remedy: None };
        }
        if let Some(verdict) = self.missing_rights() {
            return verdict;
        }
        if self.lacks(Capability::SysResource) {
            return Verdict::new(
                Reason::MemoryLockLimit,
                "give CAP_SYS_RESOURCE, or raise the limit of locked memory: ulimit -l 4096",
            );
        }
        self.not_permitted(Method::RawTracepoint)
    }

    /// Why the kernel's log could not be opened.
    pub(super) fn no_kernel_log(&self, error: &io::Error) -> Verdict {
        let restricted = self.surroundings.setting("kernel.dmesg_restrict") != Some("0");
        match error.kind() {
            io::ErrorKind::PermissionDenied if self.rights.is_some_and(|rights| !rights.whole_machine()) => {
                user_namespace()
            }
            io::ErrorKind::NotFound => Verdict::new(Reason::NoKernelLog, "give a container the machine's /dev/kmsg"),
            io::ErrorKind::PermissionDenied if restricted && self.lacks(Capability::Syslog) => {
                Verdict::new(Reason::MissingCapability, "give CAP_SYSLOG, or set kernel.dmesg_restrict to 0")
            }
            io::ErrorKind::PermissionDenied => {
                Verdict::new(Reason::NotPermitted, "allow this process or its container to open the device /dev/kmsg")
            }
            _ => Verdict { reason: Reason::Other, remedy: None },
        }
    }

    /// What keeps `detector` from seeing all, though `method` works.
    pub(super) fn warnings(&self, detector: Detector, method: Option<Method>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.surroundings.own_pids && (detector == Detector::HungTask || method == Some(Method::Tracepoint)) {
            warnings.push(FOREIGN_PIDS.to_owned());
        }
        if detector == Detector::Panic {
            let effect = |name| self.effect(name, self.surroundings.setting(name));
            warnings.extend(["kernel.ftrace_dump_on_oops", "kernel.panic"].into_iter().filter_map(effect));
            if self.surroundings.traces.tracing_on == Some(false) {
                let text = "the trace buffer takes nothing, as after an oops, and last words are lost: write 1 to \
                    /sys/kernel/tracing/tracing_on";
                warnings.push(text.to_owned());
            }
        }
        if detector == Detector::HungTask {
            let effect = |name| self.effect(name, self.surroundings.setting(name));
            warnings.extend(effect("kernel.hung_task_timeout_secs"));
            let by_log = method == Some(Method::Kmsg);
            warnings.extend(effect("kernel.hung_task_warnings").filter(|_| by_log));
        }
        warnings
    }

    /// What follows from a setting's value and is worth knowing.
    pub(super) fn effect(&self, name: &str, value: Option<&str>) -> Option<String> {
        let lacks = |capability| self.lacks(capability);
        let text = match (name, value) {
            ("kernel.unprivileged_bpf_disabled", Some("1" | "2")) if lacks(Capability::Bpf) => {
                "BPF is refused to this process, which lacks CAP_BPF"
            }
            ("kernel.perf_event_paranoid", Some(_)) if self.is_paranoid() => {
                "kprobes and classic tracepoints are closed to this process: above 2 they want CAP_SYS_ADMIN"
            }
            ("kernel.dmesg_restrict", Some("1")) if lacks(Capability::Syslog) => {
                "the kernel's log is closed to this process, which lacks CAP_SYSLOG"
            }
            ("kernel.kptr_restrict", Some("2")) => "stacks of hung tasks are addresses without names of functions",
            ("kernel.kptr_restrict", Some(level)) if lacks(Capability::Syslog) && !self.open_addresses(level) => {
                "stacks of hung tasks are addresses without names of functions, for want of CAP_SYSLOG"
            }
            ("kernel.hung_task_timeout_secs", Some("0")) => {
                "the kernel's watch for hung tasks is off, and no method sees any: set \
                 kernel.hung_task_timeout_secs to more than 0, such as 120"
            }
            ("kernel.hung_task_timeout_secs", None) => {
                "this kernel has no watch for hung tasks (CONFIG_DETECT_HUNG_TASK), and no method sees any"
            }
            ("kernel.hung_task_warnings", Some("0")) => {
                "the kernel's log tells of no hung task any more: set kernel.hung_task_warnings to -1 for method kmsg"
            }
            ("kernel.ftrace_enabled", Some("0")) => {
                "trampolines and kprobes may be refused: set kernel.ftrace_enabled to 1"
            }
            ("kernel.ftrace_dump_on_oops", Some("0")) => {
                "a dying kernel keeps the line about its suspect to itself: set lastWords.printByKernel, or \
                 kernel.ftrace_dump_on_oops to 2"
            }
            ("kernel.ftrace_dump_on_oops", None) => {
                "this kernel never prints its trace buffer (no CONFIG_TRACING, or not to be read here), and with it the \
                 line about a panic's suspect"
            }
            ("kernel.panic", Some(after)) if after != "0" && self.surroundings.traces.late_netconsole => {
                "netconsole of this kernel (CONFIG_NETCONSOLE_NBCON) sends a panic only where the machine does not boot \
                 again by itself: set kernel.panic to 0 and have a watchdog reset it, or rely on pstore or kdump"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether anybody may read the kernel's addresses (`kallsyms_show_value`, `kernel/ksyms_common.c`).
    fn open_addresses(&self, kptr_restrict: &str) -> bool {
        let paranoid = self.surroundings.setting("kernel.perf_event_paranoid").and_then(|level| level.parse().ok());
        kptr_restrict == "0" && paranoid.is_some_and(|level: i32| level <= 1)
    }
}

fn closed_tracefs() -> Verdict {
    Verdict::new(Reason::MissingCapability, "give CAP_DAC_READ_SEARCH, or run it as root: tracefs is root's")
}

fn user_namespace() -> Verdict {
    Verdict::new(Reason::UserNamespace, "run it in the machine's own user namespace")
}

fn lockdown() -> Verdict {
    Verdict::new(
        Reason::Lockdown,
        "lower the kernel's lockdown to integrity: at confidentiality no program may read kernel memory",
    )
}

#[cfg(test)]
mod tests;

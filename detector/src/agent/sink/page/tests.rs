//! The page of several machines, whole.

use insta::assert_snapshot;

use super::*;
use crate::contract::doctor::{
    Capability, Cgroups, Detector, Kernel, KernelSide, LastTraces, Live, Method, MissingField, Process, Program,
    Records, Runtime, Setting, Usage,
};

fn page(report: &Report) -> String {
    let page = Page::new(Screen { width: || None, colour: false }).render(report);
    for line in page.lines() {
        assert!(columns(line) <= WIDTH, "{} columns: {line}", columns(line));
    }
    page
}

fn works(name: &'static str, state: &'static str) -> Method {
    Method { name, state, ..Method::default() }
}

fn refused(name: &'static str, reason: &'static str, message: &str, remedy: &str) -> Method {
    Method {
        name,
        state: "refused",
        reason: Some(reason),
        message: Some(message.to_owned()),
        remedy: Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty()),
        ..Method::default()
    }
}

fn setting(name: &'static str, value: &str) -> Setting {
    Setting { name, value: Some(value.to_owned()), effect: None }
}

fn runtime(name: &'static str, shipped_by: Option<&'static str>, path: &'static str, state: &'static str) -> Runtime {
    Runtime { name, shipped_by, path, state }
}

fn capability(name: &'static str, need: &'static str, held: bool) -> Capability {
    Capability { name, held, need, lost_without: "names of pods and containers", ..Capability::default() }
}

/// A server where all is as it should be.
fn sound() -> Report {
    let detector = |name, methods: &[&'static str]| Detector {
        name,
        method: Some(methods[0]),
        methods: methods
            .iter()
            .enumerate()
            .map(|(at, method)| works(method, if at == 0 { "taken" } else { "works" }))
            .collect(),
        warnings: Vec::new(),
    };
    Report {
        kernel: Kernel {
            release: Some("6.12.57-amd64".to_owned()),
            architecture: "x86_64".to_owned(),
            btf_bytes: Some(6_291_456),
            lockdown: "none",
            tracefs: Some("/sys/kernel/tracing".to_owned()),
            tracefs_readable: true,
            bpffs: Some("/sys/fs/bpf".to_owned()),
            ..Kernel::default()
        },
        cgroups: Cgroups {
            version: Some("2"),
            memory_hierarchy: Some(0),
            memory_mount: Some("/sys/fs/cgroup".to_owned()),
            memory_view: Some("whole"),
            problem: None,
        },
        process: Process { uid: 0, user_namespace: "machine" },
        capabilities: vec![
            capability("CAP_BPF", "required", true),
            Capability { held_by: Some("CAP_SYS_ADMIN"), ..capability("CAP_PERFMON", "required", true) },
            capability("CAP_SYSLOG", "recommended", true),
        ],
        settings: vec![setting("kernel.dmesg_restrict", "1"), setting("kernel.hung_task_timeout_secs", "120")],
        runtimes: vec![
            runtime("containerd", None, "/run/containerd", "found"),
            runtime("docker", None, "/var/lib/docker", "absent"),
        ],
        last_traces: LastTraces {
            pstore_backend: Some("efi_pstore".to_owned()),
            pstore: "found",
            archive: "found",
            crashes: "absent",
            kdump_loaded: Some(false),
            pstore_before_kdump: Some(false),
            warnings: Vec::new(),
        },
        kernel_side: KernelSide { state: "loaded", ..KernelSide::default() },
        detectors: vec![
            detector("oom", &["fentry", "kprobe", "raw_tracepoint", "tracepoint", "kmsg"]),
            detector("hung_task", &["btf_tracepoint", "raw_tracepoint", "tracepoint", "kmsg"]),
        ],
        ..Report::default()
    }
}

/// A small virtual machine: no trampolines, no kprobes, no tracefs, an old field missing, the watch for hangs off.
fn small() -> Report {
    let mut report = sound();
    report.kernel.tracefs = None;
    report.kernel.lockdown = "unknown";
    report.cgroups =
        Cgroups { version: Some("hybrid"), memory_hierarchy: Some(4), memory_view: Some("part"), ..report.cgroups };
    let mount = "mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing";
    report.detectors[0] = Detector {
        name: "oom",
        method: Some("raw_tracepoint"),
        methods: vec![
            refused("fentry", "trampoline_refused", "Operation not permitted", "boot a kernel that allows trampolines"),
            refused("kprobe", "no_kprobes", "No such file", "boot a kernel that was built with CONFIG_KPROBE_EVENTS"),
            Method { without: vec!["attaching program x: refused".to_owned()], ..works("raw_tracepoint", "taken") },
            refused("tracepoint", "no_tracefs", "not mounted", mount),
            works("kmsg", "works"),
        ],
        warnings: Vec::new(),
    };
    report.detectors[1].warnings.push(
        "the kernel's watch for hung tasks is off, and no method sees any: set kernel.hung_task_timeout_secs to more \
         than 0, such as 120"
            .to_owned(),
    );
    report.missing_fields = ["TASK_BLOCKER", "MUTEX_OWNER"]
        .map(|name| MissingField {
            name,
            message: "task_struct has no member blocker".to_owned(),
            lost: "which lock a hung task waits for, and who holds it",
        })
        .to_vec();
    report
}

/// A user without any right, on a machine with runtimes that are closed to it.
fn powerless() -> Report {
    let message = "loading the maps of the kernel object: Operation not permitted";
    let remedy = "give CAP_BPF and CAP_PERFMON, or run it as root";
    let bpf = |name| refused(name, "missing_capability", message, remedy);
    let log = || {
        let remedy = "give CAP_SYSLOG, or set kernel.dmesg_restrict to 0";
        refused("kmsg", "missing_capability", "opening /dev/kmsg: Operation not permitted", remedy)
    };
    let mut report = sound();
    report.process.uid = 1000;
    report.kernel.tracefs_readable = false;
    report.capabilities = vec![
        capability("CAP_BPF", "required", false),
        capability("CAP_SYSLOG", "recommended", false),
        capability("CAP_SYS_PTRACE", "optional", false),
        capability("CAP_PERFMON", "unused", false),
    ];
    report.settings[0].effect = Some("the kernel's log is closed to this process, which lacks CAP_SYSLOG".to_owned());
    report.runtimes[0].state = "closed";
    report.kernel_side = KernelSide {
        state: "refused",
        reason: Some("missing_capability"),
        message: Some(message.to_owned()),
        remedy: Some(remedy.to_owned()),
    };
    report.detectors = vec![
        Detector {
            name: "oom",
            method: None,
            methods: vec![bpf("fentry"), bpf("kprobe"), log()],
            warnings: Vec::new(),
        },
        Detector { name: "hung_task", method: None, methods: vec![bpf("btf_tracepoint"), log()], warnings: Vec::new() },
    ];
    report
}

/// An old kernel that tells no types, in a container without memory cgroups, and a program that the verifier refuses.
fn bare() -> Report {
    let mut report = sound();
    report.kernel.release = None;
    report.kernel.btf_bytes = None;
    report.kernel.btf_problem = Some(
        "reading the kernel's types from /sys/kernel/btf/vmlinux; a kernel has them if built with \
         CONFIG_DEBUG_INFO_BTF: No such file or directory (os error 2)"
            .to_owned(),
    );
    report.kernel.lockdown = "confidentiality";
    report.kernel.bpffs = None;
    report.cgroups = Cgroups { problem: Some("find the memory controller".to_owned()), ..Cgroups::default() };
    report.process.user_namespace = "own";
    report.settings = vec![Setting { name: "kernel.ftrace_enabled", ..Setting::default() }];
    report.runtimes = vec![
        runtime("containerd", Some("k3s"), "/run/k3s/containerd", "absent"),
        runtime("containers-storage", None, "/run/containers/storage", "absent"),
        runtime("containers-storage", None, "/var/lib/containers/storage", "absent"),
    ];
    report.detectors.truncate(1);
    report.detectors[0].methods[0] = refused(
        "fentry",
        "verifier",
        "loading program x\x1b[2J: R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_",
        "report it, with the message and the kernel's release",
    );
    report.detectors[0].methods[1].state = "taken";
    report.detectors[0].method = Some("kprobe");
    report
}

fn live() -> Live {
    let program = |name: &str, hook: Option<&str>, runs: u64, run_ns: u64| Program {
        name: name.to_owned(),
        hook: hook.map(str::to_owned),
        runs,
        run_ns,
        ns_per_run: (runs > 0).then(|| run_ns as f64 / runs as f64),
        core_share: run_ns as f64 / 1e10,
    };
    Live {
        seconds: 10.0,
        counted: true,
        counting_problem: None,
        programs: vec![
            program("mark_victim_task", Some("mark_victim"), 0, 0),
            program("oom_decision_fentry", None, 3, 4_200),
            program("signal_generate", Some("signal_generate"), 123_456, 24_691_200),
            program("reclaim_machine", Some("mm_vmscan_direct_reclaim_begin"), 1, 900),
        ],
        records: vec![
            Records { kind: "oom_mark", written: 3, dropped: 0, per_second: 0.3 },
            Records { kind: "cgroup_made", written: 10_000, dropped: 12, per_second: 1001.2 },
        ],
        usage: Usage {
            resident_bytes: Some(9 << 20),
            anon_bytes: Some(2 << 20),
            peak_bytes: None,
            cpu_seconds: 0.0123,
            core_share: 0.00123,
        },
    }
}

#[test]
fn a_sound_machine_is_a_short_page() {
    assert_snapshot!(page(&sound()));
}

#[test]
fn a_small_machine_says_what_is_refused_and_what_would_change_it() {
    assert_snapshot!(page(&small()));
}

#[test]
fn a_user_without_rights_is_told_once_what_to_give() {
    assert_snapshot!(page(&powerless()));
}

#[test]
fn a_bare_container_is_told_all_that_is_missing() {
    assert_snapshot!(page(&bare()));
}

#[test]
fn costs_stand_at_the_end() {
    let page = page(&Report { live: Some(live()), ..sound() });
    assert_snapshot!(&page[page.find("Cost").expect("a section")..]);
}

#[test]
fn run_times_that_the_kernel_did_not_count_are_not_told_as_zero() {
    let live = Live { counted: false, counting_problem: Some("Operation not permitted".to_owned()), ..live() };
    let page = page(&Report { live: Some(live), ..sound() });
    assert!(page.contains("  ! run times are not known: Operation not permitted\n"), "{page}");
    assert!(!page.contains("signal_generate"), "{page}");
}

#[test]
fn colours_mark_what_is_wrong_and_change_nothing_else() {
    let coloured = Page::new(Screen { width: || None, colour: true }).render(&powerless());
    assert!(coloured.starts_with(&format!("{RED}! {PLAIN}Linux")), "{coloured}");
    let plain = [BOLD, RED, YELLOW, GREEN, PLAIN].iter().fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(plain, page(&powerless()));
}

#[test]
fn every_reason_of_the_contract_has_its_words() {
    for reason in ["no_kernel_side", "missing_capability", "trampoline_refused", "memory_lock_limit", "other"] {
        assert_ne!(in_words(reason), reason);
    }
}

#[test]
fn a_word_wider_than_the_page_stands_alone() {
    assert_eq!(wrapped("a bbbbbbbb c", 4), ["a", "bbbbbbbb", "c"]);
    assert_eq!(wrapped("a   b", 9), ["a   b"]);
    assert_eq!(wrapped("", 9), [""]);
}

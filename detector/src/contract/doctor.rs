//! What `detector doctor --output json` prints: one JSON object.
//!
//! A value that is not known is `null`. Fields may be added; none is renamed or removed without a deprecation.

use crate::contract::shape::{self, shapes};

shapes! {
    /// What this machine offers, and by which method each detector runs on it.
    pub struct Report {
        /// The running kernel.
        pub kernel: Kernel,
        /// Where memory cgroups are.
        pub cgroups: Cgroups,
        /// Who asks.
        pub process: Process,
        /// Every capability that the program can use.
        pub capabilities: Vec<Capability>,
        /// Settings of the kernel that matter to it.
        pub settings: Vec<Setting>,
        /// Where container runtimes keep what names are read from. Nothing is connected to.
        pub runtimes: Vec<Runtime>,
        /// What a panic of this kernel would leave for the next boot.
        pub last_traces: LastTraces,
        /// The BPF programs of this binary.
        pub kernel_side: KernelSide,
        /// Structure fields that this kernel lacks.
        pub missing_fields: Vec<MissingField>,
        /// Every detector.
        pub detectors: Vec<Detector>,
        /// What running costs; only with `--live`.
        pub live: Option<Live>,
        /// Why that could not be measured.
        pub live_problem: Option<String>,
    }

    /// The running kernel.
    pub struct Kernel {
        /// `/proc/sys/kernel/osrelease`.
        pub release: Option<String>,
        /// As uname(2) says, such as `x86_64`.
        pub architecture: String,
        /// Size of `/sys/kernel/btf/vmlinux`, the kernel's own types.
        pub btf_bytes: Option<u64>,
        /// Why these types cannot be used.
        pub btf_problem: Option<String>,
        /// `none`, `integrity` or `confidentiality` (`/sys/kernel/security/lockdown`); `unknown` if that file cannot be
        /// read.
        pub lockdown: &'static str,
        /// Where tracefs is mounted.
        pub tracefs: Option<String>,
        /// Whether this process may read there.
        pub tracefs_readable: bool,
        /// Where a BPF file system is mounted.
        pub bpffs: Option<String>,
    }

    /// Where memory cgroups are.
    pub struct Cgroups {
        /// Versions that are mounted: `1`, `2` or `hybrid`.
        pub version: Option<&'static str>,
        /// Number of the hierarchy that accounts memory, as in `/proc/PID/cgroup`; 0 is version 2.
        pub memory_hierarchy: Option<u32>,
        /// Where it is mounted.
        pub memory_mount: Option<String>,
        /// `whole`, or `part` where a cgroup namespace hides the rest.
        pub memory_view: Option<&'static str>,
        /// Why it was not found.
        pub problem: Option<String>,
    }

    /// Who asks.
    pub struct Process {
        /// Effective user id.
        pub uid: u32,
        /// `machine`, or `own`: capabilities then hold inside of it only. `unknown` if `/proc` does not tell.
        pub user_namespace: &'static str,
    }

    /// A capability that the program can use.
    pub struct Capability {
        /// Its name, such as `CAP_BPF`.
        pub name: &'static str,
        /// Whether this process has it, or has one that includes it.
        pub held: bool,
        /// The one that includes it, where it is held by that alone.
        pub held_by: Option<&'static str>,
        /// `required`: nothing is seen by BPF without it; `recommended` or `optional`: something stays unknown;
        /// `unused`: this kernel does not know it, or has finer ones.
        pub need: &'static str,
        /// What it is used for.
        pub used_for: &'static str,
        /// What is lost without it.
        pub lost_without: &'static str,
    }

    /// A setting of the kernel.
    pub struct Setting {
        /// Name as sysctl(8) has it.
        pub name: &'static str,
        /// Its value; `null` if this kernel has no such setting or does not let this process read it.
        pub value: Option<String>,
        /// What follows from that value and is worth knowing.
        pub effect: Option<String>,
    }

    /// A place where a container runtime keeps its state.
    pub struct Runtime {
        /// `containerd`, `cri-o`, `docker`, `podman`, or `containers-storage`, which CRI-O and Podman share.
        pub name: &'static str,
        /// What brought the runtime along, such as `k3s`.
        pub shipped_by: Option<&'static str>,
        /// The directory.
        pub path: &'static str,
        /// `found`, `absent`, or `closed`: it is there, but this process may not list it.
        pub state: &'static str,
    }

    /// What a panic of this kernel would leave for the next boot.
    pub struct LastTraces {
        /// Backend of pstore, such as `efi_pstore`, `erst`, `ramoops`; `null`: there is none.
        pub pstore_backend: Option<String>,
        /// `/sys/fs/pstore`: `found`, `absent`, or `closed`: it is there, but this process may not list it.
        pub pstore: &'static str,
        /// `/var/lib/systemd/pstore`, where systemd moves records to; likewise.
        pub archive: &'static str,
        /// `/var/crash`, where kdump writes; likewise.
        pub crashes: &'static str,
        /// Whether a crash kernel of kdump is loaded.
        pub kdump_loaded: Option<bool>,
        /// Whether pstore is written before that kernel takes over (`crash_kexec_post_notifiers`).
        pub pstore_before_kdump: Option<bool>,
        /// What would be lost, in sentences.
        pub warnings: Vec<String>,
    }

    /// The BPF programs of this binary.
    pub struct KernelSide {
        /// `loaded` (and unloaded again), `refused`, or `absent`: this binary was built without them.
        pub state: &'static str,
        /// Why, one of the words of a method's `reason`.
        pub reason: Option<&'static str>,
        /// The same in a sentence.
        pub message: Option<String>,
        /// What would change it.
        pub remedy: Option<String>,
    }

    /// A structure field that this kernel lacks.
    pub struct MissingField {
        /// Name of the field's offset in the BPF programs.
        pub name: &'static str,
        /// What was looked for and not found.
        pub message: String,
        /// What stays unknown.
        pub lost: &'static str,
    }

    /// A detector and its ladder.
    pub struct Detector {
        /// `oom`, `hung_task` or `panic`.
        pub name: &'static str,
        /// Method that `watch` takes; `null`: none works, and the exit code is 1.
        pub method: Option<&'static str>,
        /// Its methods, best first.
        pub methods: Vec<Method>,
        /// What else keeps it from seeing all, in sentences.
        pub warnings: Vec<String>,
    }

    /// A method of a detector. Each was tried: attached and detached.
    pub struct Method {
        /// Its name, as in `--method`.
        pub name: &'static str,
        /// `taken`: the best that works. `works`: so does this one, and stands by. `refused`.
        pub state: &'static str,
        /// Why it was refused: `no_kernel_side`, `missing_capability`, `user_namespace`, `memory_lock_limit`, `lockdown`,
        /// `trampoline_refused`, `perf_event_paranoid`, `no_btf`, `missing_field`, `no_hook`, `no_kprobes`, `no_tracefs`,
        /// `no_kernel_log`, `no_cgroups`, `not_permitted`, `verifier` or `other`.
        pub reason: Option<&'static str>,
        /// What the kernel or the loader said.
        pub message: Option<String>,
        /// What would change it.
        pub remedy: Option<String>,
        /// What it would add and this kernel refused, though the method works.
        pub without: Vec<String>,
    }

    /// What running cost while `doctor` waited.
    pub struct Live {
        /// How long, in seconds.
        pub seconds: f64,
        /// Whether the kernel counted the run time of BPF programs meanwhile.
        pub counted: bool,
        /// Why it did not.
        pub counting_problem: Option<String>,
        /// Every loaded program.
        pub programs: Vec<Program>,
        /// Every kind of record.
        pub records: Vec<Records>,
        /// What this process used itself.
        pub usage: Usage,
    }

    /// A loaded program.
    pub struct Program {
        /// Its name.
        pub name: String,
        /// Hook that it is attached to, as far as the kernel tells.
        pub hook: Option<String>,
        /// How often it ran.
        pub runs: u64,
        /// Run time of these runs, in nanoseconds.
        pub run_ns: u64,
        /// The same for one run.
        pub ns_per_run: Option<f64>,
        /// Share of one core, 0 to 1.
        pub core_share: f64,
    }

    /// Records of one kind.
    pub struct Records {
        /// Its name.
        pub kind: &'static str,
        /// How many were written.
        pub written: u64,
        /// How many found their ring full and are lost.
        pub dropped: u64,
        /// Written and dropped ones in a second.
        pub per_second: f64,
    }

    /// What this process used itself.
    pub struct Usage {
        /// Resident memory at the end, in bytes.
        pub resident_bytes: Option<u64>,
        /// The part of it that no file backs.
        pub anon_bytes: Option<u64>,
        /// The most that was resident since the program started.
        pub peak_bytes: Option<u64>,
        /// Processor time while it waited, in seconds.
        pub cpu_seconds: f64,
        /// The same as share of one core.
        pub core_share: f64,
    }
}

/// The reference in Markdown, as `docs/` shows it.
#[must_use]
pub fn reference() -> String {
    let objects = [
        ("Object `kernel`", Kernel::SHAPE),
        ("Object `cgroups`", Cgroups::SHAPE),
        ("Object `process`", Process::SHAPE),
        ("Elements of `capabilities`", Capability::SHAPE),
        ("Elements of `settings`", Setting::SHAPE),
        ("Elements of `runtimes`", Runtime::SHAPE),
        ("Object `last_traces`", LastTraces::SHAPE),
        ("Object `kernel_side`", KernelSide::SHAPE),
        ("Elements of `missing_fields`", MissingField::SHAPE),
        ("Elements of `detectors`", Detector::SHAPE),
        ("Elements of `methods`", Method::SHAPE),
        ("Object `live`", Live::SHAPE),
        ("Elements of `programs`", Program::SHAPE),
        ("Elements of `records`", Records::SHAPE),
        ("Object `usage`", Usage::SHAPE),
    ];
    let mut page = String::from(PREFACE);
    shape::write_section(&mut page, "## The object", &Report::SHAPE);
    for (heading, shape) in objects {
        shape::write_section(&mut page, &format!("## {heading}"), &shape);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

const PREFACE: &str = "\
# Output of `detector doctor --output json`

One JSON object. A value that is not known is `null`. Fields may be added; none is renamed or removed without a
deprecation. The exit code is 0 if every detector has a method that works, 1 if one has none, 64 for a wrong command line.

On one machine only these differ from run to run: all of `live`, and `kernel.hung_task_warnings`, which the kernel counts
down itself.

";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_serialised_field_stands_in_the_reference_and_no_other() {
        let mut serialised = BTreeSet::new();
        collect("", &serde_json::to_value(full()).expect("a report is JSON"), &mut serialised);
        assert_eq!(serialised, documented(&reference()));
    }

    #[test]
    fn lists_say_what_they_hold() {
        let page = reference();
        assert!(page.contains("| `detectors` | array of objects, see below | never |"), "{page}");
        assert!(page.contains("| `warnings` | array of strings | never |"), "{page}");
    }

    /// A report with one of each element.
    fn full() -> Report {
        Report {
            capabilities: vec![Capability::default()],
            settings: vec![Setting::default()],
            runtimes: vec![Runtime::default()],
            missing_fields: vec![MissingField::default()],
            detectors: vec![Detector { methods: vec![Method::default()], ..Detector::default() }],
            live: Some(Live {
                programs: vec![Program::default()],
                records: vec![Records::default()],
                ..Live::default()
            }),
            ..Report::default()
        }
    }

    fn collect(section: &str, value: &Value, into: &mut BTreeSet<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    into.insert((section.to_owned(), name.clone()));
                    collect(name, value, into);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| collect(section, element, into)),
            _ => {}
        }
    }

    fn documented(page: &str) -> BTreeSet<(String, String)> {
        let quoted = |line: &str| line.split('`').nth(1).map(str::to_owned);
        let mut section = String::new();
        let mut found = BTreeSet::new();
        for line in page.lines() {
            if line.starts_with("## ") {
                section = quoted(line).unwrap_or_default();
            } else if line.starts_with("| `") {
                found.insert((section.clone(), quoted(line).expect("a row names its field")));
            }
        }
        found
    }
}

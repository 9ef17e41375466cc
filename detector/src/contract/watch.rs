//! Lines that `detector watch --output json` prints: one JSON object a line, told apart by `type`.
//!
//! A field whose value is not known is `null`, never zero. Fields may be added; none is renamed or removed without a
//! deprecation.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contract::shape::{self, shapes};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The probes are attached; printed once, before anything else.
    Started(Started),
    /// The kernel killed a process for want of memory.
    OomKill(Box<OomKill>),
    /// A task began to hang, hangs on, or hangs no more.
    HungTask(Box<HungTask>),
    /// A detector goes on by another method.
    MethodChanged(MethodChanged),
    /// Something was lost, refused or not understood; at most one a kind and minute.
    Notice(Notice),
    /// The last line.
    Summary(Summary),
}

shapes! {
    /// What watches, and by which method.
    pub struct Started {
        /// RFC 3339, UTC.
        pub time: String,
        /// `/proc/sys/kernel/osrelease`.
        pub kernel: String,
        /// `/proc/sys/kernel/random/boot_id`.
        pub boot_id: String,
        /// Method of each detector that runs, by its name (`oom`, `hung_task`, `panic`): `fentry`, `kprobe`, `btf_tracepoint`,
        /// `raw_tracepoint`, `tracepoint` or `kmsg`; `null` if none works.
        pub methods: BTreeMap<&'static str, Option<&'static str>>,
        /// By detector: methods that this kernel refused, better ones or what else they could have added, with the reason.
        pub refused: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
        /// Cgroups known at the start.
        pub cgroups: u64,
        /// From the start of the program to the last probe attached, in milliseconds.
        pub attached_after_ms: f64,
    }

    /// One process killed by the OOM killer.
    pub struct OomKill {
        /// Time of the kill, RFC 3339, UTC.
        pub time: String,
        /// The same in nanoseconds since boot.
        pub boot_ns: u64,
        /// CPU that wrote the record; `null` by `kmsg`.
        pub cpu: Option<u32>,
        /// Number of the record on that CPU, which rises over restarts in a boot too; by `kmsg` that of the line in the
        /// kernel's log.
        pub sequence: u64,
        /// How it was learned of: a method of detector `oom`.
        pub method: &'static str,
        /// Number of the incident since the start; all victims of one decision share it.
        pub incident: u64,
        /// Which victim of the incident, from 1.
        pub incident_victim: u32,
        /// Whether the kernel kills a whole cgroup at once. `null` by `tracepoint`, and by `kmsg` where no report came with
        /// the kill.
        pub group_kill: Option<bool>,
        /// The killed process.
        pub victim: Victim,
        /// Its memory cgroup.
        pub cgroup: Option<Cgroup>,
        /// Who owns that cgroup.
        pub owner: Owner,
        /// Whose limit was hit.
        pub limit: Limit,
        /// The task on whose allocation memory ran out.
        pub trigger: Option<Trigger>,
    }

    /// The killed process.
    pub struct Victim {
        /// Process id.
        pub pid: Option<u32>,
        /// Thread id of the task that was chosen.
        pub tid: Option<u32>,
        /// Name of that task.
        pub comm: Option<String>,
        /// Name of the process's leading thread.
        pub leader_comm: Option<String>,
        /// When the process started, nanoseconds since boot; by `tracepoint` rounded down to 10 ms.
        pub started_boot_ns: Option<u64>,
        /// Real user id, as the machine's own user namespace sees it.
        pub uid: Option<u32>,
        /// -1,000 to 1,000.
        pub oom_score_adj: Option<i32>,
        /// Anonymous memory in bytes.
        pub anon_bytes: Option<u64>,
        /// Resident pages of files, in bytes.
        pub file_bytes: Option<u64>,
        /// Resident shared memory in bytes.
        pub shmem_bytes: Option<u64>,
        /// Memory swapped out, in bytes.
        pub swap_bytes: Option<u64>,
        /// Page tables in bytes.
        pub page_table_bytes: Option<u64>,
        /// Process id in its innermost pid namespace.
        pub namespace_pid: Option<u32>,
        /// `init`, `child` or `unknown`: which process of its container.
        pub process: &'static str,
    }

    /// A cgroup.
    pub struct Cgroup {
        /// Number of the hierarchy; 0 is cgroup v2.
        pub hierarchy: Option<u32>,
        /// Inode number of the directory; `null` where the kernel's log told the path alone.
        pub id: Option<u64>,
        /// Absolute path in the hierarchy; `null` if unresolved.
        pub path: Option<String>,
    }

    /// Who owns a cgroup.
    pub struct Owner {
        /// `container`, `pod`, `unit`, `cgroup` or `unknown`.
        pub kind: &'static str,
        /// `containerd`, `cri-o`, `docker`, `podman` or `unknown`.
        pub runtime: Option<&'static str>,
        /// Id of the container.
        pub container_id: Option<String>,
        /// Name of the container.
        pub container: Option<String>,
        /// Uid of the pod.
        pub pod_uid: Option<String>,
        /// Name of the pod.
        pub pod: Option<String>,
        /// Namespace of the pod.
        pub namespace: Option<String>,
        /// `guaranteed`, `burstable` or `besteffort`.
        pub qos: Option<&'static str>,
        /// Name of the systemd unit.
        pub unit: Option<String>,
    }

    /// Whose limit was hit.
    pub struct Limit {
        /// `container`, `pod`, `ancestor`, `node`, `nested`, `cgroup` or `unknown`.
        pub hit: &'static str,
        /// The cgroup whose limit it is; `null` for the machine.
        pub cgroup: Option<Cgroup>,
        /// The limit in bytes.
        pub bytes: Option<u64>,
        /// Memory that the domain may use, swap included, in bytes. `null` by `raw_tracepoint`.
        pub total_bytes: Option<u64>,
        /// `none`, `cpuset`, `memory_policy` or `memcg`. By `raw_tracepoint` only `memcg` can be told.
        pub constraint: Option<&'static str>,
        /// Order of the failed allocation; -1 is sysrq. `null` by `raw_tracepoint`.
        pub order: Option<i32>,
        /// Flags of the failed allocation, as the kernel's number. `null` by `raw_tracepoint`.
        pub gfp: Option<u32>,
    }

    /// The task on whose allocation memory ran out.
    pub struct Trigger {
        /// Process id.
        pub pid: u32,
        /// Thread id.
        pub tid: u32,
        /// Name of the task.
        pub comm: String,
        /// Its memory cgroup.
        pub cgroup: Option<Cgroup>,
    }

    /// A task that hangs in uninterruptible sleep: a line when the kernel's watch first finds it, one at each later scan
    /// that finds it still, and one at its end.
    pub struct HungTask {
        /// Time at which this was seen, RFC 3339, UTC.
        pub time: String,
        /// The same in nanoseconds since boot.
        pub boot_ns: u64,
        /// How it was learned of: a method of detector `hung_task`.
        pub method: &'static str,
        /// Number of the hang since the start; all its lines share it. A task that ran and hangs again is a new hang.
        pub hang: u64,
        /// `raised`, `sustained`, `ran` (it ran again: the hang is over) or `exited` (the task is gone: likewise).
        pub state: &'static str,
        /// How long it has hung at least, in milliseconds. Never falls. At the end it is the time at which the task was last
        /// seen to stand, looked at once a second.
        pub hung_ms: u64,
        /// The task.
        pub task: Task,
        /// Its memory cgroup.
        pub cgroup: Option<Cgroup>,
        /// Who owns that cgroup.
        pub owner: Owner,
        /// The lock that it waits for; `null` where the kernel does not tell (before Linux 6.16).
        pub lock: Option<Lock>,
        /// Where it waits in the kernel, innermost function first, such as `io_schedule+0x46` or
        /// `ext4_map_blocks+0x12 [ext4]` (bytes from the start of the function; module); `?` is a function without a known
        /// name. Empty if unknown.
        pub stack: Vec<String>,
    }

    /// The task that hangs.
    pub struct Task {
        /// Process id.
        pub pid: Option<u32>,
        /// Thread id.
        pub tid: Option<u32>,
        /// Name of the task.
        pub comm: Option<String>,
        /// Name of the process's leading thread.
        pub leader_comm: Option<String>,
        /// When the process started, nanoseconds since boot.
        pub started_boot_ns: Option<u64>,
        /// When the task itself started, nanoseconds since boot: with `tid` it names one task.
        pub thread_started_boot_ns: Option<u64>,
    }

    /// A lock that a task waits for.
    pub struct Lock {
        /// `mutex`, `semaphore`, `rwsem_reader` (a read-write semaphore that the task wants to read), `rwsem_writer` (to
        /// write), or `none`: it waits for none of these, but for something else, such as a disk.
        pub kind: &'static str,
        /// The task that holds it; `null` if there is none or the kernel does not tell.
        pub holder: Option<Holder>,
    }

    /// The task that holds a lock.
    pub struct Holder {
        /// Process id.
        pub pid: Option<u32>,
        /// Thread id.
        pub tid: Option<u32>,
        /// Name of the task.
        pub comm: Option<String>,
        /// Name of the process's leading thread.
        pub leader_comm: Option<String>,
        /// The last known holder only: it may have let go since.
        pub likely: bool,
        /// Its memory cgroup.
        pub cgroup: Option<Cgroup>,
        /// Who owns that cgroup.
        pub owner: Owner,
    }

    /// The method of a detector fell silent or failed and was replaced, or attached anew; or a better one works again.
    pub struct MethodChanged {
        /// When the new one was attached, RFC 3339, UTC.
        pub time: String,
        /// `oom`, `hung_task` or `panic`.
        pub detector: &'static str,
        /// Method that was in use.
        pub before: &'static str,
        /// Method in use from now on; the same name if it was attached anew; `null`: none is left, the detector is blind.
        pub now: Option<&'static str>,
        /// Why, in a sentence.
        pub reason: String,
    }

    /// Something was lost, refused or not understood.
    pub struct Notice {
        /// RFC 3339, UTC.
        pub time: String,
        /// Stage that tells: `source`, `decode`, `locate` or `problem`.
        pub stage: &'static str,
        /// What it is, a closed set of words. Of `source`: `no_btf`, `missing_fields`, `missing_rights`, `no_probe`,
        /// `no_cgroup_life`, `cgroup_life_broke`, `own_pid_namespace`, `no_witness`, `log_overrun`, `log_silent_on_hangs`, `hung_tasks_off`, `symbols`,
        /// `task_unreadable`, `task_stack_stuck`, `kill_counts`, `last_words`, `uncounted_kills`, and the kinds of records, whose ring was full: `oom_mark`, `hung_task`,
        /// `cgroup_made`, `cgroup_removed`. Of `decode`: `short`, `long`, `abi`, `kind`, `length`, `range`, `log_prefix`,
        /// `log_number`. Of `locate`: `partial_view`, `unresolved`, `hierarchy`, `walk`, `names`, `names_slow`,
        /// `names_unread`. Of `problem`: `missed_by_method`, `hangs_beyond_limit`, `hangs_nameless`.
        pub kind: &'static str,
        /// How often since the last notice of this stage and kind.
        pub count: u64,
        /// The first of them, in a sentence.
        pub message: String,
    }

    /// What was seen and what was not.
    pub struct Summary {
        /// Processes killed.
        pub kills: u64,
        /// Decisions of the OOM killer.
        pub incidents: u64,
        /// Marks of tasks that were already dying: no kills.
        pub already_dying: u64,
        /// Second marks of a process already told, and kills that record and log both told.
        pub duplicates: u64,
        /// Kills whose cgroup has no known path.
        pub unresolved: u64,
        /// Tasks that began to hang.
        pub hangs: u64,
        /// Those of them that hang still, as far as was seen.
        pub hangs_open: u64,
        /// All records lost.
        pub lost: u64,
        /// Records that found a ring full, by kind; and `kernel_log`: lines of the log that were
        /// overwritten unread while a detector lived by it.
        pub lost_ring: BTreeMap<&'static str, u64>,
        /// Records that could not be decoded, by reason.
        pub lost_decode: BTreeMap<&'static str, u64>,
        /// What the kernel counted (`/proc/vmstat` `oom_kill`) since the probes were attached. It counts the chosen victim of
        /// a group kill twice.
        pub kernel_kills: Option<u64>,
        /// Kills that the kernel counted and the probes did not see; negative if they saw more. Each group kill explains one
        /// count more or none, so that as many unseen kills as there were group kills may hide behind a 0.
        pub unaccounted: Option<i64>,
        /// Where these happened: difference by path of the cgroup, as far as living cgroups tell; at most 16.
        pub differences: BTreeMap<String, i64>,
    }
}

/// The reference of all lines in Markdown, as `docs/` shows it.
#[must_use]
pub fn reference() -> String {
    let lines = [
        ("started", Started::SHAPE),
        ("oom_kill", OomKill::SHAPE),
        ("hung_task", HungTask::SHAPE),
        ("method_changed", MethodChanged::SHAPE),
        ("notice", Notice::SHAPE),
        ("summary", Summary::SHAPE),
    ];
    let parts = [
        ("victim", Victim::SHAPE),
        ("cgroup", Cgroup::SHAPE),
        ("owner", Owner::SHAPE),
        ("limit", Limit::SHAPE),
        ("trigger", Trigger::SHAPE),
        ("task", Task::SHAPE),
        ("lock", Lock::SHAPE),
        ("holder", Holder::SHAPE),
    ];
    let mut page = String::from(PREFACE);
    for (name, shape) in lines {
        shape::write_section(&mut page, &format!("## Line `{name}`"), &shape);
    }
    for (name, shape) in parts {
        shape::write_section(&mut page, &format!("## Object `{name}`"), &shape);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

const PREFACE: &str = "\
# Lines of `detector watch --output json`

One JSON object a line. The field `type` tells which line it is: `started`, `oom_kill`, `hung_task`, `method_changed`,
`notice` or `summary`; the other fields are listed here, section by section. A value that is not known is `null`, never
zero. Fields may be added; none is renamed or removed without a deprecation.

";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Objects whose keys are data, not names of this contract.
    const MAPS: [&str; 5] = ["methods", "refused", "lost_ring", "lost_decode", "differences"];

    #[test]
    fn every_serialised_field_stands_in_the_reference_and_no_other() {
        let mut serialised = BTreeSet::new();
        for line in full_lines() {
            let value = serde_json::to_value(&line).expect("a line is JSON");
            let section = value["type"].as_str().expect("a line has a type").to_owned();
            collect(&section, &value, &mut serialised);
        }
        assert_eq!(serialised, documented(&reference()));
    }

    #[test]
    fn a_field_that_can_be_null_says_so() {
        let page = reference();
        assert!(page.contains("| `group_kill` | boolean | yes |"), "{page}");
        assert!(page.contains("| `boot_ns` | integer | never |"), "{page}");
    }

    #[test]
    fn doc_comments_of_several_lines_become_one_row() {
        let page = reference();
        let row = page.lines().find(|line| line.starts_with("| `kernel_kills`")).expect("a row");
        assert!(row.ends_with("a group kill twice. |"), "{row}");
    }

    /// One of each line, with every optional part present.
    fn full_lines() -> [Line; 6] {
        let cgroup = || Some(Cgroup::default());
        let kill = OomKill {
            cgroup: cgroup(),
            limit: Limit { cgroup: cgroup(), ..Limit::default() },
            trigger: Some(Trigger { cgroup: cgroup(), ..Trigger::default() }),
            ..OomKill::default()
        };
        let holder = Some(Holder { cgroup: cgroup(), ..Holder::default() });
        let lock = Some(Lock { holder, ..Lock::default() });
        let hang = HungTask { cgroup: cgroup(), lock, ..HungTask::default() };
        [
            Line::Started(Started::default()),
            Line::OomKill(Box::new(kill)),
            Line::HungTask(Box::new(hang)),
            Line::MethodChanged(MethodChanged::default()),
            Line::Notice(Notice::default()),
            Line::Summary(Summary::default()),
        ]
    }

    fn collect(section: &str, value: &Value, into: &mut BTreeSet<(String, String)>) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields.iter().filter(|(name, _)| *name != "type") {
            into.insert((section.to_owned(), name.clone()));
            if !MAPS.contains(&name.as_str()) {
                collect(name, value, into);
            }
        }
    }

    fn documented(page: &str) -> BTreeSet<(String, String)> {
        let quoted = |line: &str| line.split('`').nth(1).map(str::to_owned);
        let mut section = String::new();
        let mut found = BTreeSet::new();
        for line in page.lines() {
            if line.starts_with("## ") {
                section = quoted(line).expect("a heading names its section");
            } else if line.starts_with("| `") {
                found.insert((section.clone(), quoted(line).expect("a row names its field")));
            }
        }
        found
    }
}

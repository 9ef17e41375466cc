//! Lines that `detector watch --output json` prints: one JSON object a line, told apart by `type`.
//!
//! A field whose value is not known is `null`, never zero. Fields may be added; none is renamed or removed without a
//! deprecation.

use serde::Serialize;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The probes are attached; printed once, before anything else.
    Started(Started),
    /// The kernel killed a process for want of memory.
    OomKill(Box<OomKill>),
    /// Something was lost, refused or not understood; at most one a kind and minute.
    Notice(Notice),
    /// The last line.
    Summary(Summary),
}

/// What watches, and by which method.
#[derive(Debug, Serialize)]
pub struct Started {
    /// RFC 3339, UTC.
    pub time: String,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Method of the OOM detector: `fentry`, `kprobe` or `raw_tracepoint`.
    pub oom_method: String,
    /// Cgroups known at the start.
    pub cgroups: u64,
    /// From the start of the program to the last probe attached, in milliseconds.
    pub attached_after_ms: f64,
}

/// One process killed by the OOM killer.
#[derive(Debug, Serialize)]
pub struct OomKill {
    /// Time of the kill, RFC 3339, UTC.
    pub time: String,
    /// The same in nanoseconds since boot.
    pub boot_ns: u64,
    /// CPU that wrote the record.
    pub cpu: u32,
    /// Number of the record on that CPU, from 1.
    pub sequence: u64,
    /// Number of the incident since the start; all victims of one group kill share it.
    pub incident: u64,
    /// Which victim of the incident, from 1.
    pub incident_victim: u32,
    /// Whether the kernel kills a whole cgroup at once.
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
#[derive(Debug, Serialize)]
pub struct Victim {
    /// Process id.
    pub pid: Option<u32>,
    /// Thread id of the task that was chosen.
    pub tid: Option<u32>,
    /// Name of that task.
    pub comm: Option<String>,
    /// Name of the process's leading thread.
    pub leader_comm: Option<String>,
    /// When the process started, nanoseconds since boot.
    pub started_boot_ns: Option<u64>,
    /// Effective user id.
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
#[derive(Debug, Serialize)]
pub struct Cgroup {
    /// Number of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// Inode number of the directory.
    pub id: u64,
    /// Absolute path in the hierarchy; `null` if unresolved.
    pub path: Option<String>,
}

/// Who owns a cgroup.
#[derive(Debug, Default, Serialize)]
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
#[derive(Debug, Serialize)]
pub struct Limit {
    /// `container`, `pod`, `ancestor`, `node`, `nested`, `cgroup` or `unknown`.
    pub hit: &'static str,
    /// The cgroup whose limit it is; `null` for the machine.
    pub cgroup: Option<Cgroup>,
    /// The limit in bytes.
    pub bytes: Option<u64>,
    /// Memory that the domain may use, swap included, in bytes.
    pub total_bytes: Option<u64>,
    /// `none`, `cpuset`, `memory_policy` or `memcg`.
    pub constraint: Option<&'static str>,
    /// Order of the failed allocation; -1 is sysrq.
    pub order: Option<i32>,
    /// Flags of the failed allocation, as the kernel's number.
    pub gfp: Option<u32>,
}

/// The task on whose allocation memory ran out.
#[derive(Debug, Serialize)]
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

/// Something was lost, refused or not understood.
#[derive(Debug, Serialize)]
pub struct Notice {
    /// RFC 3339, UTC.
    pub time: String,
    /// Stage that tells: `source`, `decode`, `locate` or `problem`.
    pub stage: &'static str,
    /// What it is, a closed set of words.
    pub kind: &'static str,
    /// How often since the last notice of this stage and kind.
    pub count: u64,
    /// The first of them, in a sentence.
    pub message: String,
}

/// What was seen and what was not.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Processes killed.
    pub kills: u64,
    /// Decisions of the OOM killer.
    pub incidents: u64,
    /// Marks of tasks that were already dying: no kills.
    pub already_dying: u64,
    /// Second marks of a process already told.
    pub duplicates: u64,
    /// Kills whose cgroup has no known path.
    pub unresolved: u64,
    /// All records lost.
    pub lost: u64,
    /// Records that found a ring full, by kind.
    pub lost_ring: std::collections::BTreeMap<&'static str, u64>,
    /// Records that could not be decoded, by reason.
    pub lost_decode: std::collections::BTreeMap<&'static str, u64>,
    /// What the kernel counted (`/proc/vmstat` `oom_kill`) since the probes were attached. It counts the chosen victim of
    /// a group kill twice.
    pub kernel_kills: Option<u64>,
    /// Kills that the kernel counted and the probes did not see; negative if they saw more.
    pub unaccounted: Option<i64>,
}

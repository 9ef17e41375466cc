//! The lines that `detector watch --output json` prints, read by a second hand: a renamed or missing field is an error
//! here, although the watcher's own types would follow the change.

use serde::Deserialize;

/// One line.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first line.
    Started(Started),
    /// A kill.
    OomKill(Box<OomKill>),
    /// Something was lost, refused or not understood.
    Notice(Notice),
    /// The last line.
    Summary(Summary),
}

/// What watches.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Started {
    pub(crate) oom_method: String,
    pub(crate) attached_after_ms: f64,
}

/// A kill.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OomKill {
    pub(crate) incident: u64,
    pub(crate) group_kill: Option<bool>,
    pub(crate) victim: Victim,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) owner: Owner,
    pub(crate) limit: Limit,
    pub(crate) trigger: Option<Trigger>,
}

/// The killed process.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Victim {
    pub(crate) pid: Option<u32>,
    pub(crate) tid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) leader_comm: Option<String>,
    pub(crate) started_boot_ns: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) anon_bytes: Option<u64>,
    pub(crate) namespace_pid: Option<u32>,
    pub(crate) process: String,
}

/// A cgroup.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Cgroup {
    pub(crate) id: u64,
    pub(crate) path: Option<String>,
}

/// Who owns a cgroup.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) runtime: Option<String>,
    pub(crate) container_id: Option<String>,
    pub(crate) pod_uid: Option<String>,
    pub(crate) qos: Option<String>,
}

/// Whose limit was hit.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Limit {
    pub(crate) hit: String,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) bytes: Option<u64>,
}

/// The task on whose allocation memory ran out.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Trigger {
    pub(crate) comm: String,
}

/// Something was lost, refused or not understood.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Notice {
    pub(crate) stage: String,
    pub(crate) kind: String,
    pub(crate) count: u64,
    pub(crate) message: String,
}

/// The last line.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) kills: u64,
    pub(crate) already_dying: u64,
    pub(crate) unresolved: u64,
    pub(crate) lost: u64,
    pub(crate) kernel_kills: Option<u64>,
    pub(crate) unaccounted: Option<i64>,
}

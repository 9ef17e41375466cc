//! The lines that `detector watch --output json` prints, read by a second hand: a renamed or missing field is an error
//! here, although the watcher's own types would follow the change.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One line.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first line.
    Started(Started),
    /// A kill.
    OomKill(Box<OomKill>),
    /// A task hangs, or hangs no more.
    HungTask(Box<HungTask>),
    /// A detector goes on by another method.
    MethodChanged(MethodChanged),
    /// Something was lost, refused or not understood.
    Notice(Notice),
    /// The last line.
    Summary(Summary),
}

impl Line {
    /// A line that does not belong where it stands, in words.
    pub(crate) fn unexpected(&self) -> String {
        match self {
            Self::Notice(Notice { stage, kind, count, message }) => {
                format!("notice {stage}/{kind} x{count}: {message}")
            }
            other => format!("an unexpected line: {other:?}"),
        }
    }
}

/// What watches.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Started {
    pub(crate) methods: BTreeMap<String, Option<String>>,
    pub(crate) attached_after_ms: f64,
}

/// A kill.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OomKill {
    pub(crate) method: String,
    pub(crate) incident: u64,
    pub(crate) incident_victim: u32,
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
    pub(crate) id: Option<u64>,
    pub(crate) path: Option<String>,
}

/// Who owns a cgroup.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) runtime: Option<String>,
    pub(crate) container_id: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) pod_uid: Option<String>,
    pub(crate) pod: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) qos: Option<String>,
}

impl Owner {
    /// Nothing but what kind of owner it is.
    pub(crate) fn of_kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            runtime: None,
            container_id: None,
            container: None,
            pod_uid: None,
            pod: None,
            namespace: None,
            qos: None,
        }
    }
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

/// A task hangs, or hangs no more.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HungTask {
    pub(crate) hang: u64,
    pub(crate) state: HangState,
    pub(crate) hung_ms: u64,
    pub(crate) method: String,
    pub(crate) task: Task,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) owner: Owner,
    pub(crate) lock: Option<Lock>,
    pub(crate) stack: Vec<String>,
}

/// States of a hang.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HangState {
    /// Seen for the first time.
    Raised,
    /// Hung still.
    Sustained,
    /// It ran again.
    Ran,
    /// It is gone.
    Exited,
}

/// A task that hangs.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Task {
    pub(crate) pid: Option<u32>,
    pub(crate) tid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) leader_comm: Option<String>,
    pub(crate) started_boot_ns: Option<u64>,
}

/// The lock that it waits for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lock {
    pub(crate) kind: String,
    pub(crate) holder: Option<Holder>,
}

/// Who holds it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: Option<u32>,
    pub(crate) tid: Option<u32>,
    pub(crate) comm: Option<String>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) owner: Owner,
}

/// A detector goes on by another method.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MethodChanged {
    pub(crate) detector: String,
    pub(crate) before: String,
    pub(crate) now: Option<String>,
    pub(crate) reason: String,
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

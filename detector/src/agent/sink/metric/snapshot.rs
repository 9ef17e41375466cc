//! Counts in the form in which they survive a restart. Words and names stand as text: a later version may know others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::series::{Count, Key, Owner, label};
use crate::contract::metric::{HitLimit, KilledProcess};

/// All counts that go on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub(super) containers: Vec<SavedContainer>,
    /// Kills on the node, by limit.
    pub(super) node: BTreeMap<String, u64>,
    /// Happenings told, by kind.
    pub(super) events: BTreeMap<String, u64>,
    /// Losses, by stage and kind.
    pub(super) lost: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Counts of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedContainer {
    namespace: String,
    pod: String,
    container: String,
    /// Uid of the pod that it ends with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
    /// Id of the container that it ends with, where there is no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
    /// All kills.
    pub(super) kills: u64,
    /// Decisions that they were.
    pub(super) decisions: u64,
    /// The same by process and limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    by: Vec<(String, String, u64)>,
    /// How long the series is kept still, where its owner is gone. A duration, because times since boot mean nothing
    /// after the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remaining_ns: Option<u64>,
}

impl SavedContainer {
    pub(super) fn of(key: &Key, owner: &Owner, count: &Count, now_ns: u64) -> Self {
        let (pod_uid, container_id) = match owner {
            Owner::Pod(uid) => (Some(uid.to_string()), None),
            Owner::Container(id) => (None, Some(id.to_string())),
        };
        let by = count.by.iter().map(|((process, limit), kills)| (process.word().into(), limit.word().into(), *kills));
        Self {
            namespace: key.namespace.to_string(),
            pod: key.pod.to_string(),
            container: key.container.to_string(),
            pod_uid,
            container_id,
            kills: count.kills,
            decisions: count.decisions,
            by: by.collect(),
            remaining_ns: count.end().map(|end| end.saturating_sub(now_ns)),
        }
    }

    /// Labels, owner, and kills by process and limit; words that are not known here are unknown.
    pub(super) fn parts(&self) -> (Key, Owner, BTreeMap<(KilledProcess, HitLimit), u64>) {
        let key = Key { namespace: label(&self.namespace), pod: label(&self.pod), container: label(&self.container) };
        let owner = match (&self.pod_uid, &self.container_id) {
            (None, Some(id)) => Owner::Container(label(id)),
            (uid, _) => Owner::Pod(label(uid.as_deref().unwrap_or_default())),
        };
        let mut by = BTreeMap::new();
        for (process, limit, kills) in &self.by {
            let total: &mut u64 = by.entry((process_of(process), limit_of(limit))).or_default();
            *total = total.saturating_add(*kills);
        }
        (key, owner, by)
    }
}

/// The process that `word` stands for; foreign words are unknown.
pub(super) fn process_of(word: &str) -> KilledProcess {
    KilledProcess::of_word(word).unwrap_or(KilledProcess::Unknown)
}

/// The limit that `word` stands for; foreign words are unknown.
pub(super) fn limit_of(word: &str) -> HitLimit {
    HitLimit::of_word(word).unwrap_or(HitLimit::Unknown)
}

//! What a later run of the agent in the same boot must know to place what happened in between: cgroups by id with their
//! names, the dead ones too.

use serde::{Deserialize, Serialize};

use super::{
    Locator, cgroup_path,
    cgroups::{Node, RETENTION_NS},
    runtime::Names,
};
use crate::agent::decode::event::CgroupKey;

/// Most cgroups that are written down: containers and pods first, then what is inside of containers, then all else; of
/// each the living first, then those that died last.
pub const SNAPSHOT_CAPACITY: usize = 4_096;

/// Cgroups as they are written down. Ids and times hold for one boot only: the caller sees to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocatorSnapshot {
    /// Number of the hierarchy that they live in.
    pub hierarchy: u32,
    /// The most important first.
    pub cgroups: Vec<SavedCgroup>,
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCgroup {
    /// Its id, that of its directory.
    pub id: u64,
    /// Its absolute path.
    pub path: String,
    /// When it was removed, nanoseconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// What the runtime's files told, if it is a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,
}

impl Locator {
    /// What to write down.
    #[must_use]
    pub fn snapshot(&self) -> LocatorSnapshot {
        let mut chosen: Vec<(u8, CgroupKey, &Node)> =
            self.tree.iter().map(|(key, node)| (rank(node), key, node)).collect();
        // The dead by their age: `None` would come before all of them, but the living go first anyway.
        chosen.sort_unstable_by_key(|(rank, key, node)| {
            (*rank, node.removed_at.is_some(), std::cmp::Reverse(node.removed_at), key.id)
        });
        chosen.truncate(SNAPSHOT_CAPACITY);
        let saved = |(_, key, node): (u8, CgroupKey, &Node)| {
            let parsed = cgroup_path::parse(&node.path);
            let part = parsed.container.filter(|_| parsed.is_container_itself());
            SavedCgroup {
                id: key.id,
                path: node.path.to_string(),
                removed_at: node.removed_at,
                names: part.and_then(|part| self.names.known(part.id)).map(|names| (**names).clone()),
            }
        };
        LocatorSnapshot { hierarchy: self.hierarchy.number, cgroups: chosen.into_iter().map(saved).collect() }
    }

    /// Changes whenever [`Locator::snapshot`] has something new to say.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let tree = self.tree.counters();
        tree.learned.wrapping_add(tree.removed).wrapping_add(self.names.generation())
    }

    /// Takes in what an earlier run of this boot wrote down; before the first walk, which then corrects it: a directory
    /// that has an id under another path is another cgroup, and what it does not find is gone since.
    pub(super) fn restore(&mut self, snapshot: &LocatorSnapshot, now_ns: u64) {
        if snapshot.hierarchy != self.hierarchy.number {
            return;
        }
        let is_of_use = |saved: &&SavedCgroup| {
            saved.path.starts_with('/') && saved.removed_at.is_none_or(|at| at <= now_ns && now_ns - at <= RETENTION_NS)
        };
        let mut cgroups: Vec<&SavedCgroup> =
            snapshot.cgroups.iter().take(SNAPSHOT_CAPACITY).filter(is_of_use).collect();
        // The tree wants the dead in their order.
        cgroups.sort_by_key(|saved| saved.removed_at);
        for saved in cgroups {
            let key = CgroupKey { hierarchy: snapshot.hierarchy, id: saved.id };
            if self.tree.get(key).is_some() {
                continue;
            }
            self.tree.restore(key, &saved.path, saved.removed_at);
            let parsed = cgroup_path::parse(&saved.path);
            if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself()) {
                self.names.restore(part, parsed.user, key, saved.names.clone(), saved.removed_at);
            }
        }
    }
}

/// 0 is written down first.
fn rank(node: &Node) -> u8 {
    let parsed = cgroup_path::parse(&node.path);
    match (parsed.pod, parsed.container) {
        (_, Some(container)) if container.level == parsed.level => 0,
        (Some(pod), None) if pod.level == parsed.level => 0,
        (None, None) => 2,
        _ => 1,
    }
}

//! Stage 3: which container, pod or unit a memory cgroup belongs to.
//!
//! ```text
//! records of cgroup life ─▶ cgroups (id → path) ─▶ cgroup_path (path → ids) ─▶ Place
//! one walk at the start  ─┘                         runtime ─▶ names (id → names) ─┘
//! ```
//!
//! [`Locator`] owns all of it and is driven by one task. It needs no cluster and no socket. What it reads itself is made
//! up by the kernel (`/proc`, cgroups); the runtimes' files, which may lie anywhere, are read by a thread of their own
//! ([`names`]), so that no file system holds up the flow.

pub mod cgroup_path;
pub mod cgroups;
mod changes;
pub mod hierarchy;
mod lookup;
pub mod names;
pub mod place;
pub mod pods;
mod process;
pub mod runtime;
mod snapshot;
mod walk;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use cgroup_path::path_of_level;
pub use changes::seek::SEEK_NS;
pub use hierarchy::{Hierarchy, HierarchyError, Version, View};
pub use names::{
    NameCounters, SlowNames,
    reader::{InPlace, NameReader},
    worker::Worker,
};
pub use place::{Container, ContainerChange, Owner, Place, Pod, Qos, Runtime};
pub use runtime::NameError;
pub use snapshot::{LocatorSnapshot, SNAPSHOT_CAPACITY, SavedCgroup};
pub use walk::{Baseline, WalkError};

use self::{
    cgroups::{CgroupTree, TreeCounters},
    changes::{Changes, seek::Seek},
    names::NameCache,
    pods::{PodCounters, PodIndex},
};
use super::decode::event::{CgroupChange, CgroupKey, CgroupLife};

/// Knows the owner of every memory cgroup, dead ones for ten minutes.
#[derive(Debug)]
pub struct Locator {
    root: PathBuf,
    hierarchy: Hierarchy,
    tree: CgroupTree,
    names: NameCache,
    /// Where the API server may be asked for pods.
    pods: PodIndex,
    seek: Seek,
    /// Where somebody wants to be told.
    changes: Option<Changes>,
    counters: OwnCounters,
    walk_error: Option<WalkError>,
}

/// Why something could not be located.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The hierarchy of memory cgroups was not found.
    #[error("find the hierarchy of memory cgroups")]
    Hierarchy(#[from] HierarchyError),
    /// A part of the tree could not be read; what is made there later will be known.
    #[error("walk the tree of memory cgroups")]
    Walk(#[from] WalkError),
    /// A runtime's file did not tell a container's names.
    #[error("look up the names of a container")]
    Names(#[from] NameError),
    /// The runtimes' files are slow to read.
    #[error(transparent)]
    SlowNames(#[from] SlowNames),
    /// No thread to read the runtimes' files could be started.
    #[error("start a thread that reads the names of containers")]
    NoReader(#[source] io::Error),
}

#[derive(Clone, Copy, Debug, Default)]
struct OwnCounters {
    foreign: u64,
    without_path: u64,
    vanished: u64,
    unreadable: u64,
    left_out: u64,
    resolved_by_pid: u64,
    unresolved: u64,
}

/// Counts of this stage since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocateCounters {
    /// Life of the tree.
    pub tree: TreeCounters,
    /// Search for names.
    pub names: NameCounters,
    /// Records of hierarchies other than that of memory.
    pub foreign: u64,
    /// Records of cgroups being made whose path the kernel could not tell.
    pub without_path: u64,
    /// Directories that were removed while a walk read them.
    pub vanished: u64,
    /// Directories that a walk could not read for another reason.
    pub unreadable: u64,
    /// Directories that a walk left out at its limit.
    pub left_out: u64,
    /// Unknown cgroups that were found by the victim's pid.
    pub resolved_by_pid: u64,
    /// Questions for a cgroup that nobody knew.
    pub unresolved: u64,
    /// Pods watched.
    pub pods: PodCounters,
    /// Searches for names that were not begun, because too many went on.
    pub unsought: u64,
    /// Changes of containers that could not be told for want of room.
    pub untold: u64,
}

impl Locator {
    /// Finds the hierarchy of the machine seen through `root` (`/` for this machine) and walks it. The probes of cgroup
    /// life must be attached before, and their records applied after: see [`cgroups`].
    ///
    /// Also returns the counters that had risen before the start. If only a part of the hierarchy is seen
    /// ([`View::Part`] of [`Locator::hierarchy`]) nothing is walked.
    ///
    /// Names are read by a thread that starts with the first container.
    ///
    /// # Errors
    /// The hierarchy cannot be found. A part that cannot be read is no error: see [`Locator::take_errors`].
    pub fn start(root: &Path) -> Result<(Self, Vec<Baseline>), LocateError> {
        Self::start_with(root, Box::new(Worker::new(root)))
    }

    /// The same with another `reader` of names.
    ///
    /// # Errors
    /// As [`Locator::start`].
    pub fn start_with(root: &Path, reader: Box<dyn NameReader>) -> Result<(Self, Vec<Baseline>), LocateError> {
        Self::resume(root, reader, &LocatorSnapshot::default(), 0)
    }

    /// The same with what an earlier run of this boot wrote down ([`Locator::snapshot`]): what died since is still known.
    /// `now_ns`: nanoseconds since boot.
    ///
    /// # Errors
    /// As [`Locator::start`].
    pub fn resume(
        root: &Path,
        reader: Box<dyn NameReader>,
        snapshot: &LocatorSnapshot,
        now_ns: u64,
    ) -> Result<(Self, Vec<Baseline>), LocateError> {
        let mut locator = Self {
            root: root.to_owned(),
            hierarchy: Hierarchy::find(root)?,
            tree: CgroupTree::default(),
            names: NameCache::new(reader),
            pods: PodIndex::default(),
            seek: Seek::default(),
            changes: None,
            counters: OwnCounters::default(),
            walk_error: None,
        };
        locator.restore(snapshot, now_ns);
        let baselines = locator.walk_again(now_ns);
        Ok((locator, baselines))
    }

    /// Walks the tree again, to mend what lost records left wrong. `began_ns`: the boot clock before the call. Costs
    /// some microseconds per cgroup: the caller sees to it that it is not done often.
    pub fn walk_again(&mut self, began_ns: u64) -> Vec<Baseline> {
        if self.hierarchy.view == View::Part {
            return Vec::new();
        }
        let walked = walk::walk(&self.hierarchy);
        self.counters.vanished += walked.vanished;
        self.counters.unreadable += walked.unreadable;
        self.counters.left_out += walked.left_out;
        let whole = walked.unreadable == 0 && walked.left_out == 0;
        self.walk_error = self.walk_error.take().or(walked.error);

        let number = self.hierarchy.number;
        for (id, path) in &walked.cgroups {
            let key = CgroupKey { hierarchy: number, id: *id };
            if self.tree.get(key).is_none_or(|node| node.removed_at.is_some() || *node.path != **path) {
                self.want_names(path, key);
            }
        }
        let seen = walked.cgroups.iter().map(|(id, path)| (*id, path.as_str()));
        for key in self.tree.apply_walk(number, seen, began_ns, whole) {
            self.container_ended(key, began_ns);
            self.note_removed(key);
        }
        self.names.fetch(usize::MAX);
        walked.baselines
    }

    /// Takes in a record of cgroup life. Cheap: no file is read.
    pub fn apply(&mut self, life: &CgroupLife) {
        if life.key.hierarchy != self.hierarchy.number {
            self.counters.foreign += 1;
            return;
        }
        let boot_ns = life.stamp.boot_ns;
        match (life.change, life.path.as_deref()) {
            (CgroupChange::Made, Some(path)) => {
                self.tree.learn(life.key, path, boot_ns);
                self.want_names(path, life.key);
            }
            (CgroupChange::Made, None) => self.counters.without_path += 1,
            (CgroupChange::Removed, path) => {
                self.tree.forget(life.key, path, boot_ns);
                self.container_ended(life.key, boot_ns);
                self.note_removed(life.key);
            }
        }
    }

    /// Takes in the names that were read meanwhile, and asks for those of at most `budget` more containers; returns how
    /// many still wait for their first read. Never waits.
    pub fn fetch_names(&mut self, budget: usize) -> usize {
        self.names.fetch(budget)
    }

    /// The path of `key`, dead or alive, without a look at its owner.
    #[must_use]
    pub fn path(&self, key: CgroupKey) -> Option<Arc<str>> {
        self.tree.get(key).map(|node| Arc::clone(&node.path))
    }

    /// Id of the memory cgroup that was last made for the container of this id.
    #[must_use]
    pub fn cgroup_of(&self, container: &str) -> Option<u64> {
        self.names.key(container).filter(|key| key.hierarchy == self.hierarchy.number).map(|key| key.id)
    }

    /// Where memory cgroups live on this machine.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Number of living and of dead cgroups that are known.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.tree.sizes()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> LocateCounters {
        let own = self.counters;
        LocateCounters {
            tree: self.tree.counters(),
            names: self.names.counters(),
            foreign: own.foreign,
            without_path: own.without_path,
            vanished: own.vanished,
            unreadable: own.unreadable,
            left_out: own.left_out,
            resolved_by_pid: own.resolved_by_pid,
            unresolved: own.unresolved,
            pods: self.pods.counters(),
            unsought: self.seek.refused(),
            untold: self.untold_changes(),
        }
    }

    /// The errors since the last call, the first few of them; [`Locator::counters`] has how many there were.
    pub fn take_errors(&mut self) -> Vec<LocateError> {
        let walk = self.walk_error.take().map(LocateError::Walk);
        walk.into_iter().chain(self.names.take_errors()).collect()
    }

    fn want_names(&mut self, path: &str, key: CgroupKey) {
        let parsed = cgroup_path::parse(path);
        if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself()) {
            self.names.want(part, parsed.user, key);
        }
    }

    /// The names of a container whose cgroup was removed are kept as long as its cgroup.
    fn container_ended(&mut self, key: CgroupKey, boot_ns: u64) {
        let Some(node) = self.tree.get(key) else { return };
        let parsed = cgroup_path::parse(&node.path);
        if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself()) {
            self.names.forget(part.id, boot_ns);
        }
    }
}

#[cfg(test)]
mod tests;

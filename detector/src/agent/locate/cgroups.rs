//! The tree of cgroups by id: the living, and for ten minutes the dead.
//!
//! Two sources teach it: records of the kernel (made, renamed, removed) and walks of the mounted tree. Records are
//! attached before the first walk, so that each cgroup is in at least one of them. Who wins:
//!
//! - Records come in the kernel's own order, and a record always overwrites: it is at least as new as any walk that was
//!   applied before it. Those that queued up while the first walk ran replay what the walk may already have seen, and
//!   end in the same state.
//! - A walk never overwrites what a record said after the walk began: its picture may be older. It does overwrite what
//!   was known before, also a tombstone: a directory that exists now under a dead cgroup's id is a new cgroup.
//! - A living cgroup that a later walk no longer finds, and of which no record came since, lost its record of removal
//!   (ring full): it gets its tombstone then.
//!
//! Ids are not used again soon: on 64-bit machines a kernfs id carries a generation in its upper half.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::place::Place;
use crate::agent::decode::event::CgroupKey;

/// Most living cgroups that are known at a time. Further ones are refused, and counted.
pub const LIVE_CAPACITY: usize = 65_536;

/// Most dead cgroups that are remembered. The oldest goes first, and is counted if its time was not over.
pub const DEAD_CAPACITY: usize = 8_192;

/// How long a dead cgroup is remembered at least, unless more than [`DEAD_CAPACITY`] die in that time.
pub const RETENTION_NS: u64 = 600 * 1_000_000_000;

/// Counts of what happened to the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeCounters {
    /// Cgroups that became known.
    pub learned: u64,
    /// Cgroups that were removed.
    pub removed: u64,
    /// Dead cgroups forgotten after their time.
    pub evicted: u64,
    /// Dead cgroups forgotten early, for want of room.
    pub evicted_early: u64,
    /// Cgroups not taken in, because [`LIVE_CAPACITY`] are known.
    pub refused: u64,
    /// Living cgroups that a walk found gone: their record was lost.
    pub missed_removals: u64,
}

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its absolute path.
    pub path: Arc<str>,
    /// When it was removed, nanoseconds since boot.
    pub removed_at: Option<u64>,
    /// Its owner, once somebody asked.
    pub(super) place: Option<CachedPlace>,
    /// When a record last spoke of it, nanoseconds since boot; 0: never.
    told_at: u64,
    /// The last walk that saw it.
    walk: u32,
}

/// A place as it could be told at some time.
#[derive(Clone, Debug)]
pub(super) struct CachedPlace {
    /// The answer.
    pub(super) place: Arc<Place>,
    /// Nothing can be added to it.
    pub(super) complete: bool,
    /// State of the names when it was made.
    pub(super) generation: Generation,
    /// Not worth another try before, nanoseconds since boot.
    pub(super) retry_at: u64,
}

/// A state of what is known of names: another one where anything became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    /// By the runtimes' files.
    pub(super) names: u64,
    /// By the API server.
    pub(super) pods: u64,
}

/// The tree.
#[derive(Debug, Default)]
pub struct CgroupTree {
    nodes: HashMap<CgroupKey, Node, BuildHasherDefault<KeyHasher>>,
    /// Tombstones, oldest first. An entry whose time differs from the node's is of an earlier life.
    dead: VecDeque<(u64, CgroupKey)>,
    live: usize,
    walk: u32,
    counters: TreeCounters,
}

impl CgroupTree {
    /// Takes in a record: `key` exists under `path` since `boot_ns`. A new path for a known cgroup is a rename, and
    /// moves all below it.
    pub fn learn(&mut self, key: CgroupKey, path: &str, boot_ns: u64) {
        self.expire(boot_ns);
        let renamed = self.nodes.get(&key).filter(|node| node.removed_at.is_none() && *node.path != *path);
        if let Some(old) = renamed.map(|node| Arc::clone(&node.path)) {
            self.rename_below(key.hierarchy, &old, path);
        }
        self.insert(key, path, boot_ns);
    }

    /// Takes in a record: `key` was removed at `boot_ns`. `path` is what the record carries; it teaches cgroups that were
    /// not known.
    pub fn forget(&mut self, key: CgroupKey, path: Option<&str>, boot_ns: u64) {
        self.expire(boot_ns);
        if !self.nodes.contains_key(&key)
            && let Some(path) = path
        {
            self.insert(key, path, boot_ns);
        }
        self.bury(key, boot_ns);
    }

    /// Takes in a cgroup that was seen living at some time after `seen_ns`, though no record spoke of it.
    pub fn learn_seen(&mut self, key: CgroupKey, path: &str, seen_ns: u64) {
        let newer = self.nodes.get(&key).is_some_and(|node| node.told_at >= seen_ns.max(1));
        if !newer && self.get(key).is_none_or(|node| node.removed_at.is_some() || *node.path != *path) {
            self.insert(key, path, 0);
        }
        if let Some(node) = self.nodes.get_mut(&key) {
            node.walk = self.walk;
        }
    }

    /// Applies a whole walk of one hierarchy that began at `began_ns`: what it saw lives, what it did not see is gone,
    /// as far as no record says otherwise. `whole`: the walk left nothing out, so that absence is proof. Returns those that
    /// turned out to be gone.
    pub fn apply_walk<'a>(
        &mut self,
        hierarchy: u32,
        seen: impl Iterator<Item = (u64, &'a str)>,
        began_ns: u64,
        whole: bool,
    ) -> Vec<CgroupKey> {
        self.walk = self.walk.wrapping_add(1);
        for (id, path) in seen {
            self.learn_seen(CgroupKey { hierarchy, id }, path, began_ns);
        }
        if !whole {
            return Vec::new();
        }
        let gone = |key: &CgroupKey, node: &Node| {
            key.hierarchy == hierarchy
                && node.removed_at.is_none()
                && node.walk != self.walk
                && node.told_at < began_ns.max(1)
        };
        let missing: Vec<CgroupKey> =
            self.nodes.iter().filter(|(key, node)| gone(key, node)).map(|(key, _)| *key).collect();
        for key in &missing {
            self.bury(*key, began_ns);
            self.counters.missed_removals += 1;
        }
        missing
    }

    /// Takes in what an earlier run knew, before anything else: the living first, then the dead, oldest first.
    pub(super) fn restore(&mut self, key: CgroupKey, path: &str, removed_at: Option<u64>) {
        if self.nodes.contains_key(&key) {
            return;
        }
        self.insert(key, path, 0);
        if let Some(removed_at) = removed_at {
            self.bury(key, removed_at);
        }
    }

    /// All that are known, dead or alive, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CgroupKey, &Node)> {
        self.nodes.iter().map(|(key, node)| (*key, node))
    }

    /// Drops tombstones whose time is over at `now_ns`, nanoseconds since boot.
    pub fn expire(&mut self, now_ns: u64) {
        while let Some((removed_at, key)) = self.dead.front().copied() {
            let old = now_ns.saturating_sub(removed_at) > RETENTION_NS;
            if !old && self.dead.len() <= DEAD_CAPACITY {
                break;
            }
            self.dead.pop_front();
            if self.nodes.get(&key).is_none_or(|node| node.removed_at != Some(removed_at)) {
                continue;
            }
            self.nodes.remove(&key);
            match old {
                true => self.counters.evicted += 1,
                false => self.counters.evicted_early += 1,
            }
        }
    }

    /// What is known of `key`, dead or alive.
    #[must_use]
    pub fn get(&self, key: CgroupKey) -> Option<&Node> {
        self.nodes.get(&key)
    }

    /// The cgroup of that path that died first at or after `since_ns`, nanoseconds since boot: it lived then.
    pub(super) fn died_since(&self, hierarchy: u32, path: &str, since_ns: u64) -> Option<CgroupKey> {
        // Oldest first, but for records of two processors that overtook each other: nobody dies twice in that time.
        let late = self.dead.iter().rev().take_while(|(removed_at, _)| *removed_at >= since_ns);
        late.map(|(_, key)| *key).filter(|key| self.is_dead_at(*key, hierarchy, path)).last()
    }

    /// A cgroup of that path: a living one, else the one that died last. Looks at all of them.
    pub(super) fn last_of_path(&self, hierarchy: u32, path: &str) -> Option<CgroupKey> {
        let living = self
            .nodes
            .iter()
            .find(|(key, node)| key.hierarchy == hierarchy && node.removed_at.is_none() && *node.path == *path);
        let living = living.map(|(key, _)| *key);
        living
            .or_else(|| self.dead.iter().rev().map(|(_, key)| *key).find(|key| self.is_dead_at(*key, hierarchy, path)))
    }

    /// All that are known below `path`, at any depth, dead or alive. Looks at all of them.
    pub(super) fn below(&self, hierarchy: u32, path: &str) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(move |(key, node)| {
                key.hierarchy == hierarchy && node.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
            })
            .map(|(_, node)| node)
    }

    /// Keeps an owner with its cgroup.
    pub(super) fn keep(&mut self, key: CgroupKey, cached: CachedPlace) {
        if let Some(node) = self.nodes.get_mut(&key) {
            node.place = Some(cached);
        }
    }

    /// Number of living and of dead cgroups.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.live, self.nodes.len() - self.live)
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> TreeCounters {
        self.counters
    }

    fn is_dead_at(&self, key: CgroupKey, hierarchy: u32, path: &str) -> bool {
        let node = self.nodes.get(&key).filter(|_| key.hierarchy == hierarchy);
        node.is_some_and(|node| node.removed_at.is_some() && *node.path == *path)
    }

    fn insert(&mut self, key: CgroupKey, path: &str, told_at: u64) {
        let full = self.live >= LIVE_CAPACITY;
        let walk = self.walk;
        match self.nodes.entry(key) {
            Entry::Occupied(mut entry) => {
                let node = entry.get_mut();
                if node.removed_at.is_none() && *node.path == *path {
                    node.told_at = node.told_at.max(told_at);
                    return;
                }
                if node.removed_at.is_some() {
                    if full {
                        self.counters.refused += 1;
                        return;
                    }
                    self.live += 1;
                    self.counters.learned += 1;
                }
                *node = Node { path: path.into(), removed_at: None, place: None, told_at, walk };
            }
            Entry::Vacant(_) if full => self.counters.refused += 1,
            Entry::Vacant(entry) => {
                entry.insert(Node { path: path.into(), removed_at: None, place: None, told_at, walk });
                self.live += 1;
                self.counters.learned += 1;
            }
        }
    }

    fn bury(&mut self, key: CgroupKey, boot_ns: u64) {
        let Some(node) = self.nodes.get_mut(&key).filter(|node| node.removed_at.is_none()) else { return };
        node.removed_at = Some(boot_ns);
        // Most of the dead are never asked for: their owner is worked out again if one is.
        node.place = None;
        node.told_at = node.told_at.max(boot_ns);
        self.live -= 1;
        self.counters.removed += 1;
        self.dead.push_back((boot_ns, key));
        self.expire(boot_ns);
    }

    /// Only cgroup v1 can rename (kernel/cgroup/cgroup-v1.c), and seldom does: a pass over all is good enough.
    fn rename_below(&mut self, hierarchy: u32, old: &str, new: &str) {
        for (_, node) in self.nodes.iter_mut().filter(|(key, _)| key.hierarchy == hierarchy) {
            let below = node.path.strip_prefix(old).filter(|rest| rest.starts_with('/'));
            if let Some(rest) = below.filter(|_| node.removed_at.is_none()) {
                node.path = format!("{new}{rest}").into();
                node.place = None;
            }
        }
    }
}

/// Mixes the two numbers of a key by multiplication: ids are counted up by the kernel, nobody can choose them to collide.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        // 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4); the fold brings the high bits down, because
        // the table looks at both ends.
        let product = u128::from(self.0.rotate_left(23) ^ value) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(id: u64) -> CgroupKey {
        CgroupKey { hierarchy: 0, id }
    }

    fn path(tree: &CgroupTree, id: u64) -> Option<&str> {
        tree.get(key(id)).map(|node| &*node.path)
    }

    #[test]
    fn a_removed_cgroup_answers_for_ten_minutes_and_then_is_evicted() {
        let mut tree = CgroupTree::default();
        tree.learn(key(1), "/a", SECOND);
        tree.forget(key(1), None, 2 * SECOND);
        tree.expire(602 * SECOND);
        assert_eq!(path(&tree, 1), Some("/a"));
        tree.expire(602 * SECOND + 1);
        assert_eq!(path(&tree, 1), None);
        assert_eq!(tree.counters().evicted, 1);
        assert_eq!(tree.sizes(), (0, 0));
    }

    #[test]
    fn a_removal_teaches_a_cgroup_that_was_not_known() {
        let mut tree = CgroupTree::default();
        tree.forget(key(7), Some("/gone"), SECOND);
        assert_eq!(path(&tree, 7), Some("/gone"));
        assert_eq!(tree.sizes(), (0, 1));
    }

    #[test]
    fn an_id_used_again_names_the_new_cgroup_and_outlives_the_old_tombstone() {
        let mut tree = CgroupTree::default();
        tree.learn(key(1), "/old", SECOND);
        tree.forget(key(1), None, 2 * SECOND);
        tree.learn(key(1), "/new", 3 * SECOND);
        tree.expire(10_000 * SECOND);
        assert_eq!(path(&tree, 1), Some("/new"));
        assert_eq!(tree.sizes(), (1, 0));
    }

    #[test]
    fn the_same_id_in_two_hierarchies_is_two_cgroups() {
        let mut tree = CgroupTree::default();
        tree.learn(CgroupKey { hierarchy: 4, id: 8 }, "/memory", SECOND);
        tree.learn(CgroupKey { hierarchy: 8, id: 8 }, "/pids", SECOND);
        assert_eq!(tree.sizes(), (2, 0));
    }

    #[test]
    fn a_rename_moves_all_that_lives_below() {
        let mut tree = CgroupTree::default();
        for (id, path) in [(1, "/a"), (2, "/a/b"), (3, "/ab"), (4, "/a/dead")] {
            tree.learn(key(id), path, SECOND);
        }
        tree.forget(key(4), None, SECOND);
        tree.learn(key(1), "/z", 2 * SECOND);
        let paths: Vec<_> = (1..=4).map(|id| path(&tree, id).unwrap()).collect();
        assert_eq!(paths, ["/z", "/z/b", "/ab", "/a/dead"]);
    }

    #[test]
    fn a_walk_does_not_undo_what_a_record_said_after_the_walk_began() {
        let mut tree = CgroupTree::default();
        tree.learn(key(1), "/removed", 5);
        tree.forget(key(1), None, 20);
        tree.learn(key(2), "/renamed", 20);
        tree.learn(key(3), "/made-later", 20);
        tree.apply_walk(0, [(1, "/removed"), (2, "/before")].into_iter(), 10, true);
        assert_eq!(tree.get(key(1)).unwrap().removed_at, Some(20));
        assert_eq!(path(&tree, 2), Some("/renamed"));
        assert_eq!(tree.get(key(3)).unwrap().removed_at, None);
    }

    #[test]
    fn a_later_walk_mends_what_lost_records_left_wrong() {
        let mut tree = CgroupTree::default();
        tree.learn(key(1), "/removal-lost", 5);
        tree.learn(key(2), "/dead", 5);
        tree.forget(key(2), None, 6);
        tree.apply_walk(0, [(2, "/alive-again"), (3, "/making-lost")].into_iter(), 10, true);
        assert_eq!(tree.get(key(1)).unwrap().removed_at, Some(10));
        assert_eq!(tree.get(key(2)).unwrap().removed_at, None);
        assert_eq!(path(&tree, 2), Some("/alive-again"));
        assert_eq!(path(&tree, 3), Some("/making-lost"));
        assert_eq!(tree.counters().missed_removals, 1);
    }

    #[test]
    fn records_queued_during_the_first_walk_replay_to_the_same_state() {
        let mut tree = CgroupTree::default();
        // While the walk ran: 1 was made and removed before it was seen, 2 made and seen, 3 seen and then removed.
        tree.apply_walk(0, [(2, "/two"), (3, "/three")].into_iter(), 10, true);
        tree.learn(key(1), "/one", 11);
        tree.forget(key(1), Some("/one"), 12);
        tree.learn(key(2), "/two", 13);
        tree.forget(key(3), Some("/three"), 14);
        assert_eq!(tree.get(key(1)).unwrap().removed_at, Some(12));
        assert_eq!(tree.get(key(2)).unwrap().removed_at, None);
        assert_eq!(tree.get(key(3)).unwrap().removed_at, Some(14));
        assert_eq!(tree.sizes(), (1, 2));
    }

    #[test]
    fn an_incomplete_walk_proves_no_absence() {
        let mut tree = CgroupTree::default();
        tree.learn(key(1), "/a", 5);
        tree.apply_walk(0, std::iter::empty(), 10, false);
        assert_eq!(tree.get(key(1)).unwrap().removed_at, None);
    }

    #[test]
    fn more_living_and_dead_than_there_is_room_for_are_refused_or_evicted_and_counted() {
        let mut tree = CgroupTree::default();
        for id in 0..LIVE_CAPACITY as u64 + 10 {
            tree.learn(key(id), "/x", SECOND);
        }
        assert_eq!(tree.sizes(), (LIVE_CAPACITY, 0));
        assert_eq!(tree.counters().refused, 10);
        for id in 0..DEAD_CAPACITY as u64 + 5 {
            tree.forget(key(id), None, 2 * SECOND);
        }
        assert_eq!(tree.sizes(), (LIVE_CAPACITY - DEAD_CAPACITY - 5, DEAD_CAPACITY));
        assert_eq!(tree.counters().evicted_early, 5);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(u64),
        Forget(u64, bool),
        Walk(Vec<u64>),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..40_u64).prop_map(Step::Learn),
            (0..40_u64, any::<bool>()).prop_map(|(id, told)| Step::Forget(id, told)),
            prop::collection::vec(0..40_u64, 0..20).prop_map(Step::Walk),
            (0..400 * SECOND).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_the_bounds_and_every_tombstone_answers_within_ten_minutes(steps in steps()) {
            let mut tree = CgroupTree::default();
            let mut now = SECOND;
            for step in steps {
                now += 1;
                match step {
                    Step::Learn(id) => tree.learn(key(id), &format!("/{id}"), now),
                    Step::Forget(id, told) => {
                        let path = format!("/{id}");
                        let known = tree.get(key(id)).is_some();
                        tree.forget(key(id), told.then_some(path.as_str()), now);
                        prop_assert_eq!(tree.get(key(id)).is_some(), known || told);
                    }
                    Step::Walk(ids) => {
                        let seen: Vec<_> = ids.iter().map(|id| (*id, format!("/{id}"))).collect();
                        tree.apply_walk(0, seen.iter().map(|(id, path)| (*id, path.as_str())), now, true);
                    }
                    Step::Wait(span) => {
                        let buried: Vec<_> = (0..40).map(key)
                            .filter(|key| tree.get(*key).is_some_and(|node| node.removed_at.is_some()))
                            .map(|key| (key, tree.get(key).and_then(|node| node.removed_at)))
                            .collect();
                        now += span;
                        tree.expire(now);
                        for (key, removed_at) in buried {
                            let young = now - removed_at.unwrap_or(0) <= RETENTION_NS;
                            prop_assert_eq!(tree.get(key).is_some(), young);
                        }
                    }
                }
                let (live, dead) = tree.sizes();
                prop_assert!(live <= LIVE_CAPACITY && dead <= DEAD_CAPACITY);
                prop_assert_eq!(live, tree.nodes.values().filter(|node| node.removed_at.is_none()).count());
                prop_assert!(dead <= tree.dead.len());
            }
        }
    }
}

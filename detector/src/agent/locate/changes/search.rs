//! Looks for names that are missing without being asked: for those who are told of containers as they come, and for
//! kills that wait for their names.

use std::sync::Arc;

use crate::agent::locate::{
    Locator,
    cgroup_path::{self, path_of_level},
    runtime::Names,
};

/// Containers whose names are asked for at a time.
const NAMES_AT_A_TIME: usize = 256;

impl Locator {
    /// From `now_ns` to `until_ns` (nanoseconds since boot, [`SEEK_NS`](super::seek::SEEK_NS) at most) somebody looks once a
    /// second for the names of the container or pod that the cgroup `path` belongs to.
    pub fn seek_names(&mut self, path: &str, now_ns: u64, until_ns: u64) {
        let parsed = cgroup_path::parse(path);
        let level = parsed.container.map(|part| part.level).or(parsed.pod.map(|part| part.level));
        if let Some(level) = level {
            self.seek.urgently(path_of_level(path, level), now_ns, until_ns);
        }
    }

    /// Does what is due at `now_ns` (nanoseconds since boot). Never waits.
    pub fn look_after(&mut self, now_ns: u64) {
        if self.changes.is_none() {
            return;
        }
        for path in self.seek.due(now_ns) {
            self.look_for_names(&path, now_ns);
        }
        self.names.fetch(NAMES_AT_A_TIME);
        self.names.looked(now_ns);
    }

    /// When [`Locator::look_after`] has something to do, nanoseconds since boot; `None`: nothing is looked for.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.names.next_look().into_iter().chain(self.seek.next_due()).min()
    }

    fn look_for_names(&mut self, path: &str, now_ns: u64) {
        let parsed = cgroup_path::parse(path);
        let Some(part) = parsed.container else { return self.look_into_pod(path, now_ns) };
        let in_pod = parsed.pod.is_some();
        let named = |names: &Names| names.sandbox || names.container.is_some() && (names.pod_name.is_some() || !in_pod);
        if self.names.known(part.id).is_some_and(|names| named(names)) {
            return self.seek.end(path);
        }
        let key = self.names.key(part.id);
        let removed_at = key.and_then(|key| self.tree.get(key)?.removed_at);
        self.names.request_again(part, parsed.user, removed_at, now_ns);
    }

    /// A pod's own cgroup has no files: one of its containers may.
    fn look_into_pod(&mut self, path: &str, now_ns: u64) {
        let mut unread = Vec::new();
        for node in self.tree.below(self.hierarchy.number, path) {
            let inner = cgroup_path::parse(&node.path);
            let Some(part) = inner.container.filter(|_| inner.is_container_itself()) else { continue };
            match self.names.known(part.id) {
                Some(names) if names.pod_name.is_some() => return self.seek.end(path),
                Some(_) => {}
                None => unread.push((Arc::clone(&node.path), node.removed_at)),
            }
        }
        for (path, removed_at) in unread {
            let inner = cgroup_path::parse(&path);
            if let Some(part) = inner.container {
                self.names.request_again(part, inner.user, removed_at, now_ns);
            }
        }
    }
}

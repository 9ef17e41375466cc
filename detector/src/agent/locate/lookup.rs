//! The question of this stage: who owns a cgroup, told by its id, its path or a process in it.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use super::{
    Locator, View,
    cgroup_path::{self, Parsed, path_of_level},
    cgroups::{CachedPlace, Generation, Node},
    names::RETRY_NS,
    place::{Owner, Place, Pod},
    process,
    runtime::Names,
    walk::directory,
};
use crate::agent::decode::event::CgroupKey;

/// A place as it can be told now.
struct Found {
    place: Arc<Place>,
    /// Nothing can be added to it.
    complete: bool,
    /// Not worth another try before, nanoseconds since boot.
    retry_at: u64,
}

impl Locator {
    /// Who owns `key`. `pid_hint`: a process in it, in case its making was missed; `boot_ns`: the time of the event.
    /// `None` is an answer: nobody knows this cgroup. The records of cgroup life that wait must be applied before. Where
    /// names are missing this may wait for them, see [`patience`](super::names) for how long.
    pub fn place(&mut self, key: CgroupKey, pid_hint: Option<u32>, boot_ns: u64) -> Option<Arc<Place>> {
        if let Some(place) = self.cached(key, boot_ns) {
            return Some(place);
        }
        if self.tree.get(key).is_none() {
            self.find_by_pid(key, pid_hint);
        }
        let Some(node) = self.tree.get(key) else {
            self.counters.unresolved += 1;
            return None;
        };
        let (path, removed_at) = (Arc::clone(&node.path), node.removed_at);
        let Found { place, complete, retry_at } = self.find(path, removed_at, boot_ns);
        let generation = self.generation();
        let cached = CachedPlace { place: Arc::clone(&place), complete, generation, retry_at };
        self.tree.keep(key, cached);
        Some(place)
    }

    /// Who owns the cgroup that had the absolute `path` in the hierarchy of memory cgroups at `boot_ns`, the time of the
    /// event: for sources that tell no id. The path may be any text; without a key nobody knows a cgroup of that path, and
    /// the place is what the path itself says.
    pub fn place_by_path(&mut self, path: &str, boot_ns: u64) -> (Option<CgroupKey>, Arc<Place>) {
        if let Some(key) = self.key_of(path, boot_ns)
            && let Some(place) = self.place(key, None, boot_ns)
        {
            return (Some(key), place);
        }
        (None, self.find(path.into(), None, boot_ns).place)
    }

    /// Who owns the memory cgroup that process `pid` lives in now; `boot_ns`: the time of the event. `None`: the process
    /// is gone, or not seen from here.
    pub fn place_by_pid(&mut self, pid: u32, boot_ns: u64) -> Option<(CgroupKey, Arc<Place>)> {
        if self.hierarchy.view == View::Part {
            return None;
        }
        let path = process::memory_cgroup(&self.root, pid, &self.hierarchy)?;
        let key = self.key_of(&path, boot_ns)?;
        Some((key, self.place(key, None, boot_ns)?))
    }

    /// The cgroup of that path: the one that died soonest after `boot_ns`, else a living one, else the one that died last.
    fn key_of(&mut self, path: &str, boot_ns: u64) -> Option<CgroupKey> {
        let number = self.hierarchy.number;
        if let Some(key) = self.tree.died_since(number, path, boot_ns) {
            return Some(key);
        }
        if self.hierarchy.view == View::Whole
            && is_as_the_kernel_writes(path)
            && let Ok(about) = fs::metadata(directory(&self.hierarchy.mount, path))
            && about.is_dir()
        {
            let key = CgroupKey { hierarchy: number, id: about.ino() };
            self.tree.learn_seen(key, path, 0);
            return Some(key);
        }
        self.tree.last_of_path(number, path)
    }

    fn cached(&mut self, key: CgroupKey, boot_ns: u64) -> Option<Arc<Place>> {
        if !self.tree.get(key)?.place.as_ref()?.complete {
            self.names.take_in();
        }
        let cached = self.tree.get(key)?.place.as_ref()?;
        let fresh = cached.generation == self.generation() && boot_ns < cached.retry_at;
        let complete = cached.complete && cached.generation.pods == self.pods.generation();
        (fresh || complete).then(|| Arc::clone(&cached.place))
    }

    fn find(&mut self, path: Arc<str>, removed_at: Option<u64>, boot_ns: u64) -> Found {
        let parsed = cgroup_path::parse(&path);
        let mut owner = parsed.owner();
        let (mut complete, mut retry_at) = (true, u64::MAX);
        if let Some(part) = parsed.container {
            let answer = self.names.ask(part, parsed.user, removed_at, boot_ns);
            (complete, retry_at) = (answer.complete, answer.retry_at);
            if let Some(names) = answer.names {
                owner = named(owner, &names);
            }
        }
        self.pods.improve(&mut owner);
        if let Some(pod) = pod_of(&mut owner).filter(|pod| pod.name.is_none()) {
            let names = self.names_in_pod(&path, &parsed, boot_ns);
            if let Some(names) = &names {
                pod.namespace.clone_from(&names.pod_namespace);
                pod.name.clone_from(&names.pod_name);
            } else {
                (complete, retry_at) = (false, retry_at.min(boot_ns.saturating_add(RETRY_NS)));
            }
        }
        Found { place: Arc::new(Place { path, owner }), complete, retry_at }
    }

    /// The names of some container of the pod that `path` belongs to: a pod's own cgroup has no files, and gVisor runs
    /// all of a pod there. Read if none is known yet and the path names no container itself.
    pub(super) fn names_in_pod(&mut self, path: &str, parsed: &Parsed<'_>, boot_ns: u64) -> Option<Arc<Names>> {
        let pod = path_of_level(path, parsed.pod?.level);
        let mut unread: Option<&Node> = None;
        for node in self.tree.below(self.hierarchy.number, pod) {
            let inner = cgroup_path::parse(&node.path);
            let Some(part) = inner.container.filter(|_| inner.is_container_itself()) else { continue };
            match self.names.known(part.id) {
                Some(names) if names.pod_name.is_some() => return Some(Arc::clone(names)),
                Some(_) => {}
                // The living have files.
                None if unread.is_none_or(|other| other.removed_at > node.removed_at) => unread = Some(node),
                None => {}
            }
        }
        let (path, removed_at) =
            unread.filter(|_| parsed.container.is_none()).map(|node| (Arc::clone(&node.path), node.removed_at))?;
        let inner = cgroup_path::parse(&path);
        let answer = self.names.ask(inner.container?, inner.user, removed_at, boot_ns);
        answer.names.filter(|names| names.pod_name.is_some())
    }

    /// State of what is known of names.
    fn generation(&self) -> Generation {
        Generation { names: self.names.generation(), pods: self.pods.generation() }
    }

    fn find_by_pid(&mut self, key: CgroupKey, pid_hint: Option<u32>) {
        let hierarchy = &self.hierarchy;
        let Some(pid) = pid_hint.filter(|_| key.hierarchy == hierarchy.number && hierarchy.view == View::Whole) else {
            return;
        };
        if let Some(path) = process::cgroup_path(&self.root, pid, hierarchy, key.id) {
            self.tree.learn_seen(key, &path, 0);
            self.counters.resolved_by_pid += 1;
        }
    }
}

/// Whether a path is absolute and the only spelling of its cgroup.
fn is_as_the_kernel_writes(path: &str) -> bool {
    path == "/"
        || path.strip_prefix('/').is_some_and(|rest| !rest.split('/').any(|part| matches!(part, "" | "." | "..")))
}

fn pod_of(owner: &mut Owner) -> Option<&mut Pod> {
    match owner {
        Owner::Container(container) => container.pod.as_mut(),
        Owner::Pod(pod) => Some(pod),
        Owner::Unit(_) | Owner::Cgroup => None,
    }
}

/// Adds what the runtime's files told to what the path told.
pub(super) fn named(owner: Owner, names: &Names) -> Owner {
    let Owner::Container(mut container) = owner else { return owner };
    if let Some(pod) = &mut container.pod {
        pod.namespace.clone_from(&names.pod_namespace);
        pod.name.clone_from(&names.pod_name);
    }
    if names.sandbox
        && let Some(pod) = container.pod
    {
        return Owner::Pod(pod);
    }
    container.name.clone_from(&names.container);
    container.init_pid = names.init_pid;
    container.runtime = names.runtime.unwrap_or(container.runtime);
    Owner::Container(container)
}

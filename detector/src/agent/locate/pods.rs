//! The pods that the API server told of: what a container id or a pod's uid is called. Pure: times come in as numbers.
//!
//! A pod is found by the id of one of its containers, else by the uid in the cgroup's path, which for a static pod is the
//! hash of its manifest. That one stays its uid: kubelet's events about a static pod carry it, and `kubectl describe`
//! looks for them by it (the mirror's annotation `kubernetes.io/config.mirror`; kubectl's `pkg/describe/describe.go`).
//! Pods that are gone are kept for a while: their kills may still be told.

use std::collections::{HashMap, VecDeque};

use super::place::{Owner, Pod};
use crate::agent::source::pods::{PodFacts, PodUpdate};

/// Most pods that are known, the gone ones included. The kubelet's own limit is 110 by default.
pub const PODS_CAPACITY: usize = 2_048;

/// Most containers of one pod whose names are kept, earlier instances included.
pub const CONTAINERS_PER_POD: usize = 64;

/// How long a pod is remembered after it is gone.
pub const POD_RETENTION_NS: u64 = 600 * 1_000_000_000;

/// Counts of this index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounters {
    /// Pods not taken in, because [`PODS_CAPACITY`] live.
    pub refused: u64,
    /// Pods forgotten before their time, for want of room.
    pub evicted_early: u64,
}

#[derive(Debug)]
struct Entry {
    namespace: Box<str>,
    name: Box<str>,
    hash: Option<Box<str>>,
    /// Id and name, the oldest first.
    containers: Vec<(Box<str>, Box<str>)>,
    removed_at: Option<u64>,
    /// The last list that had it.
    list: u32,
}

/// Whom an update may have named anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Ids of containers.
    pub(super) containers: Vec<Box<str>>,
    /// Uids of a pod, as paths may have them.
    pub(super) uids: Vec<Box<str>>,
}

/// The index.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: HashMap<Box<str>, Entry>,
    hashes: HashMap<Box<str>, Box<str>>,
    containers: HashMap<Box<str>, Box<str>>,
    /// Uids of the gone, oldest first. An entry whose time differs from the pod's is of an earlier absence.
    removed: VecDeque<(u64, Box<str>)>,
    list: u32,
    generation: u64,
    counters: PodCounters,
}

impl PodIndex {
    /// Takes in what the watch told at `now_ns`, nanoseconds since boot.
    pub(super) fn apply(&mut self, update: PodUpdate, now_ns: u64) -> Touched {
        self.expire(now_ns);
        match update {
            PodUpdate::ListBegins => self.list = self.list.wrapping_add(1),
            PodUpdate::Seen(facts) => return self.learn(facts),
            PodUpdate::Gone { uid } => self.forget(&uid, now_ns),
            PodUpdate::ListEnds => {
                let missing = self.pods.iter().filter(|(_, pod)| pod.removed_at.is_none() && pod.list != self.list);
                let missing: Vec<Box<str>> = missing.map(|(uid, _)| uid.clone()).collect();
                for uid in missing {
                    self.forget(&uid, now_ns);
                }
            }
            PodUpdate::Refused { .. } | PodUpdate::Failed { .. } => {}
        }
        Touched::default()
    }

    /// Fills in what is known of `owner`: names that it lacks.
    pub(super) fn improve(&self, owner: &mut Owner) {
        if self.pods.is_empty() {
            return;
        }
        match owner {
            Owner::Container(container) => {
                let by_id = self.containers.get(&*container.id).map(|uid| &**uid);
                let Some(pod) = &mut container.pod else { return };
                let Some(uid) = by_id.or_else(|| self.uid_of(&pod.uid)) else { return };
                let Some(entry) = self.pods.get(uid) else { return };
                entry.name_pod(pod);
                if container.name.is_none() {
                    let known = entry.containers.iter().find(|(id, _)| **id == *container.id);
                    container.name = known.map(|(_, name)| name.to_string());
                }
            }
            Owner::Pod(pod) => {
                if let Some(entry) = self.uid_of(&pod.uid).and_then(|uid| self.pods.get(uid)) {
                    entry.name_pod(pod);
                }
            }
            Owner::Unit(_) | Owner::Cgroup => {}
        }
    }

    /// The API's uid of the pod whose path has `uid`.
    fn uid_of(&self, uid: &str) -> Option<&str> {
        match self.pods.get_key_value(uid) {
            Some((uid, _)) => Some(uid),
            None => self.hashes.get(uid).map(|uid| &**uid),
        }
    }

    /// Rises whenever something became known.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of pods that are known, the gone ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> PodCounters {
        self.counters
    }

    fn learn(&mut self, facts: PodFacts) -> Touched {
        let PodFacts { uid, namespace, name, config_hash, containers } = facts;
        let uid: Box<str> = uid.into();
        let new = !self.pods.contains_key(&uid);
        if uid.is_empty() || new && !self.make_room() {
            self.counters.refused += 1;
            return Touched::default();
        }
        let list = self.list;
        let entry = self.pods.entry(uid.clone()).or_insert_with(|| Entry {
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
            hash: config_hash.as_deref().map(Into::into),
            containers: Vec::new(),
            removed_at: None,
            list,
        });
        let fresh = new || entry.removed_at.is_some();
        (entry.removed_at, entry.list) = (None, list);
        let mut touched = Touched::default();
        for (id, name) in containers {
            let (id, name): (Box<str>, Box<str>) = (id.into(), name.into());
            if entry.containers.iter().any(|(known, _)| *known == id) {
                continue;
            }
            entry.containers.push((id.clone(), name));
            self.containers.insert(id.clone(), uid.clone());
            touched.containers.push(id);
        }
        let surplus = entry.containers.len().saturating_sub(CONTAINERS_PER_POD);
        for (id, _) in entry.containers.drain(..surplus) {
            self.containers.remove(&id);
        }
        // Most updates of a pod are about its conditions.
        if !fresh && touched.containers.is_empty() {
            return touched;
        }
        self.generation += 1;
        if let Some(hash) = entry.hash.clone().filter(|_| fresh) {
            touched.uids.push(hash.clone());
            self.hashes.insert(hash, uid.clone());
        }
        touched.uids.extend(Some(uid).filter(|_| fresh));
        touched
    }

    fn forget(&mut self, uid: &str, now_ns: u64) {
        if let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.removed_at.is_none()) {
            entry.removed_at = Some(now_ns);
            self.removed.push_back((now_ns, uid.into()));
            // One that comes and goes leaves an entry each time.
            if self.removed.len() > PODS_CAPACITY {
                self.drop_oldest(true);
            }
        }
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some((removed_at, _)) = self.removed.front()
            && now_ns.saturating_sub(*removed_at) > POD_RETENTION_NS
        {
            self.drop_oldest(false);
        }
    }

    fn make_room(&mut self) -> bool {
        while self.pods.len() >= PODS_CAPACITY {
            if !self.drop_oldest(true) {
                return false;
            }
        }
        true
    }

    /// Takes one entry off the line of the gone; `false` if it is empty. `early`: for want of room, not of its age.
    fn drop_oldest(&mut self, early: bool) -> bool {
        let Some((removed_at, uid)) = self.removed.pop_front() else { return false };
        if self.pods.get(&uid).is_none_or(|entry| entry.removed_at != Some(removed_at)) {
            return true;
        }
        if let Some(entry) = self.pods.remove(&uid) {
            for (id, _) in &entry.containers {
                self.containers.remove(id);
            }
            // A later pod of the same manifest has the same hash.
            if let Some(hash) = entry.hash.filter(|hash| self.hashes.get(hash) == Some(&uid)) {
                self.hashes.remove(&hash);
            }
            self.counters.evicted_early += u64::from(early);
        }
        true
    }
}

impl Entry {
    fn name_pod(&self, pod: &mut Pod) {
        pod.namespace.get_or_insert_with(|| self.namespace.to_string());
        pod.name.get_or_insert_with(|| self.name.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::locate::cgroup_path;

    const ID: &str = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333";
    const UID: &str = "0d6dfc9d-3f4b-4c55-8a6b-2a0a6f4f4d11";
    const HASH: &str = "2053dbbf6ec7135c4e994d3464c478db";

    fn facts(uid: &str, hash: Option<&str>, containers: &[(&str, &str)]) -> PodUpdate {
        let containers = containers.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect();
        PodUpdate::Seen(PodFacts {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            config_hash: hash.map(str::to_owned),
            containers,
        })
    }

    /// Uid, pod and container of what the path says, improved.
    fn told(index: &PodIndex, path: &str) -> (String, Option<String>, Option<String>) {
        let mut owner = cgroup_path::parse(path).owner();
        index.improve(&mut owner);
        match owner {
            Owner::Container(container) => {
                let pod = container.pod.expect("in a pod");
                (pod.uid, pod.name, container.name)
            }
            Owner::Pod(pod) => (pod.uid, pod.name, None),
            other => panic!("{other:?}"),
        }
    }

    fn text(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn a_container_is_named_by_its_id_and_one_that_is_not_listed_yet_by_its_pod() {
        let mut index = PodIndex::default();
        let path = format!("/kubepods/pod{UID}/{ID}");
        index.apply(facts(UID, None, &[]), 1);
        assert_eq!(told(&index, &path), (UID.to_owned(), text("web"), None));
        let touched = index.apply(facts(UID, None, &[(ID, "app")]), 2);
        assert_eq!((touched.containers.len(), touched.uids.len()), (1, 0));
        assert_eq!(told(&index, &path), (UID.to_owned(), text("web"), text("app")));
        assert_eq!(told(&index, &format!("/kubepods/pod{UID}")), (UID.to_owned(), text("web"), None));
    }

    #[test]
    fn a_static_pod_gets_its_names_and_keeps_the_uid_by_which_its_events_are_found() {
        let mut index = PodIndex::default();
        let touched = index.apply(facts(UID, Some(HASH), &[(ID, "etcd")]), 1);
        assert_eq!(touched.uids, [HASH.into(), Box::<str>::from(UID)]);
        let path = format!("/kubepods/burstable/pod{HASH}/{ID}");
        assert_eq!(told(&index, &path), (HASH.to_owned(), text("web"), text("etcd")));
        assert_eq!(told(&index, &format!("/kubepods/burstable/pod{HASH}")), (HASH.to_owned(), text("web"), None));
        assert_eq!(index.uid_of(HASH), Some(UID));
    }

    #[test]
    fn a_static_pod_with_a_uid_of_its_own_is_found_by_its_container() {
        let mut index = PodIndex::default();
        index.apply(facts(UID, None, &[(ID, "etcd")]), 1);
        let path = format!("/kubepods/burstable/podetcd-server-1/{ID}");
        assert_eq!(told(&index, &path), ("etcd-server-1".to_owned(), text("web"), text("etcd")));
    }

    #[test]
    fn names_from_files_stand() {
        let mut index = PodIndex::default();
        index.apply(facts(UID, None, &[(ID, "other")]), 1);
        let mut owner = cgroup_path::parse(&format!("/kubepods/pod{UID}/{ID}")).owner();
        if let Owner::Container(container) = &mut owner {
            container.name = text("app");
        }
        index.improve(&mut owner);
        assert!(matches!(owner, Owner::Container(container) if container.name == text("app")));
    }

    #[test]
    fn an_update_that_says_nothing_new_touches_nobody() {
        let mut index = PodIndex::default();
        index.apply(facts(UID, Some(HASH), &[(ID, "app")]), 1);
        let generation = index.generation();
        assert_eq!(index.apply(facts(UID, Some(HASH), &[(ID, "app")]), 2), Touched::default());
        assert_eq!(index.generation(), generation);
    }

    #[test]
    fn a_pod_is_remembered_ten_minutes_after_its_end_and_so_is_one_that_a_new_list_lacks() {
        for by_list in [false, true] {
            let mut index = PodIndex::default();
            index.apply(facts(UID, Some(HASH), &[(ID, "app")]), 1);
            if by_list {
                index.apply(PodUpdate::ListBegins, 1);
                index.apply(PodUpdate::ListEnds, 1);
            } else {
                index.apply(PodUpdate::Gone { uid: UID.to_owned() }, 1);
            }
            index.apply(PodUpdate::ListEnds, 1 + POD_RETENTION_NS);
            assert_eq!(index.len(), 1);
            index.apply(PodUpdate::ListEnds, 2 + POD_RETENTION_NS);
            assert_eq!((index.len(), index.containers.len(), index.hashes.len()), (0, 0, 0));
            assert_eq!(index.counters(), PodCounters::default());
        }
    }

    #[test]
    fn the_next_pod_of_a_manifest_keeps_its_hash_when_the_former_is_forgotten() {
        let mut index = PodIndex::default();
        index.apply(facts("former", Some(HASH), &[]), 1);
        index.apply(facts(UID, Some(HASH), &[]), 2);
        index.apply(facts("former", Some(HASH), &[("1f", "app")]), 3);
        index.apply(PodUpdate::Gone { uid: "former".to_owned() }, 4);
        index.apply(PodUpdate::ListBegins, 5 + POD_RETENTION_NS);
        assert_eq!((index.len(), index.uid_of(HASH)), (1, Some(UID)));
    }

    #[test]
    fn pods_and_containers_are_bounded() {
        let mut index = PodIndex::default();
        for number in 0..PODS_CAPACITY + 3 {
            index.apply(facts(&number.to_string(), None, &[]), 1);
        }
        assert_eq!((index.len(), index.counters().refused), (PODS_CAPACITY, 3));
        index.apply(PodUpdate::Gone { uid: "7".to_owned() }, 2);
        index.apply(facts(UID, None, &[]), 2);
        assert_eq!((index.uid_of("7"), index.counters().evicted_early), (None, 1));
        for number in 0..CONTAINERS_PER_POD + 5 {
            index.apply(facts(UID, None, &[(&format!("{number:064x}"), "app")]), 3);
        }
        assert_eq!(index.containers.len(), CONTAINERS_PER_POD);
    }
}

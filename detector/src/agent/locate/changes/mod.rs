//! Tells which containers and pods are there and which are gone, to those who keep account of them.
//!
//! ```text
//! reader has answered ─┐
//! pods watched ────────┼▶ noted ids ─┐
//! a kill names it ─────┘             ├▶ take_changes ─▶ Seen, Gone, PodGone
//! cgroup removed ──────────▶ the gone ─┘
//! ```
//!
//! A container is told once its reader has answered (before, nobody knows whether it is a pod's sandbox), and again
//! when its names change. If names become known only after its end it is told, and then gone once more.

pub(super) mod seek;

mod search;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    Locator,
    cgroup_path::{self, Parsed},
    lookup::named,
    place::{Container, ContainerChange, Owner, Place},
};
use crate::agent::{decode::event::CgroupKey, source::pods::PodUpdate};

/// Most containers of which it is remembered what was told. Further ones are told again whenever something names them.
pub(in crate::agent::locate) const TOLD_CAPACITY: usize = 16_384;

/// Most ends of containers and pods between two calls of [`Locator::take_changes`]. Beyond it the oldest is dropped, and
/// counted.
pub(in crate::agent::locate) const GONE_CAPACITY: usize = 16_384;

/// Most containers whose end was told of which it is remembered what was told: kills may name them still.
pub(in crate::agent::locate) const ENDED_CAPACITY: usize = 512;

/// What was told, and what is to be told.
#[derive(Debug, Default)]
pub(in crate::agent::locate) struct Changes {
    told: HashMap<CgroupKey, Arc<Place>>,
    /// The same of those that are gone, the last one at the end.
    ended: VecDeque<(CgroupKey, Arc<Place>)>,
    gone: Vec<ContainerChange>,
    noted: Vec<Box<str>>,
    untold: u64,
}

impl Changes {
    fn told_of_ended(&self, key: CgroupKey) -> Option<&Arc<Place>> {
        self.ended.iter().rev().find(|(ended, _)| *ended == key).map(|(_, place)| place)
    }

    fn remember_ended(&mut self, key: CgroupKey, place: Arc<Place>) {
        if self.ended.len() >= ENDED_CAPACITY {
            self.ended.pop_front();
        }
        self.ended.push_back((key, place));
    }

    fn note_gone(&mut self, change: ContainerChange) {
        if self.gone.len() >= GONE_CAPACITY {
            self.untold += 1;
        } else {
            self.gone.push(change);
        }
    }
}

impl Locator {
    /// From now on changes are kept for [`Locator::take_changes`], beginning with all containers that are known.
    pub fn watch_changes(&mut self, now_ns: u64) {
        let mut changes = Changes::default();
        self.names.listen(now_ns);
        for (_, node) in self.tree.iter() {
            let parsed = cgroup_path::parse(&node.path);
            if node.removed_at.is_some() {
                gone(&parsed, &mut |change| changes.note_gone(change));
            } else if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself())
                && self.names.has_answered(part.id)
            {
                changes.noted.push(part.id.into());
            }
        }
        self.changes = Some(changes);
    }

    /// What became of containers and pods since the last call; nothing before [`Locator::watch_changes`]. `now_ns`:
    /// nanoseconds since boot.
    pub fn take_changes(&mut self, now_ns: u64) -> Vec<ContainerChange> {
        if self.changes.is_none() {
            return Vec::new();
        }
        self.names.take_in();
        let heard = self.names.take_heard();
        let Some(changes) = &mut self.changes else { return Vec::new() };
        let mut told = std::mem::take(&mut changes.gone);
        let noted = std::mem::take(&mut changes.noted);
        for id in noted.into_iter().chain(heard) {
            self.tell_seen(&id, false, now_ns, &mut told);
        }
        told
    }

    /// The same, before something that happened at `place` is told: its container is told even if nobody knows its names
    /// yet.
    pub fn changes_before(&mut self, place: &Place, now_ns: u64) -> Vec<ContainerChange> {
        let mut told = self.take_changes(now_ns);
        let Owner::Container(container) = &place.owner else { return told };
        if self.changes.is_some() {
            self.tell_seen(&container.id, true, now_ns, &mut told);
        }
        told
    }

    /// Ends of containers and pods, and names of containers, that could not be told for want of room.
    #[must_use]
    pub fn untold_changes(&self) -> u64 {
        self.changes.as_ref().map_or(0, |changes| changes.untold) + self.names.unheard()
    }

    /// Takes in what the watch of pods told at `now_ns`, nanoseconds since boot.
    pub fn apply_pods(&mut self, update: PodUpdate, now_ns: u64) {
        let touched = self.pods.apply(update, now_ns);
        let Some(changes) = &mut self.changes else { return };
        let is_of_pod = |place: &Place| {
            cgroup_path::parse(&place.path).pod.is_some_and(|part| touched.uids.iter().any(|uid| **uid == *part.uid()))
        };
        let told = changes.told.values().filter(|place| !touched.uids.is_empty() && is_of_pod(place));
        let of_pod: Vec<Box<str>> = told.filter_map(|place| Some(container(place)?.id.as_str().into())).collect();
        changes.noted.extend(of_pod);
        changes.noted.extend(touched.containers);
    }

    /// The cgroup `key` was removed.
    pub(in crate::agent::locate) fn note_removed(&mut self, key: CgroupKey) {
        let Some(changes) = &mut self.changes else { return };
        let Some(node) = self.tree.get(key) else { return };
        let parsed = cgroup_path::parse(&node.path);
        let last = changes.told.remove(&key);
        let was_told = last.is_some();
        if let Some(place) = last {
            changes.remember_ended(key, place);
        }
        self.seek.end(&node.path);
        if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself())
            && self.names.known(part.id).is_some_and(|names| names.sandbox)
        {
            return;
        }
        gone(&parsed, &mut |change| changes.note_gone(change));
        let Some(pod) = parsed.pod else { return };
        // Where pod and container share a cgroup, the pod goes with the last of them.
        let shared = parsed.is_container_itself() && parsed.container.is_some_and(|part| part.level == pod.level);
        let lives =
            |place: &Arc<Place>| cgroup_path::parse(&place.path).pod.is_some_and(|other| other.uid() == pod.uid());
        if shared && was_told && !changes.told.values().any(lives) {
            changes.note_gone(ContainerChange::PodGone { uid: pod.uid() });
        }
    }

    /// Tells the container `id`, if there is anything to tell. `forced`: also without names.
    fn tell_seen(&mut self, id: &str, forced: bool, now_ns: u64, told: &mut Vec<ContainerChange>) {
        let Some(key) = self.names.key(id) else { return };
        let Some((place, lives)) = self.known_place(key) else { return };
        let Some(seen) = container(&place) else { return };
        let Some(changes) = &mut self.changes else { return };
        let before = if lives { changes.told.get(&key) } else { changes.told_of_ended(key) };
        if before.is_some_and(|before| same_names(before, &place)) {
            return;
        }
        let named = seen.name.is_some() && seen.pod.as_ref().is_none_or(|pod| pod.name.is_some());
        if lives {
            match named {
                true => self.seek.end(&place.path),
                false => self.seek.now_and_then(&place.path, now_ns),
            }
            if changes.told.len() < TOLD_CAPACITY || changes.told.contains_key(&key) {
                changes.told.insert(key, Arc::clone(&place));
            }
            told.push(ContainerChange::Seen(place));
        } else if named || forced {
            changes.remember_ended(key, Arc::clone(&place));
            let ends = self.ends_of(&place);
            told.push(ContainerChange::Seen(place));
            told.extend(ends);
        }
    }

    /// What to tell after a container that was gone before it could be told.
    fn ends_of(&self, place: &Place) -> Vec<ContainerChange> {
        let Some(Container { id, pod, .. }) = container(place) else { return Vec::new() };
        let mut ends = vec![ContainerChange::Gone { id: id.clone() }];
        if let Some(pod) = pod
            && let own = cgroup_path::path_of_level(&place.path, pod.level)
            && let Some(key) = self.tree.last_of_path(self.hierarchy.number, own)
            && self.tree.get(key).is_some_and(|node| node.removed_at.is_some())
        {
            ends.push(ContainerChange::PodGone { uid: pod.uid.clone() });
        }
        ends
    }

    /// The container of cgroup `key` with the names that are known, without a read; and whether it lives.
    fn known_place(&self, key: CgroupKey) -> Option<(Arc<Place>, bool)> {
        let node = self.tree.get(key)?;
        let parsed = cgroup_path::parse(&node.path);
        let mut owner = parsed.owner();
        if let Some(names) = parsed.container.and_then(|part| self.names.known(part.id)) {
            owner = named(owner, names);
        }
        self.pods.improve(&mut owner);
        let place = Place { path: Arc::clone(&node.path), owner };
        Some((Arc::new(place), node.removed_at.is_none()))
    }
}

/// What the end of a cgroup with this path means.
fn gone(parsed: &Parsed<'_>, tell: &mut dyn FnMut(ContainerChange)) {
    if let Some(part) = parsed.container.filter(|_| parsed.is_container_itself()) {
        tell(ContainerChange::Gone { id: part.id.to_owned() });
    } else if let (None, Some(pod)) = (parsed.container, parsed.pod)
        && pod.level == parsed.level
    {
        tell(ContainerChange::PodGone { uid: pod.uid() });
    }
}

fn container(place: &Place) -> Option<&Container> {
    match &place.owner {
        Owner::Container(container) => Some(container),
        Owner::Pod(_) | Owner::Unit(_) | Owner::Cgroup => None,
    }
}

/// Whether two places of one container say the same to those who go by names.
fn same_names(a: &Place, b: &Place) -> bool {
    let said = |place: &Place| {
        let container = container(place)?;
        Some((container.id.clone(), container.name.clone(), container.pod.clone()))
    };
    a.path == b.path && said(a) == said(b)
}
